"""SafetyHeads: which attention heads carry a model's refusals, and how fragile is that?

>>> import safetyheads as sh
>>> with sh.ablated(model, ["L02H26"]):
...     model.generate(...)

`ablated`, `ships`, `sahara`, `judge`, `degenerate`, `Head` and `SafetyHeadsError` are for use from Python, with models
that are already in memory. Each is imported when it is first used, so that `import safetyheads` alone imports neither
torch nor pandas.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safetyheads.attribution.from_queries import sahara, ships
    from safetyheads.engine.ablated import ablated
    from safetyheads.errors import SafetyHeadsError
    from safetyheads.heads import Head
    from safetyheads.judges.declared import judge
    from safetyheads.judges.degenerate import degenerate

__version__ = "0.1.0"
__all__ = ["Head", "SafetyHeadsError", "ablated", "degenerate", "judge", "sahara", "ships"]

_HOMES = {
    "Head": "heads",
    "SafetyHeadsError": "errors",
    "ablated": "engine.ablated",
    "degenerate": "judges.degenerate",
    "judge": "judges.declared",
    "sahara": "attribution.from_queries",
    "ships": "attribution.from_queries",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
