"""The adapter for vLLM 0.8.3 and its V0 engine."""
