"""What the adapters for vLLM's V1 engines share. Imports only what is the same in all vLLM releases that it serves."""
