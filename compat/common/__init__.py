"""What adapters of several vLLM releases share. Imports no vLLM."""
