"""Tables of pages in docs/ that are written by benchmarks, so that they are what was measured."""

import re
from collections.abc import Mapping, Sequence


def filled(page: str, tables: Mapping[str, str]) -> str:
    """The page with these tables between `<!-- table: NAME -->` and `<!-- end -->`."""
    return re.sub(
        r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)",
        lambda of: f"{of[1]}{tables[of[2]]}\n{of[3]}",
        page,
        flags=re.DOTALL,
    )


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *lines])
