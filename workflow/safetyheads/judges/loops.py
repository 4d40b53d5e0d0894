"""Loops: text in which a substring comes again and again, back to back.

To find copies of a substring of p characters, the text is compared with itself, shifted by p: a stretch of the text
that has period p is a run of positions i with text[i] == text[i + p], plus the p characters behind it. That is one pass
for each p up to `LONGEST`, so the time is linear in the length of the text, in any script, and what stands before the
loop or a last copy that was cut does not matter.

Coherent texts repeat themselves, too: a refrain is sung three times, a form has empty rows, a drawing has equal lines.
What models loop in, they do not leave. So a stretch counts more if it lasts up to the end of the text.

Entries that are equal but for a number that counts are a loop if the number only marks them ("3. Walk"), and a list if
it counts something: if a word stands before it on its line or right behind it ("Week 3: walk", "3 green bottles").
Models loop in such entries, too, and nothing tells the two apart; so only up to `ENTRIES_OF_A_LIST` short lines are a
list.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from safetyheads.judges.characters import is_letter

LONGEST = 204
"""Characters of the longest substring whose copies are looked for one by one: 200 and a break of lines between them.
Longer ones are found only if the last of them ends the text."""

SHORTEST_LOOP = 40
"""Characters that all copies have together. "No, no, no!" is no loop."""

COPIES = 3
"""Whole copies of which a loop consists if it fills half of the text."""

COPIES_AT_THE_END = 4
"""Whole copies of which a loop consists that lasts up to the end of the text but fills less than half of it."""

LINES_OF_A_REFRAIN = 5
"""Up to so many equal lines, the last one whole, close a song, and other lines may follow them."""

SHORTEST_OF_SIGNS = 100
"""Characters of a loop of signs or digits beside other text: rules (*****, ~~~~~) and padding are shorter."""

SHORTEST_RUNNING_ON = 50
"""Characters of a loop of signs or digits that ends the text and begins on a line with other text ("so it is!!!!!"):
rules have lines of their own, and cheers, bars and fractions are shorter."""

SHORTEST_OF_ROWS = 160
"""Characters of a loop of whole rows of signs, digits or empty tags: small boards and tables are shorter."""

ROWS_OF_A_BOARD = 10
"""Up to so many equal rows of signs, digits or empty tags are a board, a matrix or an empty table."""

SHORTEST_ROW = 8
"""Characters of the shortest such row, its line break included."""

COPIES_WITH_COUNTER = 5
"""Whole copies of which a loop consists if they differ by a number that counts up."""

LETTERS_WITH_COUNTER = 12
"""Bytes of letters (UTF-8) in such a copy: "Day 1: rest" and "1. Yes" are entries of coherent lists."""

ENTRIES_OF_A_LIST = 20
"""Up to so many entries make a list if they differ by a number with a word beside it: rooms, days, rows to knit."""

LONGEST_ENTRY = 60
"""Characters of the longest such entry."""

_CLOCK = re.compile("0[-:/.]0")
"""Times, dates and versions: lines of a log differ by them, and mean something."""

_TAIL = 32
"""Last characters whose earlier place tells the period of a loop of long copies."""

_DIGITS = re.compile(r"\d+")

_SPACE = ord(" ")

_TAG = re.compile(r"</?\w[^<>]*>")
"""A tag of HTML."""


@dataclass(frozen=True)
class Stretch:
    """A stretch of a text, `start` to `end`, in which each character equals that `period` characters before."""

    start: int
    end: int
    period: int

    @property
    def size(self) -> int:
        return self.end - self.start

    @property
    def copies(self) -> int:
        """Whole copies."""
        return self.size // self.period


def repetition(text: str) -> Literal["loop", "list"] | None:
    """Whether the text holds a loop, or half of it is a list (entries that differ by numbers that count, or equal rows
    of a board or of an empty table), or neither.

    A loop is at least `COPIES` copies back to back and `SHORTEST_LOOP` characters that fill half of the text, or at
    least `COPIES_AT_THE_END` up to its end. Refrains, rows of signs and rules are let off, as the constants say. The
    copies may differ by a counter, unless they are entries of a list.
    """
    size, text = len(text), text.rstrip()
    if 2 * len(text) <= size:
        return "loop" if size >= SHORTEST_LOOP else None
    counted = _DIGITS.sub("0", text)
    plain = (_plain_repetition(text, stretch) for stretch in _stretches(text))
    stretches = _stretches(counted) if counted != text else ()
    with_counter = (_counted_repetition(text, counted, stretch) for stretch in stretches)
    found: Literal["list"] | None = None
    for each in chain(plain, with_counter):
        if each == "loop":
            return each
        found = each or found
    return found


def _stretches(text: str) -> Iterator[Stretch]:
    """The longest stretch of each period, and the one that ends the text, if they may be loops."""
    if len(text) < SHORTEST_LOOP:
        return
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    periods = list(range(1, min(LONGEST, (len(text) + 1) // COPIES) + 1))
    before = text.rfind(text[-_TAIL:], 0, -1)
    if before >= 0 and (period := len(text) - _TAIL - before) > LONGEST:
        periods.append(period)
    for period in periods:
        yield from _of_period(codes, period)


def _of_period(codes: NDArray[np.uint32], period: int) -> Iterator[Stretch]:
    same = codes[period:] == codes[:-period]
    needed = max(SHORTEST_LOOP, COPIES * period) - period
    if np.count_nonzero(same) < needed - 1:
        return
    breaks = np.concatenate(([-1], np.flatnonzero(~same), [len(same)]))
    runs = np.diff(breaks) - 1
    # The space behind the last copy was stripped with the end of the text.
    stripped = codes[-period] == _SPACE
    for run in sorted({int(runs.argmax()), len(runs) - 1}):
        if runs[run] >= needed - (stripped and run == len(runs) - 1):
            yield Stretch(int(breaks[run]) + 1, int(breaks[run + 1]) + period, period)


def _plain_repetition(text: str, stretch: Stretch) -> Literal["loop", "list"] | None:
    unit = text[stretch.start : stretch.start + stretch.period]
    ends = stretch.end == len(text)
    fills = 2 * stretch.size >= len(text)
    lines = "\n" in unit
    rows = lines and stretch.period >= SHORTEST_ROW
    if not any(map(_says_something, _without_tags(unit) if rows else unit)):
        if rows and stretch.copies <= ROWS_OF_A_BOARD:
            return "list" if fills else None
        if rows:
            return "loop" if fills and stretch.size >= SHORTEST_OF_ROWS else None
        runs_on = ends and not lines and text[: stretch.start].rpartition("\n")[2].strip()
        shortest = SHORTEST_RUNNING_ON if runs_on else SHORTEST_OF_SIGNS
        long = stretch.size >= 0.9 * len(text) or ((fills or ends) and stretch.size >= shortest)
        return "loop" if long else None
    if fills and (ends or not lines or stretch.copies > LINES_OF_A_REFRAIN):
        return "loop"
    # The space or line break behind the last copy was stripped with the end of the text.
    copies, cut = divmod(stretch.size + 1, stretch.period)
    refrain = lines and cut <= 1 and copies <= LINES_OF_A_REFRAIN
    return "loop" if ends and copies >= COPIES_AT_THE_END and not refrain else None


def _without_tags(unit: str) -> str:
    """The rows of a unit without tags, from the first whole row on: a unit may begin within a tag."""
    first = unit.index("\n")
    return _TAG.sub("", unit[first:] + unit[:first])


def _says_something(character: str) -> bool:
    """Whether it is a letter or an emoji: not a digit, nor a sign of which rules, tables and drawings are made."""
    return is_letter(character) or (unicodedata.category(character) == "So" and not 0x2500 <= ord(character) <= 0x25FF)


def _counted_repetition(text: str, counted: str, stretch: Stretch) -> Literal["loop", "list"] | None:
    """The same for copies that differ by numbers alone. `counted` is the text with each number as 0."""
    fills = 2 * stretch.size >= len(counted)
    if not fills and stretch.end != len(counted):
        return None
    unit = counted[stretch.start : stretch.start + stretch.period]
    short = "\n" in unit and stretch.period <= LONGEST_ENTRY and stretch.copies <= ENTRIES_OF_A_LIST
    if short and _counts_something(unit, _numbers(text, counted, stretch)):
        return "list" if fills else None
    loop = _may_loop(unit) and stretch.copies >= COPIES_WITH_COUNTER and _counts_up(_numbers(text, counted, stretch))
    return "loop" if loop else None


def _may_loop(unit: str) -> bool:
    """Whether copies of this unit that differ by a counter may be a loop: not of short entries, fields or times."""
    letters = "".join(character for character in unit if is_letter(character))
    long = len(letters.encode("utf-8", "surrogatepass")) >= LETTERS_WITH_COUNTER
    return long and "_" not in unit and not _CLOCK.search(unit)


def _counts_something(unit: str, numbers: NDArray[np.int64]) -> bool:
    """Whether a number of the unit counts and has a word before it on its line, or right behind it."""
    steps = np.diff(numbers, axis=0)
    counts = (steps == steps[0]).all(axis=0) & (steps[0] != 0)
    # With a copy before and one behind, as the unit may begin or end with a counter.
    around = unit * 3
    places = [len(unit) + match.start() for match in re.finditer("0", unit)]
    return any(
        any(map(is_letter, around[:place].rpartition("\n")[2] + around[place + 1 : place + 3].lstrip(" ")[:1]))
        for place, counter in zip(places, counts)
        if counter
    )


def _numbers(text: str, counted: str, stretch: Stretch) -> NDArray[np.int64]:
    """The numbers in the whole copies of the stretch: one row for each copy."""
    # No digit is left in `counted` but the zeros, so the n-th zero stands for the n-th number.
    first = counted.count("0", 0, stretch.start)
    each = counted.count("0", stretch.start, stretch.start + stretch.period)
    found = _DIGITS.findall(text)[first : first + each * stretch.copies]
    return np.array([int(number[:15]) for number in found]).reshape(stretch.copies, each)


def _counts_up(numbers: NDArray[np.int64]) -> bool:
    """Whether exactly one number of each copy is one more than in the copy before, and the others hardly change."""
    steps = np.diff(numbers, axis=0)
    return bool((np.sum((steps == 1).all(axis=0)) == 1) and ((steps == 1) | (steps == 0)).all())
