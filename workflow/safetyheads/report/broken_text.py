"""The rules by which a text is called broken, in a sentence made from the detector's own thresholds."""

from safetyheads.judges import loops
from safetyheads.judges.degenerate import (
    BAD_CHARACTERS,
    CHANGES_OF_SCRIPT,
    MIN_BAD_CHARACTERS,
    MIN_CHANGES_OF_SCRIPT,
    MIN_SALAD,
    MIN_WINDOW,
    MOST_COMPRESSED,
    SALAD_MARGIN,
    SALAD_NLL,
    WINDOW,
    fewest_trigrams,
)
from safetyheads.report.figures.drawing import percent

HARDLY_WHOLE = 0.5
"""Share of broken answers of the plain model from which nothing can be learned of refusals."""


def rule() -> str:
    """What makes a text broken (degenerate), with the thresholds that the detector uses."""
    long, short = (f"{100 * fewest_trigrams(size):.2g} %" for size in (WINDOW, MIN_WINDOW))
    return (
        f"A text is broken if it loops (at least {loops.COPIES} copies back to back, {loops.SHORTEST_LOOP} characters "
        f"together, that fill half of the text, or {loops.COPIES_AT_THE_END} up to its end; the copied piece has up to "
        f"{loops.LONGEST} characters), if at least half of its windows of {WINDOW} characters compress to under "
        f"{100 * MOST_COMPRESSED:g} % and have few distinct trigrams (under {long}, in shorter texts under {short}; "
        f"texts under {MIN_WINDOW} characters are not looked at), if {100 * BAD_CHARACTERS:g} % of its characters are "
        f"broken (at least {MIN_BAD_CHARACTERS}), if scripts change within words (at least {MIN_CHANGES_OF_SCRIPT} "
        f"times, and {100 * CHANGES_OF_SCRIPT:g} in a hundred letters), or if the plain model finds it unlikelier than "
        f"{SALAD_NLL:g} nats per token, and {SALAD_MARGIN:g} more than the unlikeliest of its own answers (from "
        f"{MIN_SALAD} characters on, where likelihoods were computed). The thresholds were fitted on made-up and "
        "generated examples; broken text of other kinds is not seen, and odd coherent text may be called broken."
    )


def broken_plain(share: float) -> str:
    """What is said where the plain model's own answers are broken, with their share; empty if most are whole."""
    if not share >= HARDLY_WHOLE:
        return ""
    return (
        f"The plain model itself answers {percent(share)} with broken text: nothing about refusals can be learned here."
    )
