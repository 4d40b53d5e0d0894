"""Characters that no coherent text holds in numbers, and scripts that no language mixes within a word.

Both go by the Unicode database of Python, so they know every script; what is unassigned depends on its version.
"""

import unicodedata
from functools import lru_cache
from itertools import pairwise

_SCRIPTS = frozenset(
    {"ARABIC", "ARMENIAN", "BENGALI", "CHEROKEE", "CYRILLIC", "DEVANAGARI", "ETHIOPIC", "GEORGIAN", "GREEK", "GUJARATI"}
    | {
        "GURMUKHI",
        "HEBREW",
        "KANNADA",
        "KHMER",
        "LAO",
        "LATIN",
        "MALAYALAM",
        "MONGOLIAN",
        "MYANMAR",
        "ORIYA",
        "SINHALA",
    }
    | {"SYRIAC", "TAMIL", "TELUGU", "THAANA", "THAI", "TIBETAN"}
)
"""First words of the Unicode names of letters."""

_EAST_ASIAN = frozenset({"BOPOMOFO", "CJK", "HANGUL", "HIRAGANA", "IDEOGRAPHIC", "KATAKANA", "KATAKANA-HIRAGANA"})
"""One class: Chinese, Japanese and Korean words mix these."""

_WITHOUT_SPACES = frozenset({"EAST ASIAN", "KHMER", "LAO", "MYANMAR", "THAI", "TIBETAN"})
"""Scripts that stand next to Latin words without a space, or that add their endings to them."""

AFFIX = 3
"""Letters of the longest prefix or ending that languages put on Latin words: Semitic articles, Slavic cases."""

GREEK_IN_FORMULAS = 2
"""Greek letters that stand next to Latin ones in formulas and units."""

_PLANES_OF_EMOJI = range(0x1F000, 0x1FB00)
"""New emoji are assigned here each year, so models know some that this Python does not."""


@lru_cache(maxsize=65536)
def is_letter(character: str) -> bool:
    """Whether it is a letter or the mark of one (vowel signs, accents)."""
    return unicodedata.category(character)[0] in "LM"


@lru_cache(maxsize=65536)
def _is_bad(character: str) -> bool:
    if character in "\t\n\r\f" or ord(character) in _PLANES_OF_EMOJI:
        return False
    return character == "\ufffd" or unicodedata.category(character) in ("Cc", "Cn", "Co", "Cs")


@lru_cache(maxsize=65536)
def _script(character: str) -> str | None:
    """The script of a letter; None for marks that all scripts share, mathematical letters and other characters."""
    script = unicodedata.name(character, "").partition(" ")[0]
    if script in _EAST_ASIAN:
        return "EAST ASIAN"
    return script if script in _SCRIPTS else None


def letters(text: str) -> int:
    """How many characters of the text are letters or marks of letters."""
    return sum(map(is_letter, text))


def bad_characters(text: str) -> int:
    """How many are replacement, control, private or unassigned characters or halves of surrogate pairs."""
    return sum(map(_is_bad, text))


def script_changes(text: str) -> int:
    """How often letters of two scripts follow each other within a word, other than where languages do so.

    They do with Chinese, Japanese and Korean characters among themselves; with Latin words in a text without spaces;
    with short prefixes and endings on Latin words; and with one or two Greek letters in a formula (πr, kΩ).
    """
    if text.isascii():
        return 0
    changes = 0
    word: list[tuple[str, int]] = []
    """Runs of letters of one script: the script and the number of letters."""
    for character in [*text, " "]:
        if not is_letter(character):
            changes += _changes(word)
            word = []
        elif word and (_script(character) or word[-1][0]) == word[-1][0]:
            word[-1] = (word[-1][0], word[-1][1] + 1)
        elif script := _script(character):
            word.append((script, 1))
    return changes


def _changes(word: list[tuple[str, int]]) -> int:
    return sum(
        not _go_together(one, other, affix=one_at == 0 or one_at == len(word) - 2)
        for one_at, (one, other) in enumerate(pairwise(word))
    )


def _go_together(one: tuple[str, int], other: tuple[str, int], affix: bool) -> bool:
    """Whether languages write a run of letters of one script right behind one of another."""
    if "LATIN" not in (one[0], other[0]):
        return False
    script, size = other if one[0] == "LATIN" else one
    if script == "GREEK":
        return size <= GREEK_IN_FORMULAS
    return script in _WITHOUT_SPACES or (affix and size <= AFFIX)
