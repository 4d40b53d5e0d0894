"""Greedy search for a group of heads: the group grows, step by step, by the head with which it scores highest."""

import logging
from collections.abc import Callable

import numpy as np
import pandas as pd
from torch import Tensor

from safetyheads.attribution.scoring_passes import Sweep
from safetyheads.engine.decoder import grid
from safetyheads.engine.partial_forward import Top
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import HeadSet, all_heads

log = logging.getLogger(__name__)


def greedy(
    name: str,
    sweep: Sweep,
    steps: int,
    state: Callable[[Top], Tensor],
    score: Callable[[Tensor], np.ndarray],
    seen: Callable[[int, np.ndarray], None] = lambda step, found: None,
) -> pd.DataFrame:
    """Add the head of highest score to the group, `steps` times; of equal ones the lower layer, then the lower head.

    `state` takes the states (R, d) from a top, and `score` is given those of a layer's candidates (C, prompts, d) and
    returns (k, C), the scores first. `seen` is called after each step with what was found for all candidates (k, C).
    Returns rows of step (from 1), layer, head, score (of the group so far with this head) and selected. A head that was
    chosen in an earlier step has no row later.

    One layer's states of all prompts are in memory at a time. What is found for each layer is a part, so that a job
    that is killed goes on after its last whole layer. Raises SafetyHeadsError if there are fewer heads than `steps`.
    """
    heads = all_heads(*grid(sweep.passes.model))
    if not 1 <= steps <= len(heads):
        raise SafetyHeadsError(f"{name} cannot choose {steps} heads: the model has {len(heads)}. Lower `steps`.")
    group: HeadSet = ()
    rows: list[pd.DataFrame] = []
    for step in range(1, steps + 1):
        candidates = [head for head in heads if head not in group]
        found = np.concatenate(list(sweep.by_layer(f"step-{step}", group, candidates, state, score)), axis=1)
        seen(step, found)
        best = int(np.argmax(found[0]))
        rows.append(
            pd.DataFrame(candidates, columns=["layer", "head"]).assign(
                step=step, score=found[0], selected=np.arange(len(candidates)) == best
            )
        )
        group = (*group, candidates[best])
        log.info("Step %d: %s, %.3f", step, candidates[best], found[0][best])
    return pd.concat(rows, ignore_index=True)
