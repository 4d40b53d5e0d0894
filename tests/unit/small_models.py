"""Random models of several families, built in memory."""

from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

SIZE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LEARNED = {key: value for key, value in SIZE.items() if key not in ("num_key_value_heads", "intermediate_size")}
GEMMA2 = {"head_dim": 16, "query_pre_attn_scalar": 16, "tie_word_embeddings": False}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", SIZE),
    "llama_gqa": ("Llama", SIZE | {"num_key_value_heads": 2}),
    "qwen2": ("Qwen2", SIZE | {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "mistral": ("Mistral", SIZE | {"num_key_value_heads": 2, "sliding_window": 4}),
    "gemma2": ("Gemma2", SIZE | {"sliding_window": 4, "attn_logit_softcapping": 2.0, **GEMMA2}),
    "gpt_neox": ("GPTNeoX", SIZE),
    "phi": ("Phi", SIZE),
    "gpt2": ("GPT2", LEARNED),
    "opt": ("OPT", LEARNED | {"ffn_dim": 48, "word_embed_proj_dim": 32}),
}


def build(family: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A random model of a family, with the size of `SIZE` but for `changes`, not yet installed for ablation.

    Its weights, biases and norms are large enough for every head to matter.
    """
    name, size = FAMILIES[family]
    config = getattr(transformers, f"{name}Config")(**{**size, **changes})
    model: PreTrainedModel = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation="eager" if family == "gemma2" else "sdpa"
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            drawn = torch.randn(weight.shape, generator=generator)
            weight.copy_(1.0 + 0.2 * drawn if weight.dim() == 1 and (weight == 1).all() else 0.3 * drawn)
    return model.eval().requires_grad_(False)
