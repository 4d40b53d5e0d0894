"""The parts of a decoder: the same norm that its family calls so, and a top in float32."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from safetyheads.engine.ablation import install
from safetyheads.engine.decoder import decoder, grid, in_float32
from safetyheads.engine.partial_forward import Top
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Ablation, Head, Kind

Mini = Callable[..., PreTrainedModel]
Sequences = Callable[..., list[list[int]]]
Whole = Callable[..., Top]

NORMS = {
    "llama": "model.norm",
    "qwen2": "model.norm",
    "gemma2": "model.norm",
    "gpt_neox": "gpt_neox.final_layer_norm",
    "phi": "model.final_layernorm",
    "gpt2": "transformer.ln_f",
    "opt": "model.decoder.final_layer_norm",
}


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("family", NORMS)
def test_layers_and_final_norm_are_found(family: str, layers: int, mini: Mini) -> None:
    model = install(mini(family, num_hidden_layers=layers))
    found = decoder(model)
    assert found.norm is model.get_submodule(NORMS[family])
    assert len(found.layers) == layers
    assert grid(model) == (layers, 4)


def test_a_model_without_its_stack_of_layers_or_without_norm_is_named(mini: Mini) -> None:
    model = install(mini("llama"))
    model.config.num_hidden_layers = 2  # the third one is not run
    with pytest.raises(SafetyHeadsError, match="LlamaForCausalLM has 0 stacks of 2 attention layers"):
        decoder(model)
    unnormed = install(mini("opt", do_layer_norm_before=False))
    with pytest.raises(SafetyHeadsError, match="OPTForCausalLM has no single norm"):
        decoder(unnormed)


def test_a_stack_that_does_not_attend_is_no_stack_of_layers(mini: Mini) -> None:
    model = install(mini("llama"))
    model.vision = nn.ModuleList([nn.Linear(2, 2) for _ in range(3)])
    for layer in model.model.layers:
        layer.experts = nn.ModuleList([nn.Linear(2, 2) for _ in range(3)])
    assert decoder(model).layers is model.model.layers


def test_layers_that_attend_not_once_or_not_with_all_heads_are_named(mini: Mini) -> None:
    twice, other_heads, other_layer, besides = (install(mini("llama")) for _ in range(4))
    twice.model.layers[1].self_attn.register_forward_hook(
        lambda module, args, kwargs, output: module.forward(*args, **kwargs), with_kwargs=True
    )
    with pytest.raises(SafetyHeadsError, match=r"LlamaForCausalLM: layer 1 \(LlamaDecoderLayer\) comes .* 2 times"):
        decoder(twice)
    other_heads.config.num_attention_heads = 8
    with pytest.raises(SafetyHeadsError, match=r"layer 0 .* attends with 4 heads.* says 8 heads"):
        decoder(other_heads)
    other_layer.model.layers[2].self_attn.layer_idx = 0
    with pytest.raises(SafetyHeadsError, match=r"layer 2 .* as layer 0"):
        decoder(other_layer)
    besides.model.extra = deepcopy(besides.model.layers[0])
    besides.model.norm.register_forward_pre_hook(
        lambda _, inputs: besides.model.extra(
            *inputs, position_embeddings=besides.model.rotary_emb(*inputs, torch.zeros(1, 1))
        )
    )
    with pytest.raises(SafetyHeadsError, match="LlamaForCausalLM attends outside its 3 layers"):
        decoder(besides)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", NORMS)
def test_the_top_of_a_16_bit_model_is_computed_in_float32(
    family: str, dtype: torch.dtype, mini: Mini, sequences: Sequences, whole: Whole
) -> None:
    """The last residual stream is the 16-bit model's own; norm and output layer act on it as those in float32 would."""
    model, (prompt,) = install(mini(family).to(dtype)), sequences([6])
    coarse = whole(model, prompt)
    embedding = model.get_input_embeddings().weight.clone()
    in_float32(model)
    fine = whole(model, prompt)
    assert torch.equal(fine.residual, coarse.residual)
    assert model.get_input_embeddings().weight.dtype is dtype
    assert torch.equal(model.get_input_embeddings().weight, embedding)
    upcast = mini(family).to(dtype).float()
    with torch.inference_mode():
        normed = upcast.get_submodule(NORMS[family])(fine.residual)
        logits = upcast.get_output_embeddings()(normed)
    cap = getattr(model.config, "final_logit_softcapping", None)
    expected = logits if cap is None else cap * torch.tanh(logits / cap)
    torch.testing.assert_close(fine.final_norm, normed, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(fine.logits, expected, rtol=1e-5, atol=1e-5)
    assert not torch.equal(fine.logits, fine.logits.to(dtype).float()), "these logits were rounded"
    assert torch.equal(coarse.logits, coarse.logits.to(dtype).float())


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_models_are_ablated(
    dtype: torch.dtype, kind: Kind, mini: Mini, sequences: Sequences, whole: Whole
) -> None:
    model = install(mini("llama_gqa").to(dtype))
    in_float32(model)
    (prompt,) = sequences([6])
    plain, unchanged, ablated = (whole(model, prompt, Ablation(kind), heads) for heads in ((), (), (Head(1, 1),)))
    torch.testing.assert_close(unchanged.logits, plain.logits, rtol=2e-2, atol=2e-2)
    assert (ablated.logits - plain.logits).abs().max() > 0.02
    assert torch.isfinite(ablated.logits).all()


def test_numbers_beyond_the_dtype_are_named(mini: Mini, whole: Whole) -> None:
    model = install(mini("llama").half())
    model.model.layers[1].mlp.down_proj.weight.mul_(60_000)
    in_float32(model)
    with pytest.raises(SafetyHeadsError, match=r"In float16, LlamaForCausalLM .*not numbers.*bfloat16"):
        whole(model, [5, 6, 7])
