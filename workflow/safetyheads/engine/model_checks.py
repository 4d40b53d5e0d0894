"""Checks on the loaded model before any number is made: ablation, masks, kernels and padding do what they must.

Attention kernels are silently wrong on some devices, and a family's code may treat masks or padding in its own way.
That changes every number and raises no error. So each model is tried once, in each number format and on each kind of
device. `probes` has what is tried, and `CHECKS` what is made of it.

In float32, a difference beyond rounding fails. In 16 bits and in TF32 it is a warning, because rounding may send a
token to other experts, and such a token is far off; but what rounding cannot explain fails there, too:

- an ablation that does nothing;
- half of all positions off by more than the tolerance, where both passes do the same arithmetic on the same rows;
- half of all positions off by more than four times the tolerance, where shapes differ, as with padding;
- any position off by more than four times the tolerance, where layers attend to the same states: no expert is in it.

`self_checks` and `generation_checks` are others: those of each job, of the shortcuts that it takes.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from math import inf, isfinite
from typing import Any, Literal, NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from safetyheads.engine.decoder import input_device
from safetyheads.engine.implementations import EAGER, implementation
from safetyheads.engine.probes import (
    LEAST,
    Compared,
    Probe,
    of_kernels,
    of_later_tokens,
    of_layers,
    of_no_heads,
    of_padding,
)
from safetyheads.engine.self_checks import tolerance
from safetyheads.errors import SafetyHeadsError

log = logging.getLogger(__name__)

SEEDS = (0, 1)
"""Of the tokens that are tried first, and of those that are tried where a check fails."""
FAR = 4.0
"""How many times the tolerance differences must be for rounding not to explain them, where it has a part."""


class Result(NamedTuple):
    """What a check found. Numbers are missing where it is not applicable."""

    check: str
    result: Literal["passed", "warned", "failed", "not applicable"]
    difference: float | None = None
    """The largest of all; of a check that something changes, the smallest."""
    typical: float | None = None
    """The median of the comparison that has the largest."""
    tolerance: float | None = None
    """What the difference must be at most or more than, as `bound` says."""
    bound: Literal["at most", "more than"] = "at most"
    where: str = ""
    lengths: Sequence[int] = ()

    def plain(self) -> dict[str, Any]:
        """The entries as plain values, for JSON."""
        return self._asdict()


class Check(NamedTuple):
    """What must hold, how it is tried, what even 16 bits do not explain, and what to do then."""

    name: str
    """`{attention}` is filled in."""
    tried: Callable[[Probe], Iterator[Compared]]
    beyond_rounding: Callable[[float, float], bool]
    """Whether a check has failed in 16 bits, by the largest and the typical difference in tolerances."""
    with_eager: str
    """What is said where there is no other attention to try."""
    something: bool = False
    """Whether something must change, rather than nothing."""
    most: float = inf
    """The largest tolerance, where less than a whole pass is compared."""

    def on(self, probe: Probe) -> Result:
        """The result of this check."""
        found = [one for one in self.tried(probe) if len(one.differences.view(-1))]
        name = self.name.format(attention=implementation(probe.model))
        if not found:
            return Result(name, "not applicable")
        allowed = LEAST if self.something else min(self.most, tolerance(probe.model))
        worst = (min if self.something else max)(found, key=_size)
        largest, typical = _size(worst), float(worst.differences.median())
        held = largest > allowed if self.something else largest <= allowed
        strict = not _rounds(probe.model) or not isfinite(largest)
        failed = strict or self.beyond_rounding(largest / allowed, typical / allowed)
        result: Any = "passed" if held else "failed" if failed else "warned"
        lengths = sorted({one.tokens for one in found})
        bound: Any = "more than" if self.something else "at most"
        return Result(name, result, _rounded(largest), _rounded(typical), allowed, bound, worst.what, lengths)


_REPORT = "With eager attention there is no other one to try. Please report it, with the name of the model."
CHECKS = (
    Check("ablating nothing changes nothing", of_no_heads, lambda _, typical: typical > 1, _REPORT),
    Check("ablating a whole layer does something", of_layers, lambda *_: True, _REPORT, something=True),
    Check(
        "no token sees a later one",
        of_later_tokens,
        lambda _, typical: typical > 1,
        "Its code lets tokens see those behind them, so it does not generate text from left to right, and cannot be "
        "measured.",
    ),
    Check("{attention} equals eager attention", of_kernels, lambda largest, _: largest > FAR, _REPORT, most=2e-2),
    Check(
        "left padding changes nothing",
        of_padding,
        lambda _, typical: typical > FAR,
        "Its code lets padding in, so prompts of different lengths cannot share a batch, and it cannot be measured.",
    ),
)


def check_model(model: PreTrainedModel, tokens: Sequence[int]) -> list[Result]:
    """Check a model that is installed for ablation, with token ids out of `tokens`, up to the first check that fails.

    A check that fails is tried once more with other tokens, because even in float32 two experts may be so close that
    rounding chooses. What fails with both has failed; what fails with one is a warning.
    """
    probes = [Probe(model, tokens, seed) for seed in SEEDS]
    results: list[Result] = []
    for check in CHECKS:
        result = check.on(probes[0])
        if result.result == "failed" and check.on(probes[1]).result != "failed":
            result = result._replace(result="warned")
        results.append(result)
        if result.result == "warned":
            log.warning("%s", _sentence(result, model))
        if result.result == "failed":
            break
    return results


def refuse_failed(results: Sequence[Result], model: PreTrainedModel, name: str) -> None:
    """Raise SafetyHeadsError if a check has failed, and say what to do. `name` is the model's in the configuration."""
    for check, result in zip(CHECKS, results):
        if result.result == "failed":
            eager, other = implementation(model) == EAGER, "" if model.dtype == torch.float32 else "dtype: float32"
            settings = ", ".join(filter(None, ["" if eager else "attention: eager", other]))
            advice = f"Set `models: {{{name}: {{{settings}}}}}`." if settings else ""
            raise SafetyHeadsError(
                f"{name}: {_sentence(result, model)} Its scores and answers would be wrong, so none are made. "
                f"{advice if not eager else f'{check.with_eager} {advice}'.rstrip()}"
            )


def ordinary_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids of a tokenizer's vocabulary without those that were added to it or mean something special, sorted."""
    every = set(tokenizer.get_vocab().values())
    return sorted(every.difference(tokenizer.all_special_ids, tokenizer.added_tokens_decoder) or every)


def _sentence(result: Result, model: PreTrainedModel) -> str:
    """What a check that warned or failed has found."""
    where = f"in {str(model.dtype).removeprefix('torch.')} on {input_device(model).type}"
    size = f"{result.difference:.1e} ({result.where}; in the median {result.typical:.1e})"
    return (
        f'The check "{result.check}" does not hold {where} with {implementation(model)} attention: the difference is '
        f"{size}, and it must be {result.bound} {result.tolerance:.0e}."
    )


def _size(one: Compared) -> float:
    """The largest of a comparison's differences; infinite if one is no number."""
    largest = float(one.differences.max())
    return largest if isfinite(largest) else inf


def _rounds(model: PreTrainedModel) -> bool:
    """Whether a model rounds to 16 bits or TF32."""
    tf32 = input_device(model).type == "cuda" and torch.get_float32_matmul_precision() != "highest"
    return tf32 or model.dtype != torch.float32


def _rounded(difference: float) -> float:
    """A difference with two digits: more say nothing, and may differ from run to run."""
    return float(f"{difference:.1e}")
