"""What adapters of several vLLM releases share. The top level imports no vLLM; `v1` is for the V1 engines."""
