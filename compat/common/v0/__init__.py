"""What the adapters of the V0 engine share: their releases have the same worker interface, requests and sampler."""
