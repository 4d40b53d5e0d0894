"""The work that benchmarks measure: models with random weights, of three sizes, and prompts for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import pandas as pd
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from safetyheads.costs.flops import Shape
from safetyheads.engine.ablation import install
from safetyheads.heads import Ablation, Head, HeadSet, Kind, all_heads

ABLATION = Ablation(Kind.UNDIFFERENTIATED, 1e-5)


@dataclass(frozen=True)
class Scoring:
    """The work of scoring.

    `lengths` are the prompts' in tokens; `sahara_lengths` are those for Sahara, empty if that is not measured.
    `reference` and `batched` are the samples (prompts, heads of each) that these slow variants do.
    """

    lengths: tuple[int, ...]
    reference: tuple[int, int]
    batched: tuple[int, int]
    token_budget: int
    sahara_lengths: tuple[int, ...] = ()


@dataclass(frozen=True)
class Generation:
    """The work of generation.

    `lengths` are the prompts' in tokens. `reference` is how many rows, and `per_head_set` how many head sets, these
    slow variants do in each round.
    """

    lengths: tuple[int, ...]
    head_sets: int
    new_tokens: int
    reference: int
    per_head_set: int
    token_budget: int


@dataclass(frozen=True)
class Throughput:
    """The work of measuring throughput: at most `rows` different prompts of one length; fewer if memory is short."""

    prompt_tokens: int = 128
    new_tokens: int = 128
    rows: int = 512


@dataclass(frozen=True)
class Size:
    """A model's shape and type of number, and the work for it.

    `peak` are the edges of the square matrices whose products are tried to find the device's peak.
    """

    shape: Shape
    dtype: torch.dtype
    scoring: Scoring
    generation: Generation
    peak: tuple[int, ...]
    throughput: Throughput = Throughput()


_ABOUT_40 = (40, 37, 43, 40, 38, 40, 42, 40)
_ABOUT_25 = (25, 22, 28, 25, 24, 30, 25, 20)

SIZES = {
    "tiny": Size(
        Shape(layers=3, heads=4, hidden=64, intermediate=172, vocabulary=512, kv_heads=4),
        torch.float32,
        Scoring((9, 7, 9), (3, 3), (2, 6), 64, (6, 8, 7, 8, 9, 6)),
        Generation((9, 7, 9), 6, 4, 2, 2, 128),
        (256, 512),
        Throughput(8, 8, 4),
    ),
    "bench": Size(
        Shape(layers=16, heads=16, hidden=1024, intermediate=2752, vocabulary=8000, kv_heads=16),
        torch.float32,
        Scoring(_ABOUT_40, (8, 8), (2, 64), 8192),
        Generation(_ABOUT_40, 64, 32, 1, 2, 40960),
        (1024, 2048),
        Throughput(rows=16),
    ),
    "llama-2-7b": Size(
        Shape(layers=32, heads=32, hidden=4096, intermediate=11008, vocabulary=32000, kv_heads=32),
        torch.bfloat16,
        Scoring(_ABOUT_25, (8, 8), (8, 64), 32768, tuple(20 + 7 * index % 11 for index in range(100))),
        Generation(_ABOUT_25, 1024, 128, 2, 2, 131072),
        (4096, 8192),
    ),
}


def make_model(shape: Shape, dtype: torch.dtype, device: torch.device, seed: int = 0) -> PreTrainedModel:
    """A Llama with random weights, made on the device, and ready for ablation as `models.load` leaves it.

    Weights are drawn from a normal distribution with variance 1 / (number of inputs). Those of queries and keys have
    1.5 times that standard deviation, so that heads attend to some positions more than to others. Those of the output
    layer have 3 times, so that logits have a standard deviation of about 3.
    """
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=4096,
        bos_token_id=None,
        eos_token_id=None,  # completions run to their full length
        pad_token_id=None,
        tie_word_embeddings=False,
    )
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, dtype=dtype, attn_implementation="sdpa"
        )
    generator = torch.Generator(device).manual_seed(seed)
    gains = {"q_proj": 1.5, "k_proj": 1.5, "lm_head": 3.0}
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            module = name.split(".")[-2]
            spread = 1.0 if module == "embed_tokens" else gains.get(module, 1.0) / sqrt(parameter.shape[1])
            parameter.data.normal_(0.0, spread, generator=generator)
    return ready(model)


def ready(model: PreTrainedModel) -> PreTrainedModel:
    """The model itself, made ready as `models.load` does.

    It is frozen, the hooks of ablation are installed, and the final norm and output layer compute in float32.
    """
    from safetyheads.engine.decoder import in_float32

    model.train(False).requires_grad_(False)
    install(model)
    if model.dtype != torch.float32:
        in_float32(model)
    return model


def make_prompts(lengths: Sequence[int], vocabulary: int, seed: int = 0) -> pd.DataFrame:
    """Prompts of random tokens, as a table with the columns query_id and token_ids.

    All end in the same four tokens, as prompts of one template do.
    """
    generator = torch.Generator().manual_seed(seed)
    ending, *bodies = (torch.randint(vocabulary, (length,), generator=generator).tolist() for length in (4, *lengths))
    ids = [(body[:-4] + ending)[-len(body) :] for body in bodies]
    return pd.DataFrame({"query_id": [f"q-{number:04d}" for number in range(len(ids))], "token_ids": ids})


def spread_heads(shape: Shape, count: int) -> HeadSet:
    """`count` different heads, spread evenly from the first layer to the last and over the positions in a layer."""
    if count >= shape.layers * shape.heads:
        return all_heads(shape.layers, shape.heads)
    layers = [round(index * (shape.layers - 1) / max(1, count - 1)) for index in range(count)]
    return tuple(sorted(Head(layer, (index * 7 + 3) % shape.heads) for index, layer in enumerate(layers)))
