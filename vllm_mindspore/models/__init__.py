"""Networks, written once against `vllm_mindspore.kernels.ops`."""
