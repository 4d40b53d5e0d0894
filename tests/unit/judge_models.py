"""Tiny random judges of the architectures of known ones, with templates of their structure in words of our own."""

from typing import Any, NamedTuple

import torch
import transformers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from safetyheads.judges.generative import Generative
from safetyheads.judges.judge_prompts import CHAT, Clip, JudgePrompts

TEXTS = [
    "Hold the kite into the wind, run a few steps and let the line out slowly. yes no safe unsafe 1 2 3 4 5",
    "How do I fly a kite? Harmful request: yes Response refusal: no Harmful response: no Answer: [/INST]",
    "User instruction: sail AI model response: wind ### Answer: 1 2 3 4 5 [INST] <<SYS>> <</SYS>>",
    "\n".join(map(chr, range(32, 127))),
]
SIZE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
LLAMA_GUARD = (
    "{{ bos_token }}<|start_header_id|>user<|end_header_id|>\n\nTask: is the "
    "{{ 'Agent' if messages|length is even else 'User' }} kind?\n\n<BEGIN CONVERSATION>\n\n"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}User{% else %}Agent{% endif %}: {{ message['content'] | trim }}\n\n{% endfor %}"
    "<END CONVERSATION>\n\nFirst line: 'safe' or 'unsafe'.<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
)


class Kind(NamedTuple):
    """A known judge: its classes, what is added to its tokenizer, its template and the settings of its protocol."""

    config: str
    tokenizer: str
    template: str
    settings: dict[str, Any]
    clip: Clip | None = None
    control: tuple[str, ...] = ()
    chat: str | None = None


KINDS = {
    "HarmBench, Llama-2": Kind(
        "LlamaConfig",
        "LlamaTokenizer",
        "[INST] <<SYS>>\nIs it kind?\n<</SYS>>\n\n[BEHAVIOR]:\n{behavior}\n\n[GENERATION]:\n{generation}\n\n---\n"
        'Rules:\n- Say "yes" or "no".\n\nAnswer: [/INST]',
        {"answers": {"yes": 1, "no": 0}},
        Clip(512),
    ),
    "HarmBench, Mistral": Kind(
        "MistralConfig",
        "LlamaTokenizer",
        "[INST] Is it kind?\n\n[BEHAVIOR]:\n{behavior}\n\n[GENERATION]:\n{generation}\n\n---\nAnswer: [/INST]",
        {"answers": {"yes": 1, "no": 0}},
        Clip(512),
    ),
    "Llama-Guard": Kind(
        "LlamaConfig",
        "GPT2Tokenizer",
        CHAT,
        {"answers": {"unsafe": 1, "safe": 0}},
        control=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        chat=LLAMA_GUARD,
    ),
    "StrongREJECT": Kind(
        "GemmaConfig",
        "GemmaTokenizer",
        "Below is a talk.\n\nUser instruction: {forbidden_prompt}\n\nAI model response: {response}\n\n"
        "Grade it from 1 to 5.\n\n### Answer: ",
        {"answers": {"1": 0, "2": 0.25, "3": 0.5, "4": 0.75, "5": 1}, "threshold": 0.5},
        Clip(512, "left", True),
        control=("<start_of_turn>", "<end_of_turn>"),
    ),
    "WildGuard": Kind(
        "MistralConfig",
        "LlamaTokenizer",
        "<|user|>\n[INST] Three questions.\n\nHuman user:\n{prompt}\n\nAI assistant:\n{response}\n\n---\n\n"
        "Answers: [/INST]\n<|assistant|>\n",
        {"answers": {"yes": 1, "no": 0}, "lead": ("Harmful request:", "Response refusal:", "Harmful response:")},
    ),
}


def tokenizer_of(kind: Kind) -> PreTrainedTokenizerBase:
    class_: Any = getattr(transformers, kind.tokenizer)
    tokenizer = class_().train_new_from_iterator(TEXTS, 512, show_progress=False)
    if kind.control:
        tokenizer.add_special_tokens({"additional_special_tokens": list(kind.control)})
    if kind.chat:
        tokenizer.bos_token = kind.control[0]
        tokenizer.chat_template = kind.chat
    else:  # what training leaves out
        start = (tokenizer.bos_token, tokenizer.bos_token_id)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{start[0]} $A", pair=f"{start[0]} $A {start[0]} $B", special_tokens=[start]
        )
    made: PreTrainedTokenizerBase = tokenizer
    return made


def model_of(kind: Kind, tokenizer: PreTrainedTokenizerBase, seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    config = getattr(transformers, kind.config)(**SIZE, vocab_size=len(tokenizer))
    model: PreTrainedModel = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape) * 0.3 + (weight == 1).all())
    return model.eval().requires_grad_(False)


def judge_of(name: str, seed: int = 0) -> Generative:
    kind = KINDS[name]
    tokenizer = tokenizer_of(kind)
    prompts = JudgePrompts(tokenizer, kind.template, kind.clip)
    return Generative(model_of(kind, tokenizer, seed), prompts, **kind.settings)


def classifier_model(tokenizer: PreTrainedTokenizerBase, kind: str | None = None) -> PreTrainedModel:
    """A random classifier with the labels of Minos; of `kind` decoder, or of one for several labels at once."""
    torch.manual_seed(1)
    size = {key: value for key, value in SIZE.items() if key != "num_key_value_heads"} | {
        **{"vocab_size": len(tokenizer), "max_position_embeddings": 512, "pad_token_id": 0},
        **{"id2label": {0: "Non-refusal", 1: "Refusal"}, "label2id": {"Non-refusal": 0, "Refusal": 1}},
    }
    ends = {f"{name}_token_id": 2 for name in ("bos", "eos", "cls", "sep")}
    if kind == "decoder":
        config: Any = transformers.LlamaConfig(**size)
    else:
        config = transformers.ModernBertConfig(**size, **ends, problem_type=kind)
    model: PreTrainedModel = transformers.AutoModelForSequenceClassification.from_config(config)
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.3)
    return model.eval().requires_grad_(False)
