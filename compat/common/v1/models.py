"""What vLLM may know about our networks without loading one."""

from __future__ import annotations

from typing import Any, NoReturn

from torch import nn
from vllm import ModelRegistry

from vllm_mindspore.compat.common.log import follow_vllm
from vllm_mindspore.models.registry import supported_architectures


class MindSporeForCausalLM(nn.Module):
    """Answers the questions that vLLM's registry asks about a class: it generates text, and has none of the optional interfaces.

    The signatures are the answer; a release that asks for more gets a class of its own. vLLM never builds it: the worker loads the network itself.
    """

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        raise TypeError(
            "vLLM's model loader must not be used on this platform: the worker loads the network with MindSpore"
        )

    def forward(self, input_ids: Any, positions: Any) -> NoReturn:
        raise TypeError("the network runs in MindSpore, behind the worker")

    def compute_logits(self, hidden_states: Any, sampling_metadata: Any) -> NoReturn:
        raise TypeError("the network runs in MindSpore, behind the worker")


def register(model_class: type[nn.Module] = MindSporeForCausalLM) -> None:
    """Register a class for each of our architectures with vLLM. Idempotent.

    vLLM knows most of them and would inspect its own class of that name in a subprocess that imports all of vLLM again, at
    every start. A class that is already loaded needs no subprocess.
    """
    follow_vllm()
    for architecture in supported_architectures():
        # Taken out first, because register_model warns when it overwrites.
        ModelRegistry.models.pop(architecture, None)
        ModelRegistry.register_model(architecture, model_class)
