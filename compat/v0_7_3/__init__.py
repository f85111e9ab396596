"""The adapter for vLLM 0.7.3 and its V0 engine."""
