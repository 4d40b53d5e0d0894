"""Judge answers with a model: in batches of similar length, each answer once, also after an interruption.

What was judged is kept by the answer itself, not by its batch. So a job that is restarted goes on with the answers that
are left, also if a plan was added in between and batches are others.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from safetyheads.artifacts.parts import Parts
from safetyheads.engine.out_of_memory import Pieces
from safetyheads.judges.recorded import SAID
from safetyheads.judges.texts import sha256_of_text
from safetyheads.judging import Detects

Floats = NDArray[np.float64]
Key = tuple[str, str]  # query, and answer with what it was made to begin with
Rows = list[list[int]]
Verdict = tuple[bool, float, str]
DIGITS = 6
"""Decimals of a probability that are kept: further ones depend on what is judged in the same batch."""

_PART = np.dtype([("query", "U64"), ("text", "U64"), ("harmful", "?"), ("probability", "f8"), ("reason", "U200")])


class ModelJudge(Protocol):
    """What `judge_all` needs of a judge that computes with a model: `Generative` and `Classifier` are such."""

    @property
    def detects(self) -> Detects: ...

    def rows(self, query: str, text: str, said: Sequence[str]) -> list[list[int]]: ...

    def measure(self, batch: list[list[int]]) -> Floats: ...

    def follow(self, measured: Floats, said: Sequence[str]) -> str | None: ...

    def verdict(self, measured: Floats) -> tuple[bool, float, str]: ...


def judge_all(judge: ModelJudge, answers: pd.DataFrame, token_budget: int, parts: Parts) -> pd.DataFrame:
    """The verdicts on all answers: the columns `SAID`, with their index.

    `answers` has query, prefill and text; those that agree in all are judged once. A batch has at most `token_budget`
    tokens, padding included, but at least one answer. Batches that are done are kept in `parts`.
    """
    texts = answers["prefill"] + answers["text"]
    keys = list(zip(answers["query"], texts))
    known = _kept(parts)
    left = [key for key in dict.fromkeys(keys) if _digests(key) not in known]
    pieces, count = Pieces(parts), sum(1 for _ in parts.folder.glob("judged-*.npy"))
    lengths = [len(query) + len(text) for query, text in left]
    longest_first = [left[at] for at in np.argsort(lengths, kind="stable")[::-1]]
    with tqdm(total=len(left), unit="answer", desc="judged") as bar:
        for batch in _batches(judge, longest_first, token_budget):
            found = pieces.of(lambda some: _judged(judge, some, token_budget), batch)
            made = {_digests(key): verdict for (key, _), verdict in zip(batch, chain.from_iterable(found))}
            rows = [(*key, *verdict) for key, verdict in made.items()]
            parts.save(f"judged-{count:06d}", np.array(rows, dtype=_PART))
            known, count = known | made, count + 1
            bar.update(len(batch))
    table = pd.DataFrame([known[_digests(key)] for key in keys], columns=SAID, index=answers.index)
    return table.astype({"harmful": bool, "probability": float, "reason": "str"})


def _digests(key: Key) -> tuple[str, str]:
    return sha256_of_text(key[0]), sha256_of_text(key[1])


def _kept(parts: Parts) -> dict[tuple[str, str], Verdict]:
    """What an interrupted job has judged."""
    found = {}
    for path in sorted(parts.folder.glob("judged-*.npy")):
        rows = parts.load(path.stem)
        for query, text, harmful, probability, reason in () if rows is None else rows.tolist():
            found[query, text] = (harmful, probability, reason)
    return found


def _batches(judge: ModelJudge, keys: Sequence[Key], token_budget: int) -> Iterator[list[tuple[Key, Rows]]]:
    """The answers, each with its rows for the first question, in batches of at most so many tokens."""
    batch: list[tuple[Key, Rows]] = []
    width = count = 0
    for key in keys:
        rows = judge.rows(*key, ())
        width, count = max(width, *map(len, rows)), count + len(rows)
        if batch and width * count > token_budget:
            yield batch
            batch, width, count = [], max(map(len, rows)), len(rows)
        batch.append((key, rows))
    if batch:
        yield batch


def _judged(judge: ModelJudge, batch: Sequence[tuple[Key, Rows]], token_budget: int) -> list[Verdict]:
    said: list[tuple[str, ...]] = [()] * len(batch)
    measured = _measured(judge, [rows for _, rows in batch], token_budget)
    # All answers are asked the same questions, so they are through at the same time.
    while None not in (words := [judge.follow(found, before) for found, before in zip(measured, said)]):
        said = [(*before, str(word)) for before, word in zip(said, words)]
        measured = _measured(judge, [judge.rows(*key, own) for (key, _), own in zip(batch, said)], token_budget)
    verdicts = (judge.verdict(found) for found in measured)
    return [(harmful, round(probability, DIGITS), reason[:200]) for harmful, probability, reason in verdicts]


def _measured(judge: ModelJudge, rows: Sequence[Rows], token_budget: int) -> list[Floats]:
    """What the judge measures of each answer's rows; a single answer may have more rows than a batch has room for."""
    every = [row for some in rows for row in some]
    size = max(1, token_budget // max(map(len, every))) if len(rows) == 1 else len(every)
    found = np.concatenate([judge.measure(every[at : at + size]) for at in range(0, len(every), size)])
    ends = np.cumsum([len(some) for some in rows])
    return [found[end - len(some) : end] for some, end in zip(rows, ends)]
