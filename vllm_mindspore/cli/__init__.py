"""The command `vllm-mindspore`."""
