"""The checks of `vllm-mindspore check-env`, a file each: `run() -> list[Finding]`."""
