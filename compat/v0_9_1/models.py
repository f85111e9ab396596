"""What vLLM may know about our networks without loading one: nothing here is particular to this release."""

from vllm_mindspore.compat.common.v1.models import register

__all__ = ["register"]
