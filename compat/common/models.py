"""What vLLM may know about our networks without loading one."""

from __future__ import annotations

from typing import Any, NoReturn

from torch import nn

from vllm_mindspore.compat.common.log import follow_vllm
from vllm_mindspore.models.registry import supported_architectures


class MindSporeForCausalLM(nn.Module):
    """Answers the questions that vLLM's registry asks about a class: it generates text, and has none of the optional interfaces.

    The signatures are the answer. vLLM never builds it: the worker loads the network itself.
    """

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        raise TypeError(
            "vLLM's model loader must not be used on this platform: the worker loads the network with MindSpore"
        )

    def forward(self, input_ids: Any, positions: Any, kv_caches: Any = None, attn_metadata: Any = None) -> NoReturn:
        raise TypeError("the network runs in MindSpore, behind the worker")

    def compute_logits(self, hidden_states: Any, sampling_metadata: Any) -> NoReturn:
        raise TypeError("the network runs in MindSpore, behind the worker")

    def sample(self, logits: Any, sampling_metadata: Any) -> NoReturn:
        raise TypeError("vLLM's own sampler runs behind the worker")


def register(registry: Any) -> None:
    """Register our architectures with vLLM's `ModelRegistry`. Idempotent.

    vLLM knows most of them and would inspect its own class of that name in a subprocess that imports all of vLLM again, at
    every start. A class that is already loaded needs no subprocess.
    """
    follow_vllm()
    for architecture in supported_architectures():
        # Taken out first, because register_model warns when it overwrites.
        registry.models.pop(architecture, None)
        registry.register_model(architecture, MindSporeForCausalLM)
