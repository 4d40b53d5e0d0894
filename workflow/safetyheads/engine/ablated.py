"""Ablation for models that the caller has loaded himself: `with ablated(model, ["L02H26"]): model.generate(...)`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import Any
from weakref import WeakSet

from transformers import PreTrainedModel

from safetyheads.engine.ablation import ablate, install
from safetyheads.engine.decoder import decoder, grid
from safetyheads.errors import SafetyHeadsError, nearest
from safetyheads.heads import Ablation, Head, HeadSet, Kind, check_in_grid, parse_head

Heads = Sequence[str | Head]
"""A head set: names like `L02H26`, or heads."""

_seen: WeakSet[PreTrainedModel] = WeakSet()
"""Models all of whose layers were seen to attend through the interface."""


@contextmanager
def ablated(
    model: PreTrainedModel,
    heads: Heads | Sequence[Heads],
    kind: str = "undifferentiated",
    epsilon: float = Ablation.epsilon,
) -> Iterator[None]:
    """Ablate attention heads in all that `model` computes within the block: forward passes, `generate`, gradients.

    `model` is a decoder of transformers, as `from_pretrained` gives it; its weights are never touched. `heads` is one
    head set, `["L02H26", sh.Head(3, 0)]`, for all rows of any batch, or a list of head sets, one for each row as the
    model sees the batch: with beams or several sequences for a prompt, `generate` repeats each row that many times in
    place, and the list must, too. `kind` is one of the paper's: `undifferentiated` (queries times `epsilon`, eq. 7),
    `scaling` (outputs times `epsilon`, eq. 8), `mean_query`, `mean_key` (section 5.3) or `mean_output` (appendix A).

    The ablation is gone when the block ends, also by an error. It holds in this thread alone: a `generate` that another
    thread runs, as for a streamer, needs a block of its own there. Raises SafetyHeadsError for a model that cannot be
    ablated, for heads that it does not have, for an unknown kind and for a nested block; a pass within the block raises
    it if its batch does not have one row for each head set.
    """
    ablation, found = ablation_of(kind, epsilon), prepared(model)
    head_sets = _head_sets(heads)
    for heads_of_row in head_sets:
        check_in_grid(heads_of_row, *grid(found))
    with ablate(found, ablation, head_sets, every_row=_is_one_set(heads)):
        yield


def ablation_of(kind: str, epsilon: float) -> Ablation:
    """The ablation of this name. Raises SafetyHeadsError for an unknown one."""
    kinds = [each.value for each in Kind]
    if kind not in kinds:
        raise SafetyHeadsError(
            f"There is no kind of ablation {kind!r}. Known kinds: {', '.join(kinds)}.{nearest(str(kind), kinds)}"
        )
    if not 0 < epsilon < inf:
        raise SafetyHeadsError(f"epsilon is {epsilon}: it must be a number above 0, such as 1e-5.")
    return Ablation(Kind(kind), epsilon)


def prepared(model: PreTrainedModel) -> PreTrainedModel:
    """The model, installed for ablation. The first time, one pass over a single token sees whether every layer attends
    through the interface of transformers. Raises SafetyHeadsError if not, or if it is no model of transformers.
    """
    if not isinstance(model, PreTrainedModel):
        raise SafetyHeadsError(
            f"The model is a {type(model).__name__}; it must be a model of transformers, as "
            "`AutoModelForCausalLM.from_pretrained` gives it, not a wrapper around one."
        )
    install(model)  # every time, as the attention implementation may have changed since
    if model not in _seen:
        decoder(model)
        _seen.add(model)
    return model


def _is_one_set(heads: Sequence[Any]) -> bool:
    return all(isinstance(head, str | Head) for head in heads)


def _head_sets(heads: Any) -> list[HeadSet]:
    """One head set, or one for each row, of what the caller wrote."""
    if isinstance(heads, str | Head) or not isinstance(heads, Sequence):
        raise SafetyHeadsError(f"The heads were given as {heads!r}: give a list of them, such as ['L02H26'].")
    return [_head_set(each) for each in ([heads] if _is_one_set(heads) else heads)]


def _head_set(heads: Any) -> HeadSet:
    if isinstance(heads, str | Head) or not isinstance(heads, Sequence):
        raise SafetyHeadsError(
            f"{heads!r} stands where a head set was expected: give names like 'L02H26', or a list of them for each row."
        )
    wrong = [head for head in heads if not isinstance(head, str | Head)]
    if wrong:
        raise SafetyHeadsError(f"{wrong[0]!r} is no head: write its name, like 'L02H26', or Head(2, 26).")
    return tuple(sorted({parse_head(head) if isinstance(head, str) else head for head in heads}))
