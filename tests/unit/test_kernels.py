"""Kernels: those that run are told, and no others."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest
import torch
import transformers
from small_models import FAMILIES
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from safetyheads.engine.ablation import install
from safetyheads.engine.kernels import kernels

Mini = Callable[..., PreTrainedModel]


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"gemma2"}))
def test_the_kernel_that_torch_chooses_is_told(family: str, mini: Mini) -> None:
    """With grouped heads and sliding windows, too; and another one where torch is told to take that."""
    model = install(mini(family))
    assert kernels(model) == ["flash_for_cpu"]
    with sdpa_kernel(SDPBackend.MATH):
        assert kernels(model) == ["math"]
    assert kernels(model) == ["flash_for_cpu"]


def test_a_model_with_an_attention_of_its_own_runs_eager(mini: Mini) -> None:
    model = install(mini("gemma2"))
    with sdpa_kernel(SDPBackend.MATH):
        assert kernels(model) == ["eager"]


def test_all_kernels_of_a_model_are_told_sorted(mini: Mini) -> None:
    """Here one layer is computed in another way than the others."""
    model: Any = install(mini("llama"))
    layer, forward = model.model.layers[1], model.model.layers[1].forward

    def by_math(*args: Any, **kwargs: Any) -> Any:
        with sdpa_kernel(SDPBackend.MATH):
            return forward(*args, **kwargs)

    layer.forward = by_math
    assert kernels(model) == ["flash_for_cpu", "math"]


@pytest.mark.parametrize("step", ["a token on a cache", "padding"])
def test_every_kind_of_pass_is_watched(step: str, mini: Mini) -> None:
    model: Any = install(mini("llama"))
    forward = model.forward

    @wraps(forward)
    def by_math(ids: torch.Tensor, **kwargs: Any) -> Any:
        one_token, padded = ids.shape[1] == 1, kwargs.get("attention_mask") is not None
        if one_token if step == "a token on a cache" else padded and not one_token:
            with sdpa_kernel(SDPBackend.MATH):
                return forward(ids, **kwargs)
        return forward(ids, **kwargs)

    model.forward = by_math
    assert kernels(model) == ["flash_for_cpu", "math"]


def test_a_model_that_cannot_go_on_from_a_cache_still_tells_its_kernels() -> None:
    config = transformers.LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )
    model: Any = install(transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval())
    forward = model.forward

    @wraps(forward)
    def without_cache(ids: torch.Tensor, *, use_cache: bool, **kwargs: Any) -> Any:
        if use_cache:
            raise RuntimeError("no cache")
        return forward(ids, use_cache=False, **kwargs)

    model.forward = without_cache
    assert kernels(model) == ["flash_for_cpu"]
