"""The gated feed-forward layer."""

from __future__ import annotations

from mindspore import Tensor, nn

from vllm_mindspore.kernels import ops
from vllm_mindspore.models.config import ModelConfig
from vllm_mindspore.models.weights import Weights


class Mlp(nn.Cell):
    """`down(silu(gate(x)) * up(x))`."""

    def __init__(self, name: str, middle: int, config: ModelConfig, weights: Weights) -> None:
        super().__init__(auto_prefix=False)
        hidden = config.hidden_size
        self.bias = config.mlp_bias
        gate_up = [f"{name}.gate_proj", f"{name}.up_proj"]
        self.gate_up_weight = ops.parameter(
            weights.matrix([f"{p}.weight" for p in gate_up], [middle, middle], hidden, interleave=True),
            f"{name}.gate_up.weight",
        )
        self.down_weight = ops.parameter(
            weights.matrix([f"{name}.down_proj.weight"], [hidden], middle), f"{name}.down_proj.weight"
        )
        if config.mlp_bias:
            self.gate_up_bias = ops.parameter(
                weights.vector([f"{p}.bias" for p in gate_up], [middle, middle]), f"{name}.gate_up.bias"
            )
            self.down_bias = ops.parameter(
                weights.vector([f"{name}.down_proj.bias"], [hidden]), f"{name}.down_proj.bias"
            )
        self.gate_up = ops.MatMulSwiglu(middle, has_bias=config.mlp_bias)
        self.down = ops.MatMul([hidden], has_bias=config.mlp_bias)

    def construct(self, x: Tensor, num_tokens: Tensor) -> Tensor:
        if self.bias:
            middle = self.gate_up(x, self.gate_up_weight, self.gate_up_bias, num_tokens)
            return self.down(middle, self.down_weight, self.down_bias, num_tokens)
        return self.down(self.gate_up(x, self.gate_up_weight, num_tokens), self.down_weight, num_tokens)
