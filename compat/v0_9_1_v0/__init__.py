"""The adapter for vLLM 0.9.1 and its V0 engine."""
