"""The model families that the tests are made for, each described once. The README lists the same."""

from dataclasses import dataclass, field
from typing import Any

SIZE: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
LAYERS, HEADS, WINDOW = SIZE["num_hidden_layers"], SIZE["num_attention_heads"], 4

OWN_KEYS = {"num_key_value_heads": HEADS}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT = {
    **OWN_KEYS,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 6,
}
ROUTED = {
    **EXPERTS,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}


@dataclass(frozen=True, eq=False)
class Family:
    """A family of models, and a small random one of it: `SIZE` with `changes`, where its configuration has the key."""

    name: str
    config: str
    """The class of its configuration in transformers."""
    special: str
    """What is special about its attention, for the README."""
    changes: dict[str, Any] = field(default_factory=dict)
    tokenizer: str = "GPT2Tokenizer"
    """The tokenizer class that its checkpoints come with."""
    eager: bool = False
    """Whether `attention: auto` is eager."""
    without: dict[str, Any] | None = None
    """Changes that take away what is special, and change the logits for the same weights."""
    surgery: dict[str, Any] | None = None
    """Changes with which scaling a head's W_q or W_v is its ablation: keys of its own, no bias and no norm behind."""
    shares_keys: bool = True
    """Whether several query heads of the random model share keys and values."""


FAMILIES = [
    Family("Llama", "LlamaConfig", "grouped queries", tokenizer="LlamaTokenizer", surgery=OWN_KEYS),
    Family(
        "Mistral",
        "MistralConfig",
        "a sliding window",
        {"sliding_window": WINDOW},
        "LlamaTokenizer",
        without={"sliding_window": None},
        surgery=OWN_KEYS,
    ),
    Family(
        "Mixtral",
        "MixtralConfig",
        "experts, chosen for each token",
        {"sliding_window": WINDOW, "num_local_experts": 4, "num_experts_per_tok": 2},
        "LlamaTokenizer",
        surgery=OWN_KEYS,
    ),
    Family("Qwen2", "Qwen2Config", "biases of query, key and value", tokenizer="Qwen2Tokenizer"),
    Family("Qwen3", "Qwen3Config", "norms of query and key", {"head_dim": 8}, "Qwen2Tokenizer"),
    Family(
        "Qwen3-MoE",
        "Qwen3MoeConfig",
        "norms of query and key, experts",
        {"head_dim": 8, "num_experts": 4, **EXPERTS},
        "Qwen2Tokenizer",
    ),
    Family("Gemma", "GemmaConfig", "heads wider than the model", {"head_dim": 16}, "GemmaTokenizer", surgery=OWN_KEYS),
    Family(
        "Gemma-2",
        "Gemma2Config",
        "soft-capped scores, so eager attention; a window in every second layer",
        {"head_dim": 16, "query_pre_attn_scalar": 16, "attn_logit_softcapping": 1.0, "sliding_window": WINDOW},
        "GemmaTokenizer",
        eager=True,
        without={"attn_logit_softcapping": None},
        surgery=OWN_KEYS,
    ),
    Family(
        "Gemma-3",
        "Gemma3TextConfig",
        "norms of query and key; a window in most layers, with rotations of its own",
        {
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "sliding_window": WINDOW,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
        "GemmaTokenizer",
        without={"layer_types": ["full_attention"] * LAYERS},
    ),
    Family(
        "Phi",
        "PhiConfig",
        "biases; part of a head is rotated; attention and MLP side by side",
        {**OWN_KEYS, "partial_rotary_factor": 0.5},
        shares_keys=False,
    ),
    Family(
        "Phi-3",
        "Phi3Config",
        "query, key and value in one projection",
        {"sliding_window": WINDOW},
        "LlamaTokenizer",
        surgery=OWN_KEYS,
    ),
    Family(
        "GPT-NeoX",
        "GPTNeoXConfig",
        "query, key and value in one projection, head by head; biases",
        tokenizer="GPTNeoXTokenizer",
        surgery={"attention_bias": False},
        shares_keys=False,
    ),
    Family("GPT-2", "GPT2Config", "learned positions; one projection, with biases", shares_keys=False),
    Family(
        "OPT",
        "OPTConfig",
        "learned positions that padding moves; biases",
        {"ffn_dim": 48, "word_embed_proj_dim": 32},
        shares_keys=False,
    ),
    Family("OLMo2", "Olmo2Config", "norms of all queries and all keys of a layer", tokenizer="GPT2Tokenizer"),
    Family(
        "Granite",
        "GraniteConfig",
        "scaled embeddings, attention, residuals and logits",
        {"attention_multiplier": 0.2, "embedding_multiplier": 2.0, "residual_multiplier": 0.5, "logits_scaling": 3.0},
        without={"logits_scaling": 1.0},
        surgery=OWN_KEYS,
    ),
    Family(
        "StarCoder2",
        "Starcoder2Config",
        "biases, a sliding window",
        {"sliding_window": WINDOW},
        surgery={**OWN_KEYS, "use_bias": False},
        without={"sliding_window": None},
    ),
    Family(
        "StableLM",
        "StableLmConfig",
        "a norm for each head; part of a head is rotated",
        {"qk_layernorm": True, "partial_rotary_factor": 0.5},
        "GPTNeoXTokenizer",
        surgery={**OWN_KEYS, "qk_layernorm": False},
    ),
    Family(
        "Cohere",
        "CohereConfig",
        "scaled logits; attention and MLP side by side",
        {"logit_scale": 0.5},
        "CohereTokenizer",
        without={"logit_scale": 1.0},
        surgery=OWN_KEYS,
    ),
    Family(
        "Cohere2",
        "Cohere2Config",
        "a window in three of four layers; no positions in the others",
        {
            "sliding_window": WINDOW,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "logit_scale": 0.5,
        },
        "CohereTokenizer",
        surgery=OWN_KEYS,
    ),
    Family(
        "SmolLM3",
        "SmolLM3Config",
        "no positions in every fourth layer",
        {"no_rope_layers": [1, 0, 1]},
        surgery=OWN_KEYS,
        without={"no_rope_layers": [1, 1, 1]},
    ),
    Family(
        "GLM-4",
        "Glm4Config",
        "norms on both sides of a layer; part of a head is rotated",
        {"head_dim": 8, "attention_bias": True},
        surgery={**OWN_KEYS, "attention_bias": False},
    ),
    Family(
        "GPT-OSS",
        "GptOssConfig",
        "attention sinks, so eager attention; a window in every second layer; experts",
        {
            "head_dim": 8,
            "sliding_window": WINDOW,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
        eager=True,
    ),
    Family(
        "DeepSeek-V2",
        "DeepseekV2Config",
        "latent keys and values; heads whose values are narrower than their keys; experts",
        {**LATENT, **ROUTED, "topk_method": "group_limited_greedy"},
        "LlamaTokenizer",
        surgery={},
        shares_keys=False,
    ),
    Family(
        "DeepSeek-V3",
        "DeepseekV3Config",
        "as DeepSeek-V2, with experts chosen by group",
        {**LATENT, **ROUTED},
        "LlamaTokenizer",
        surgery={},
        shares_keys=False,
    ),
    Family(
        "Llama-4",
        "Llama4TextConfig",
        "attention within chunks; no positions in every fourth layer; experts",
        {
            "head_dim": 8,
            "intermediate_size_mlp": 48,
            "num_local_experts": 4,
            "attention_chunk_size": WINDOW,
            "no_rope_layers": [1, 0, 1],
        },
        "GPT2Tokenizer",
        without={"attention_chunk_size": 64},
    ),
    Family(
        "OLMoE",
        "OlmoeConfig",
        "norms of all queries and all keys of a layer, experts",
        {"num_experts": 4, "num_experts_per_tok": 2},
        "GPTNeoXTokenizer",
    ),
    Family(
        "Phi-MoE",
        "PhimoeConfig",
        "biases, a sliding window, experts",
        {"sliding_window": WINDOW, "num_local_experts": 4, "num_experts_per_tok": 2, "attention_bias": True},
        "LlamaTokenizer",
    ),
]


@dataclass(frozen=True)
class Refused:
    """Families that cannot be measured, and why."""

    why: str
    """For the README."""
    said: str
    """In the error, when a folder is described."""
    classes: tuple[str, ...]


REFUSED = {
    "Falcon, MPT, BLOOM": Refused(
        "do not use the attention interface of transformers",
        "does not use the attention interface",
        ("FalconForCausalLM", "MptForCausalLM", "BloomForCausalLM"),
    ),
    "T5, BART, Whisper": Refused(
        "have an encoder besides their decoder",
        "has an encoder besides its decoder",
        ("T5ForConditionalGeneration", "BartForConditionalGeneration", "WhisperForConditionalGeneration"),
    ),
    "Jamba, RecurrentGemma, MiniMax": Refused(
        "have layers without attention heads",
        "has layers of kind",
        ("JambaForCausalLM", "RecurrentGemmaForCausalLM", "MiniMaxForCausalLM"),
    ),
}
