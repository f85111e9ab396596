"""The V1 engine of vLLM 0.8.3."""
