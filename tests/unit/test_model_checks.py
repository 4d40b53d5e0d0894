"""Checks of the loaded model: a good one passes, and each kind of fault is stopped by the check that is about it."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import nan
from typing import Any

import pytest
import torch
from small_models import build
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from safetyheads.costs.flops import CHECKED_OF_LAYER, CHECKED_PASSES, CHECKED_TOKENS
from safetyheads.engine import ablation, model_checks
from safetyheads.engine.ablation import Rows, install
from safetyheads.engine.implementations import attending, implementation
from safetyheads.engine.kernels import kernels
from safetyheads.engine.model_checks import CHECKS, Result, check_model, ordinary_tokens, refuse_failed
from safetyheads.engine.probes import Compared, Probe
from safetyheads.errors import SafetyHeadsError
from safetyheads.models.load import load

NOTHING, SOMETHING, LATER, KERNEL, PADDING = [check.name.format(attention="sdpa") for check in CHECKS]
TOKENS = range(3, 97)
Change = Callable[[Any], None]


@pytest.fixture
def model() -> PreTrainedModel:
    return install(build("llama_gqa"))


@pytest.fixture(autouse=True)
def interface() -> Iterator[None]:
    """What a test puts between models and their attention is gone after it."""
    before = dict(AttentionInterface._global_mapping)
    yield
    AttentionInterface._global_mapping.clear()
    AttentionInterface._global_mapping.update(before)


def failed(model: PreTrainedModel) -> str | None:
    """The name of the check that stops a model."""
    return next((one.check for one in check_model(model, TOKENS) if one.result == "failed"), None)


def test_a_good_model_passes_every_check_and_what_was_tried_is_told(model: PreTrainedModel) -> None:
    results = check_model(model, TOKENS)
    assert [one.check for one in results] == [NOTHING, SOMETHING, LATER, KERNEL, PADDING]
    assert {one.result for one in results} == {"passed"}
    assert [list(one.lengths) for one in results] == [[8], [8], [33, 64], [33, 64], [33]]
    assert [one.tolerance for one in results] == [1e-4, 1e-6, 1e-4, 1e-4, 1e-4]
    assert [one.bound for one in results] == ["at most", "more than", *["at most"] * 3]
    refuse_failed(results, model, "x")


def test_the_same_model_gives_the_same_json(model: PreTrainedModel) -> None:
    first, second = (json.dumps([one.plain() for one in check_model(model, TOKENS)], allow_nan=False) for _ in "12")
    assert first == second


# --- Faults of models and kernels -------------------------------------------------------------------------------------


def sees_later_tokens(model: Any) -> None:
    """The mask is not causal."""
    model.config.is_causal = False


def mixes_positions(model: Any) -> None:
    """Every token gets a share of all others, behind the attention."""
    model.model.layers[1].mlp.register_forward_hook(lambda _, __, output: output + output.mean(dim=1, keepdim=True))


def wrong_at_edges(model: Any) -> None:
    """The kernel's outputs are 1 % too large where the number of keys is 1 more than a multiple of 32."""
    own = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def attend(module: Any, query: Tensor, key: Tensor, *more: Any, **kwargs: Any) -> Any:
        output, weights = own(module, query, key, *more, **kwargs)
        return output * (1.01 if key.shape[2] % 32 == 1 else 1.0), weights

    AttentionInterface.register("sdpa", attend)


def one_head_wrong(model: Any) -> None:
    """The kernel forgets the last key in one head of one layer."""
    own = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, *more: Any, **kwargs: Any) -> Any:
        output, weights = own(module, query, key, value, *more, **kwargs)
        if module.layer_idx == 2 and query.shape[2] > 32:
            output = output.clone()
            output[:, -1, 3] *= 0.9
        return output, weights

    AttentionInterface.register("sdpa", attend)


def sees_padding(model: Any) -> None:
    """The mask over padding is ignored, in a batch and on a cache."""
    own = model.model.forward
    model.model.forward = lambda *inputs, attention_mask=None, position_ids=None, **more: own(*inputs, **more)


def sees_padding_on_a_cache(model: Any) -> None:
    own = model.model.forward

    def forward(input_ids: Tensor, attention_mask: Tensor | None = None, **more: Any) -> Any:
        seen = attention_mask if input_ids.shape[1] > 1 else None
        return own(input_ids, attention_mask=seen, **more)

    model.model.forward = forward


FAULTS: dict[Change, str] = {
    sees_later_tokens: LATER,
    mixes_positions: LATER,
    wrong_at_edges: KERNEL,
    one_head_wrong: KERNEL,
    sees_padding: PADDING,
    sees_padding_on_a_cache: PADDING,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_stopped_by_the_check_that_is_about_it(fault: Change, model: PreTrainedModel) -> None:
    fault(model)
    assert failed(model) == FAULTS[fault]


@pytest.mark.parametrize("fault", [sees_later_tokens, sees_padding])
def test_gross_faults_are_stopped_in_16_bits_too(fault: Change, model: PreTrainedModel) -> None:
    fault(install(model.to(torch.bfloat16)))
    assert failed(model) == FAULTS[fault]


@pytest.mark.parametrize(("size", "found"), [(1.0, "passed"), (1.04, "warned"), (1.5, "failed")])
def test_a_kernel_that_is_off_warns_in_16_bits_until_rounding_cannot_explain_it(
    size: float, found: str, model: PreTrainedModel, caplog: pytest.LogCaptureFixture
) -> None:
    own = ALL_ATTENTION_FUNCTIONS["sdpa"]
    AttentionInterface.register("sdpa", lambda *states, **more: (own(*states, **more)[0] * size, None))
    with caplog.at_level(logging.WARNING):
        results = {one.check: one.result for one in check_model(model.to(torch.bfloat16), TOKENS)}
    assert results[KERNEL] == found
    assert ("warned" in results.values()) == (f'The check "{KERNEL}" does not hold in bfloat16 on cpu' in caplog.text)


# --- Faults of the engine ---------------------------------------------------------------------------------------------


def ablates_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation, "attend_ablated", lambda attend, _, __, *states, **more: attend(*states, **more))


def ablates_other_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Rows.of_layer

    def of_layer(self: Rows, *place: Any) -> Tensor | None:
        mask = own(self, *place)
        return None if mask is None else mask.any(dim=0, keepdim=True).expand_as(mask)

    monkeypatch.setattr(Rows, "of_layer", of_layer)


def leaves_out_a_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Rows.of_layer
    monkeypatch.setattr(Rows, "of_layer", lambda self, at, device: None if at == 1 else own(self, at, device))


@pytest.mark.parametrize(
    ("fault", "check"), [(ablates_nothing, SOMETHING), (leaves_out_a_layer, SOMETHING), (ablates_other_rows, NOTHING)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_broken_engine_is_stopped_in_every_number_format(
    fault: Any, check: str, dtype: torch.dtype, model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    assert failed(model.to(dtype)) == check


def test_a_layer_whose_attention_writes_nothing_need_not_change_anything(model: Any) -> None:
    model.model.layers[1].self_attn.o_proj.weight.zero_()
    assert failed(model) is None
    assert "layer 1" not in check_model(model, TOKENS)[1].where


# --- What is tried ----------------------------------------------------------------------------------------------------


def test_the_model_attends_as_before_afterwards_also_after_an_error(model: PreTrainedModel) -> None:
    attend = ALL_ATTENTION_FUNCTIONS["sdpa"]
    with pytest.raises(RuntimeError), attending(model, "eager"):
        assert implementation(model) == "eager"
        raise RuntimeError
    assert implementation(model) == "sdpa"
    check_model(model, TOKENS)
    assert implementation(model) == "sdpa"
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is attend
    assert not [module for module in model.modules() if module._forward_hooks]


def test_what_it_costs_is_what_is_counted_before_a_run(model: Any) -> None:
    """Passes and tokens of the checks and of the record's kernels."""
    passes: list[int] = []
    model.model.embed_tokens.register_forward_hook(lambda _, inputs, __: passes.append(inputs[0].numel()))
    check_model(model, TOKENS)
    kernels(model)
    assert len(passes) == CHECKED_PASSES
    assert sum(passes) == pytest.approx(CHECKED_TOKENS + CHECKED_OF_LAYER * (3 + 1), rel=0.02)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_eager_attention_has_nothing_to_be_compared_with(family: str) -> None:
    model = install(build(family))
    model.set_attn_implementation("eager")
    results = check_model(install(model), TOKENS)
    assert [one.result for one in results] == ["passed", "passed", "passed", "not applicable", "passed"]
    assert results[3] == Result("eager equals eager attention", "not applicable")


@pytest.mark.parametrize(
    ("positions", "lengths"), [(4096, [33, 64]), (64, [33, 64]), (40, [33, 40]), (33, [32, 33]), (8, [7, 8])]
)
def test_prompts_are_no_longer_than_the_context(positions: int, lengths: list[int]) -> None:
    model = install(build("gpt2", max_position_embeddings=positions, n_positions=positions))
    results = check_model(model, TOKENS)
    assert {one.result for one in results} == {"passed"}
    assert [list(one.lengths) for one in results[2:]] == [lengths, lengths, [min(positions, 33)]]


def test_prompts_stay_below_the_border_of_a_stretched_rope() -> None:
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    model = install(build("llama", rope_parameters=rope, max_position_embeddings=40))
    assert {one.result for one in check_model(model, TOKENS)} == {"passed"}
    assert max(Probe(model, TOKENS, 0).lengths) == 40


def test_tokens_are_those_of_the_vocabulary_that_mean_nothing_special(tiny_a: PreTrainedModel, tokenizer: Any) -> None:
    tokens = ordinary_tokens(tokenizer)
    assert len(tokens) > 100
    assert not set(tokens) & {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    drawn = Probe(tiny_a, [*tokens, 10**6], 0).draw(50, 64)
    assert set(drawn.flatten().tolist()) <= set(tokens)


@contextmanager
def found_by(seed: int, differences: Tensor) -> Iterator[None]:
    """A first check that finds these differences with the tokens of one seed, and none with others."""
    seen: list[Probe] = []

    def tried(probe: Probe) -> Iterator[Compared]:
        seen.append(probe)
        yield Compared(8, "elsewhere", torch.zeros(2))
        yield Compared(8, "here", differences if len(seen) == seed + 1 or seed < 0 else 0 * differences)

    before = model_checks.CHECKS
    model_checks.CHECKS = (before[0]._replace(tried=tried), *before[1:])
    try:
        yield
    finally:
        model_checks.CHECKS = before


def test_what_fails_with_some_tokens_only_is_a_warning(model: PreTrainedModel) -> None:
    off = torch.tensor([0.0, 0.3])
    for seed, result in ((-1, "failed"), (0, "warned"), (1, "passed")):
        with found_by(seed, off):
            first = check_model(model, TOKENS)[0]
        assert first.result == result
        assert (first.difference, first.where) == ((0.3, "here") if result != "passed" else (0.0, "elsewhere"))


@pytest.mark.parametrize(
    ("differences", "result"),
    [([0.0, 0.0, 1.4], "warned"), ([0.04, 0.04, 0.04], "passed"), ([0.0, 0.3, 1.4], "failed"), ([0.0, nan], "failed")],
)
def test_in_16_bits_single_tokens_may_be_far_off_but_not_half_of_all(
    differences: list[float], result: str, model: PreTrainedModel
) -> None:
    with found_by(-1, torch.tensor(differences)):
        assert check_model(model.to(torch.bfloat16), TOKENS)[0].result == result


# --- What is said -----------------------------------------------------------------------------------------------------


def message(model: PreTrainedModel) -> str:
    with pytest.raises(SafetyHeadsError) as error:
        refuse_failed(check_model(model, TOKENS), model, "mine")
    return str(error.value)


def test_the_message_has_the_check_the_numbers_and_what_to_set(model: PreTrainedModel) -> None:
    wrong_at_edges(model)
    said = message(model)
    assert said.startswith(f'mine: The check "{KERNEL}" does not hold in float32 on cpu with sdpa attention')
    assert "the difference is 1.0e-02 (layer " in said and "33 tokens; in the median 1.0e-02)" in said
    assert "it must be at most 1e-04" in said
    assert "Set `models: {mine: {attention: eager}}`." in said


def test_in_16_bits_float32_is_advised_too_and_with_eager_no_other_attention(model: PreTrainedModel) -> None:
    sees_later_tokens(model.to(torch.bfloat16))
    assert "Set `models: {mine: {attention: eager, dtype: float32}}`." in message(model)
    model.set_attn_implementation("eager")
    said = message(install(model.to(torch.float32)))
    assert "does not generate text from left to right" in said
    assert "Set `models" not in said


def test_a_number_format_that_is_too_small_is_told_as_such(golden: Any) -> None:
    model: Any = load(golden / "tiny_a", dtype="float16", device="cpu")
    model.model.layers[0].mlp.down_proj.weight.mul_(60000).mul_(60000)
    with pytest.raises(SafetyHeadsError, match="In float16, LlamaForCausalLM computes values that are not numbers"):
        check_model(model, TOKENS)
