"""A third computation of Llama, in torch and float64, one prompt at a time: what each head adds, and its gradient.

It shares no code with the product or with transformers. `llama_by_hand` is the same in NumPy, which has no gradients.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel


class Traced(NamedTuple):
    """What a pass over one prompt of T tokens had on its way."""

    logits: Tensor  # (vocabulary,): behind the last token
    heads: list[Tensor]  # of each layer (N, T, d): head outputs, which have gradients
    ablated: list[Tensor]  # of each layer (N, T, d): what each head would give, ablated alone
    written: list[Tensor]  # of each layer (N, d_model): what each head adds to the residual stream at the last token
    residuals: list[Tensor]  # of each layer (d_model,): the residual stream behind it, at the last token


def traced(
    model: PreTrainedModel, token_ids: Sequence[int], kind: str = "undifferentiated", epsilon: float = 1e-5
) -> Traced:
    """Run one prompt through a model of the Llama family, with or without grouped queries."""
    config, weights = model.config, {name: value.double() for name, value in model.state_dict().items()}
    count, shared = config.num_attention_heads, config.num_attention_heads // config.num_key_value_heads
    stream = weights["model.embed_tokens.weight"][list(token_ids)]  # (T, d_model)
    traces = Traced(torch.empty(0), [], [], [], [])
    for layer in range(config.num_hidden_layers):
        own = {name.removeprefix(f"model.layers.{layer}."): value for name, value in weights.items()}
        normed = norm(stream, own["input_layernorm.weight"], config.rms_norm_eps)
        size = config.hidden_size // count
        query, key, value = (
            torch.stack((normed @ own[f"self_attn.{name}_proj.weight"].T).split(size, dim=1)) for name in "qkv"
        )
        theta = config.rope_parameters["rope_theta"]
        query, key = turned(query, theta), turned(key, theta)
        key, value = (states[[head // shared for head in range(count)]] for states in (key, value))  # (N, T, d)
        heads = attend(query, key) @ value
        if not heads.requires_grad:
            heads.requires_grad_()
        heads.retain_grad()
        traces.heads.append(heads)
        other = {"undifferentiated": epsilon * query, "mean_query": query.mean(0, keepdim=True).expand_as(query)}
        seen = key.mean(0, keepdim=True).expand_as(key) if kind == "mean_key" else key
        output = attend(other.get(kind, query), seen) @ value
        after = {"scaling": epsilon * output, "mean_output": output.mean(0, keepdim=True).expand_as(output)}
        traces.ablated.append(after.get(kind, output).detach())
        slices = own["self_attn.o_proj.weight"].split(size, dim=1)  # (d_model, d) each
        written = torch.stack([head @ piece.T for head, piece in zip(heads, slices)])  # (N, T, d_model)
        traces.written.append(written[:, -1].detach())
        stream = stream + written.sum(dim=0)
        normed = norm(stream, own["post_attention_layernorm.weight"], config.rms_norm_eps)
        gate, up = (normed @ own[f"mlp.{name}_proj.weight"].T for name in ("gate", "up"))
        stream = stream + (gate * torch.sigmoid(gate) * up) @ own["mlp.down_proj.weight"].T
        traces.residuals.append(stream[-1].detach())
    final = norm(stream[-1], weights["model.norm.weight"], config.rms_norm_eps)
    return traces._replace(logits=weights["lm_head.weight"] @ final)


def norm(stream: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return stream / (stream.pow(2).mean(dim=-1, keepdim=True) + epsilon).sqrt() * weight


def turned(states: Tensor, theta: float) -> Tensor:
    """Rotary position embedding of (N, T, d): coordinate i is turned together with coordinate i + d / 2."""
    _, length, size = states.shape
    places = torch.arange(length, dtype=torch.float64)
    angles = places[:, None] * theta ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)  # (T, d / 2)
    first, second = states[..., : size // 2], states[..., size // 2 :]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


def attend(query: Tensor, key: Tensor) -> Tensor:
    """Attention weights (N, T, T) of queries and keys (N, T, d)."""
    scores = query @ key.mT / query.shape[-1] ** 0.5
    later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(later, -torch.inf).softmax(dim=-1)
