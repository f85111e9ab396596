"""What every adapter's platform says of itself, a mixin for vLLM's `Platform`."""

from __future__ import annotations

from vllm_mindspore.compat.common.quantization import check


class OnTheHost:
    """Torch on the host stays on the CPU; the network, its weights and its KV cache are MindSpore's."""

    device_name = "mindspore"
    device_type = "cpu"
    dispatch_key = "CPU"

    @classmethod
    def get_device_name(cls, device_id: int = 0) -> str:
        return cls.device_name

    @classmethod
    def is_async_output_supported(cls, enforce_eager: bool | None) -> bool:
        return True

    @classmethod
    def is_pin_memory_available(cls) -> bool:
        return False

    @classmethod
    def verify_quantization(cls, quant: str) -> None:
        check(quant)
