"""The mixture of experts: DeepSeek-V2's, with softmax scores (also Mixtral's and Qwen's), and DeepSeek-V3's, with sigmoids and a bias."""

from __future__ import annotations

from mindspore import Tensor, nn

from vllm_mindspore.kernels import ops
from vllm_mindspore.models.config import ModelConfig
from vllm_mindspore.models.mlp import Mlp
from vllm_mindspore.models.weights import Weights


class MixtureOfExperts(nn.Cell):
    """Each token through the few experts that it chooses, and through the shared one where there is one; called as `Mlp` is."""

    def __init__(self, config: ModelConfig, layer: int, weights: Weights) -> None:
        super().__init__(auto_prefix=False)
        moe = config.moe
        assert moe is not None
        name, hidden, middle = f"model.layers.{layer}.{moe.name}", config.hidden_size, moe.intermediate_size
        gate, up, down = moe.projections
        experts = [f"{name}.experts.{expert}" for expert in range(moe.num_experts)]
        self.sigmoid = moe.sigmoid
        self.has_shared, self.has_shared_gate = moe.shared_intermediate_size > 0, moe.shared_gate

        # Choices jump: logits are computed in float32 whatever the model's dtype is.
        self.gate_weight = ops.parameter(
            weights.matrix([f"{name}.gate.weight"], [moe.num_experts], hidden, dtype="float32"), f"{name}.gate.weight"
        )
        self.gate_up_weight = ops.parameter(
            weights.matrices(
                [[f"{e}.{gate}.weight", f"{e}.{up}.weight"] for e in experts], [middle, middle], hidden, interleave=True
            ),
            f"{name}.experts.gate_up.weight",
        )
        self.down_weight = ops.parameter(
            weights.matrices([[f"{e}.{down}.weight"] for e in experts], [hidden], middle), f"{name}.experts.down.weight"
        )
        groups = moe.num_groups, moe.groups_per_token
        if moe.sigmoid:
            bias = f"{name}.gate.e_score_correction_bias"
            self.gate_bias = ops.parameter(weights.vector([bias], [moe.num_experts]), bias)
            self.choose = ops.FusedAddTopKDiv(*groups, 2, moe.experts_per_token, moe.normalize, moe.scale)
        else:
            self.choose = ops.MoeGatingTopKSoftmax(moe.experts_per_token, *groups, moe.normalize, moe.scale)
        if self.has_shared:
            self.shared = Mlp(f"{name}.{moe.shared_name}", moe.shared_intermediate_size, config, weights)
            self.add = ops.Add()
        if moe.shared_gate:
            gate_name = f"{name}.{moe.shared_name}_gate.weight"
            self.shared_gate_weight = ops.parameter(weights.matrix([gate_name], [1], hidden), gate_name)
            self.weigh = ops.MatMul([1])
            self.sigmoid_mul = ops.SigmoidMul()
        self.gate = ops.MatMul([moe.num_experts])
        self.dispatch = ops.MoeInitRouting(moe.num_experts)
        self.gate_up = ops.GroupedMatmulSwiglu(middle)
        self.down = ops.GroupedMatmul(hidden)
        self.combine = ops.MoeTokenUnpermute()

    def construct(self, x: Tensor, num_tokens: Tensor) -> Tensor:
        logits = self.gate(x, self.gate_weight, num_tokens)
        if self.sigmoid:
            probs, expert_idx = self.choose(logits, self.gate_bias, num_tokens)
        else:
            probs, expert_idx = self.choose(logits, num_tokens)
        rows, row_idx, group_list = self.dispatch(x, expert_idx, num_tokens)
        answers = self.down(self.gate_up(rows, self.gate_up_weight, group_list), self.down_weight, group_list)
        out = self.combine(answers, row_idx, probs, num_tokens)
        if not self.has_shared:
            return out
        shared = self.shared(x, num_tokens)
        if self.has_shared_gate:
            shared = self.sigmoid_mul(shared, self.weigh(x, self.shared_gate_weight, num_tokens), num_tokens)
        return self.add(out, shared, num_tokens)
