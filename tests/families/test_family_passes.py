"""In every family, partial passes and completions in a padded batch are those of whole passes, one by one."""

from itertools import product

import pytest
import torch
from members import SETS, difference, installed, logits, prompts
from registry import FAMILIES, HEADS, LAYERS, WINDOW, Family
from transformers import DynamicCache, PreTrainedModel

from safetyheads.engine.ablation import ablate
from safetyheads.engine.generation import Row, decode
from safetyheads.engine.partial_forward import PartialForward, Shortcut, Top
from safetyheads.engine.self_checks import check_shortcuts
from safetyheads.heads import Ablation, Head, HeadSet, Kind
from safetyheads.plans import Decoding

ROUNDING = 1e-5
LENGTHS, NEW_TOKENS = [9, 3, 6, 11, 3], 6

every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def plainly(
    passes: PartialForward, ids: torch.Tensor, ablation: Ablation, sets: list[HeadSet], cache: DynamicCache
) -> Top:
    """Whole passes, without any shortcut."""
    shortcut, passes.shortcut = passes.shortcut, Shortcut.NONE
    top = passes.whole(ids, ablation, sets, cache)
    passes.shortcut = shortcut
    return top


@every_family
def test_a_resumed_pass_equals_a_whole_one_at_every_layer_and_leaves_the_same_cache(
    family: Family, caplog: pytest.LogCaptureFixture
) -> None:
    passes, ids = PartialForward(installed(family)), torch.tensor(prompts([9] * 3))
    check_shortcuts(passes, ids[0].tolist())
    assert passes.shortcut is Shortcut.PREFIX, caplog.text
    ablation, rows = Ablation(Kind.UNDIFFERENTIATED), [1, 0, 2, 2]
    for layer, shortcut in product(range(LAYERS), Shortcut):
        passes.shortcut = shortcut
        group: HeadSet = (Head(0, 3),) if layer else ()
        sets: list[HeadSet] = [
            (*group, Head(layer, 1)),
            group,
            (*group, Head(layer, 0), Head(layer, 2)),
            (*group, Head(layer, 2), Head(2, HEADS - 1)),
        ]
        below, above, whole = DynamicCache(), DynamicCache(), DynamicCache()
        kept, _ = passes.keep(ids, ablation, group, below, layers=[layer])
        found = passes.resume(kept, rows, layer, ablation, sets, above)
        expected = plainly(passes, ids[rows], ablation, sets, whole)
        for ours, theirs in zip(found, expected):
            assert difference(ours, theirs) < ROUNDING
        for at, theirs in enumerate(whole.layers):
            ours = below.layers[at] if at <= layer else above.layers[at]
            chosen = rows if at <= layer else range(len(rows))
            for name in ("keys", "values"):
                assert difference(getattr(ours, name)[list(chosen)], getattr(theirs, name)) < ROUNDING


def alone(model: PreTrainedModel, row: Row, ablation: Ablation) -> list[int]:
    """Greedy decoding by the definition: no batch, no padding, no cache."""
    tokens: list[int] = []
    with ablate(model, ablation, [row.heads]):
        for _ in range(NEW_TOKENS):
            tokens.append(int(logits(model, torch.tensor([[*row.token_ids, *tokens]]))[0, -1].argmax()))
    return tokens


@every_family
def test_completions_in_a_padded_batch_are_those_of_each_row_alone(family: Family) -> None:
    """Prompts shorter and longer than the window, which all completions outgrow."""
    model, ablation = installed(family), Ablation(list(Kind)[FAMILIES.index(family) % len(Kind)])
    rows = [Row(f"q-{at}", ids, heads) for at, (ids, heads) in enumerate(zip(prompts(LENGTHS), SETS))]
    rows += [Row(row.query_id, row.token_ids, SETS[2]) for row in rows]
    assert min(LENGTHS) < WINDOW < min(LENGTHS) + NEW_TOKENS
    expected = [alone(model, row, ablation) for row in rows]
    assert expected[:5] != expected[5:]
    made = decode(PartialForward(model), rows, ablation, Decoding(NEW_TOKENS), [], paired=True)
    assert made["tokens"].tolist() == expected
    assert made["plain"].tolist() == [alone(model, Row(row.query_id, row.token_ids, ()), ablation) for row in rows]
