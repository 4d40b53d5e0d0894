"""Batches that prove too big for the memory are computed in pieces, with the same results."""

import logging
from pathlib import Path

import pytest
import torch

from safetyheads.artifacts.parts import Parts
from safetyheads.engine.out_of_memory import Pieces, smallest_piece
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


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return Parts(tmp_path / "a.parquet", "same")


def test_out_of_memory_halves_the_pieces_and_later_batches_begin_with_them(
    parts: Parts, caplog: pytest.LogCaptureFixture
) -> None:
    pieces, compute = Pieces(parts), within(3)
    with caplog.at_level(logging.WARNING):
        assert pieces.of(compute, [1, 2, 3]) == [6]  # type: ignore[arg-type]
        assert not caplog.records
        assert pieces.of(compute, list(range(10))) == [1, 5, 9, 13, 17]  # type: ignore[arg-type]
    assert "Out of memory with 10 rows; going on with at most 5" in caplog.text
    assert "Out of memory with 5 rows; going on with at most 2" in caplog.text
    compute.attempts.clear()  # type: ignore[attr-defined]
    assert pieces.of(compute, [1, 2, 3]) == [3, 3]  # type: ignore[arg-type]
    assert compute.attempts == [[1, 2], [3]]  # type: ignore[attr-defined]


def test_a_row_that_is_too_much_ends_with_what_can_be_done(parts: Parts) -> None:
    with pytest.raises(SafetyHeadsError, match="single row is too much for the memory"):
        Pieces(parts).of(within(0), [1, 2, 3])  # type: ignore[arg-type]


def test_other_errors_are_not_taken_for_a_lack_of_memory(parts: Parts) -> None:
    def compute(_: list[int]) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        Pieces(parts).of(compute, [1, 2])


def test_a_batch_that_was_cut_is_recorded_beyond_the_end_of_its_job(parts: Parts, tmp_path: Path) -> None:
    first, second = Pieces(parts), Pieces(parts)
    first.of(within(10), list(range(10)))  # type: ignore[arg-type]
    assert smallest_piece(parts) is None
    first.of(within(3), list(range(10)))  # type: ignore[arg-type]
    second.of(within(6), list(range(12)))  # type: ignore[arg-type]
    assert smallest_piece(parts) == 2, "the smallest of all"
    restarted = Parts(tmp_path / "a.parquet", "same")
    assert smallest_piece(restarted) == 2
    whole = within(10)
    Pieces(restarted).of(whole, list(range(10)))  # type: ignore[arg-type]
    assert len(whole.attempts) == 1, "a job that goes on tries whole batches again"  # type: ignore[attr-defined]
    assert smallest_piece(restarted) == 2


def test_shards_have_records_of_their_own(tmp_path: Path) -> None:
    cut, other = (Parts(tmp_path / f".a.{shard}-of-2.parquet", "same") for shard in range(2))
    Pieces(cut).of(within(1), [1, 2])  # type: ignore[arg-type]
    assert (smallest_piece(cut), smallest_piece(other)) == (1, None)
