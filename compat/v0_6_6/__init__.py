"""The adapter for vLLM 0.6.6.post1 and its V0 engine."""
