"""The neutral engine: one step in, one result out, on a static MindSpore graph. Knows no vLLM."""
