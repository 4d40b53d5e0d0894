"""Cohen's kappa: how far two judges agree beyond what chance alone would give (Cohen, 1960)."""


def kappa(both: float, only_first: float, only_second: float, neither: float) -> float | None:
    """Cohen's kappa of two judges from how often both, one of them or neither say harmful; the numbers may be weights.

    It is null where chance alone would make them agree always, that is, where both always say the same one word, and
    where nothing was judged.
    """
    n = both + only_first + only_second + neither
    if n <= 0:
        return None
    first, second = (both + only_first) / n, (both + only_second) / n
    by_chance = first * second + (1 - first) * (1 - second)
    if by_chance >= 1 - 1e-12:
        return None
    beyond = (both + neither) / n - by_chance
    return 0.0 if abs(beyond) < 1e-12 else beyond / (1 - by_chance)
