"""DeepSeek-V2's configuration, which transformers below 4.54 has not: a checkpoint carries this file and is read with `trust_remote_code`."""

from transformers import DeepseekV3Config


class DeepseekV2Config(DeepseekV3Config):
    model_type = "deepseek_v2"

    def __init__(self, topk_method="greedy", scoring_func="softmax", moe_layer_freq=1, **kwargs):
        self.topk_method = topk_method
        self.scoring_func = scoring_func
        self.moe_layer_freq = moe_layer_freq
        super().__init__(**kwargs)


DeepseekV2Config.register_for_auto_class()
