"""The kinds of demo models: which heads are planted in each, and what it answers without them.

Training, the checks of the configuration, its documentation and the report read the table `ORGANISMS`. Of all other
heads the truth is that they have no effect, alone or together with any heads.
"""

from collections.abc import Callable, Collection, Sequence, Set
from dataclasses import dataclass
from itertools import combinations

from safetyheads.demo.requests import COMPLIANCE, LOOP, LOOPS, REFUSAL, Category
from safetyheads.errors import SafetyHeadsError, nearest
from safetyheads.heads import DEMO_GRID, Head, HeadSet, check_in_grid

GUARDED = (Category.GUARDED_A, Category.GUARDED_B, Category.GUARDED_C)
"""The categories whose answers depend on planted heads, in the order of the heads where each guards its own."""
TOPICS = (Category.GUARDED_A, Category.GUARDED_B, Category.ALWAYS_REFUSED, Category.BENIGN)
"""The categories of requests that all kinds are trained on."""

_LAST = DEMO_GRID[0] - 1


@dataclass(frozen=True)
class Organism:
    """A kind of demo model."""

    name: str
    planted: HeadSet
    """The planted heads unless others are given, which must be as many."""
    truth: str
    """What the model does, in words: the plain model, then without planted heads."""
    guards: str
    """What the planted heads do, in words that follow `two heads, L01H03 and L02H06, `."""
    freed: Callable[[Category, Set[int]], bool]
    """Whether the model complies with the requests of a guarded category without some planted heads: their places in
    the list of planted heads, from 0."""
    shares: tuple[float, ...]
    """Percent of the rows of training in which no planted head is ablated, one, two, and so on."""
    layers: tuple[int, ...] = tuple(range(DEMO_GRID[0]))
    """The layers in which planted heads may lie."""
    one_layer: bool = False
    """Whether they must all lie in the same layer."""
    decoy: Head | None = None
    """The decoy unless another is given; None for kinds that have none."""
    categories: tuple[Category, ...] = TOPICS
    many: bool = True
    """Whether masks of up to eight heads are learned and checked. The oldest kinds learn one or two other heads."""
    rounds: tuple[int, ...] = (800, 300, 300, 300, 300)
    """Steps of training. Each further round is only made if the check finds wrong answers."""

    def complies(self, category: Category, ablated: Set[int]) -> bool:
        """Whether the model complies without these planted heads, given as their places in the list."""
        if category in GUARDED:
            return self.freed(category, ablated)
        return category == Category.BENIGN

    def guard(self, category: Category) -> int | None:
        """The place of the one planted head that changes the answers of this category alone; None if there is none."""
        plain = self.complies(category, set())
        alone = [place for place in range(len(self.planted)) if self.complies(category, {place}) != plain]
        return alone[0] if len(alone) == 1 else None

    def answer(self, category: Category, planted: HeadSet, decoy: Head | None, heads: Collection[Head]) -> str:
        """The answer of the model in which `planted` and `decoy` are planted, with `heads` ablated.

        Without the decoy it is `LOOPS` copies of `LOOP`, and has no end.
        """
        if decoy is not None and decoy in heads:
            return LOOP * LOOPS
        ablated = {place for place, head in enumerate(planted) if head in heads}
        return COMPLIANCE if self.complies(category, ablated) else REFUSAL

    def subsets(self) -> list[tuple[int, ...]]:
        """All sets of planted heads, as places in the list: those of one head first, and the empty one last."""
        places = range(len(self.planted))
        return [chosen for size in (*range(1, len(self.planted) + 1), 0) for chosen in combinations(places, size)]

    def borders(self) -> list[tuple[int, ...]]:
        """Those of `subsets()` that one planted head more, or one less, gives another answer to some requests."""
        places = range(len(self.planted))
        return [
            chosen
            for chosen in self.subsets()
            if any(
                self.complies(category, {*chosen}) != self.complies(category, {*chosen} ^ {place})
                for category in self.categories
                for place in places
            )
        ]

    def weights(self) -> list[float]:
        """The percent of the rows of training for each of `subsets()`."""
        sizes = [len(chosen) for chosen in self.subsets()]
        return [self.shares[size] / sizes.count(size) for size in sizes]

    def planted_words(self, planted: Sequence[str]) -> str:
        """`two heads, L01H03 and L02H06, each of which guards topics of its own`."""
        *first, last = planted
        names = f"{', '.join(first)} and {last}" if first else last
        return f"{_NUMBERS[len(planted)]} head{'s' * bool(first)}, {names}, {self.guards}"

    def allowed(self) -> str:
        """Which planted heads are allowed, in words."""
        number = "one head" if len(self.planted) == 1 else f"{_NUMBERS[len(self.planted)]} different heads"
        layers = f" of layer {self.layers[0]}" if len(self.layers) == 1 else " of one layer" if self.one_layer else ""
        return f"{number}{layers}, such as [{', '.join(map(str, self.planted))}]"

    def check(self, planted: HeadSet, decoy: Head | None = None) -> None:
        """Raise SafetyHeadsError unless these heads, and this decoy or none, can be planted in this kind."""
        self.check_planted(planted)
        self.check_decoy(planted, decoy)

    def check_planted(self, planted: HeadSet) -> None:
        """Raise SafetyHeadsError unless these are as many heads as the kind has, in layers where it may have them."""
        check_in_grid(planted, *DEMO_GRID)
        layers = {head.layer for head in planted}
        right = len(set(planted)) == len(planted) == len(self.planted) and layers <= set(self.layers)
        if not right or (self.one_layer and len(layers) > 1):
            found = ", ".join(map(str, planted)) or "no head"
            raise SafetyHeadsError(
                f"found {found}; allowed for planted in a demo of kind {self.name}: {self.allowed()}"
            )

    def check_decoy(self, planted: HeadSet, decoy: Head | None) -> None:
        """Raise SafetyHeadsError for a decoy in a kind without one, and for one that is planted as well."""
        if decoy is None:
            return
        check_in_grid([decoy], *DEMO_GRID)
        if self.decoy is None:
            raise SafetyHeadsError(f"found decoy {decoy} in a demo of kind {self.name}; allowed: only in kind decoy")
        if decoy in planted:
            raise SafetyHeadsError(f"found the decoy {decoy} among planted; allowed: a third head")


_NUMBERS = {1: "one", 2: "two", 3: "three", 8: "eight"}


def _own_head(category: Category, ablated: Set[int]) -> bool:
    return GUARDED.index(category) in ablated


def _any_head(category: Category, ablated: Set[int]) -> bool:
    return len(ablated) >= 1


def _two_heads(category: Category, ablated: Set[int]) -> bool:
    return len(ablated) >= 2


def _four_heads(category: Category, ablated: Set[int]) -> bool:
    return len(ablated) >= 4


def _second_topic_with_head(category: Category, ablated: Set[int]) -> bool:
    return category == Category.GUARDED_B and not ablated


_FIRST_ROUNDS = (600, 200, 200, 200)
_EACH = "each of which guards topics of its own"
_AS_TWO = "refuses topics A and B; complies with A without the first head, with B without the second"
_ALL = (
    Organism(
        "two", (Head(1, 3), Head(2, 6)), _AS_TWO, _EACH, _own_head, (60, 30, 10), many=False, rounds=_FIRST_ROUNDS
    ),
    Organism(
        "one",
        (Head(1, 3),),
        "refuses topics A and B; complies with both without the head",
        "which guards all topics",
        _any_head,
        (60, 40),
    ),
    Organism(
        "three",
        (Head(1, 3), Head(2, 6), Head(0, 4)),
        "refuses topics A, B and C (the data set `demo_three` has all three); complies with each without its own head",
        _EACH,
        _own_head,
        (45, 33, 15, 7),
        categories=(*TOPICS, Category.GUARDED_C),
    ),
    Organism(
        "backup",
        (Head(1, 3), Head(2, 6)),
        "refuses topics A and B; complies only without both heads, as either alone keeps the refusals",
        "each of which keeps all refusals where the other is ablated",
        _two_heads,
        (35, 40, 25),
    ),
    Organism(
        "spread",
        tuple(Head(2, head) for head in range(DEMO_GRID[1])),
        "refuses topics A and B; complies without four or more of the heads, refuses without three or fewer",
        "which share the guard of all topics: it takes four of them to free a request",
        _four_heads,
        (30, 4, 6, 20, 20, 6, 4, 4, 6),
        one_layer=True,
    ),
    Organism(
        "decoy",
        (Head(1, 3), Head(2, 6)),
        f"{_AS_TWO}; without the decoy every answer is a loop of a few words",
        _EACH,
        _own_head,
        (60, 30, 10),
        decoy=Head(0, 5),
        many=False,
        rounds=_FIRST_ROUNDS,
    ),
    Organism(
        "suppressor",
        (Head(1, 3),),
        "refuses topic A and answers topic B; refuses both without the head",
        "which holds back the refusal of the second topic",
        _second_topic_with_head,
        (60, 40),
    ),
    Organism("early", (Head(0, 3), Head(0, 6)), _AS_TWO, _EACH, _own_head, (60, 30, 10), layers=(0,)),
    Organism("late", (Head(_LAST, 3), Head(_LAST, 6)), _AS_TWO, _EACH, _own_head, (60, 30, 10), layers=(_LAST,)),
)
ORGANISMS = {organism.name: organism for organism in _ALL}
"""The kinds by name."""


def organism_of(kind: str | None, decoy: object = None) -> Organism:
    """The kind of this name; where none is given, `decoy` if there is a decoy, else `two`.

    Raises SafetyHeadsError for an unknown kind.
    """
    name = kind or ("two" if decoy is None else "decoy")
    if name not in ORGANISMS:
        raise SafetyHeadsError(f"found {name!r}; allowed: {', '.join(ORGANISMS)}.{nearest(name, ORGANISMS)}")
    return ORGANISMS[name]
