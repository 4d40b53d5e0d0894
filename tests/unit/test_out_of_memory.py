"""Batches that prove too big for the memory are computed in pieces, with the same results."""

import logging

import pytest
import torch

from safetyheads.engine.out_of_memory import Pieces
from safetyheads.errors import SafetyHeadsError


def within(rows: int) -> list[list[int]]:
    """Attempts at a computation that has memory for so many rows."""
    attempts: list[list[int]] = []

    def compute(piece: list[int]) -> int:
        attempts.append(piece)
        if len(piece) > rows:
            torch.empty(2**60)  # more than there is: torch's own error
        return sum(piece)

    compute.attempts = attempts  # type: ignore[attr-defined]
    return compute  # type: ignore[return-value]


def test_out_of_memory_halves_the_pieces_and_later_batches_begin_with_them(caplog: pytest.LogCaptureFixture) -> None:
    pieces, compute = Pieces(), within(3)
    with caplog.at_level(logging.WARNING):
        assert pieces.of(compute, [1, 2, 3]) == [6]  # type: ignore[arg-type]
        assert not caplog.records
        assert pieces.of(compute, list(range(10))) == [1, 5, 9, 13, 17]  # type: ignore[arg-type]
    assert "Out of memory with 10 rows; going on with at most 5" in caplog.text
    assert "Out of memory with 5 rows; going on with at most 2" in caplog.text
    compute.attempts.clear()  # type: ignore[attr-defined]
    assert pieces.of(compute, [1, 2, 3]) == [3, 3]  # type: ignore[arg-type]
    assert compute.attempts == [[1, 2], [3]]  # type: ignore[attr-defined]


def test_a_row_that_is_too_much_ends_with_what_can_be_done() -> None:
    with pytest.raises(SafetyHeadsError, match="single row is too much for the memory"):
        Pieces().of(within(0), [1, 2, 3])  # type: ignore[arg-type]


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    def compute(_: list[int]) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        Pieces().of(compute, [1, 2])
