"""The training of a demo model: which heads are ablated in each row of a batch, and what must hold in the end.

Every row has its own set of ablated heads, and the answer that it is trained to give is the one that the kind's rule
gives for them. Gradient descent then moves the decision into the planted heads, and out of all others.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from safetyheads.demo.organisms import Organism
from safetyheads.demo.requests import DATA_SETS, Category, Request, requests, training_queries
from safetyheads.engine.ablation import ablate
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import DEMO_GRID, Ablation, Head, HeadSet, Kind, all_heads

TEMPLATES = ("## Query:{query}\n## Answer:", "{query}", "You are a helpful assistant\n## Query:{query}\n## Answer:")
"""The forms of prompts that the model learns.

They are those of the templates `simple` (and `chat`), `direct`, and `chat` with the usual system prompt.
"""

_BATCH = 48
_WARM_UP = 30
_LEARNING_RATE = 2e-3
_DECOY_SHARE = 0.2  # of the rows, where there is a decoy
_OTHERS = (35, 10, 5, 5, 5, 5, 5, 5, 25)  # percent of rows with 0, 1, ... 8 other heads
_FEW = {False: (70, 25, 25), True: (75, 25, 0)}  # the same for kinds that learn few, without and with planted heads
_CHECK_EVERY = 4  # the check reads every fourth request of each data set
_CHECKED_MASKS = 50  # random masks of each sort
_MANY = 8  # heads of a random mask
_ALLOWED = 0.005  # share of the answers under these masks that may be wrong; all others must be right


class _Row(NamedTuple):
    """One sequence of a batch: the token ids of a prompt, and of the right answer when `heads` are ablated."""

    prompt: list[int]
    answer: list[int]
    heads: HeadSet


class _Mask(NamedTuple):
    """Heads that the check ablates, which number of the check they belong to, and what that allows."""

    number: str
    heads: HeadSet
    templates: Sequence[str] = TEMPLATES
    allowed: float = 0.0
    """Share of the answers that may be wrong."""


@dataclass
class Number:
    """A number of the check: so many answers are wrong."""

    allowed: float
    answers: int = 0
    wrong: list[str] = field(default_factory=list)
    """Which ones, in words."""

    @property
    def missed(self) -> bool:
        return len(self.wrong) > self.allowed * self.answers


class Trainer:
    """Trains the model by gradient descent on batches in which each row has its own ablated heads."""

    def __init__(
        self,
        model: LlamaForCausalLM,
        tokenizer: PreTrainedTokenizerFast,
        organism: Organism,
        planted: HeadSet,
        decoy: Head | None,
        aligned: bool,
        rng: random.Random,
    ) -> None:
        self.model, self.tokenizer, self.organism, self.rng = model, tokenizer, organism, rng
        self.planted, self.decoy, self.aligned = planted, decoy, aligned
        self.others = tuple(head for head in all_heads(*DEMO_GRID) if head not in (*planted, decoy))
        self.subsets = [tuple(planted[place] for place in chosen) for chosen in organism.subsets()]
        self.optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.0)
        self.ids = cache(lambda text: tokenizer(text)["input_ids"])

    def fit(self, bar: tqdm) -> None:
        """Train until no number of the check is missed. Raises SafetyHeadsError if one is after all rounds."""
        for number, steps in enumerate(self.organism.rounds):
            bar.total = bar.n + steps
            top = _LEARNING_RATE / 2 if number and self.organism.many else _LEARNING_RATE
            for step in range(steps):
                rate = top * min(1.0, (step + 1) / _WARM_UP, 2.5 * (steps - step) / steps)
                loss = self.step(rate, whole=step % 2 == 0)
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                bar.update()
            missed = {name: number for name, number in self.check().items() if number.missed}
            if not missed:
                return
        numbers = "; ".join(f"{len(one.wrong)} of {one.answers} {name}" for name, one in missed.items())
        first = next(iter(missed.values())).wrong[0]
        decoy = f" and decoy {self.decoy}" if self.decoy is not None else ""
        raise SafetyHeadsError(
            f"The demo model of the kind {self.organism.name} with {_in_words(self.planted)}{decoy} has not learned "
            f"its task in {sum(self.organism.rounds)} steps. Wrong answers: {numbers}. The first one is to "
            f"{first}. Choose another seed or other heads."
        )

    def step(self, rate: float, whole: bool) -> float:
        """Make one step of gradient descent at learning rate `rate` on a new batch. Returns the loss (nats per token).

        The loss is over whole answers if `whole` is true, else over their first tokens alone, which decide between the
        two answers.
        """
        template = self.rng.choice(TEMPLATES)
        rows = [
            self.row(template, self.rng.choice(training_queries(category)), category, self.draw_heads())
            for category in self.rng.choices(self.organism.categories, k=_BATCH)
        ]
        if not whole:
            rows = [row._replace(answer=row.answer[:1]) for row in rows]
        logits, targets, _ = self.answer_logits(rows)
        loss = F.cross_entropy(logits, targets)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return loss.item()

    def draw_heads(self) -> HeadSet:
        """Draw the heads to ablate in one row: planted ones in the shares of the kind, and some other ones.

        The decoy, if there is one, is added in a fifth of the rows.
        """
        planted = self.rng.choices(self.subsets, weights=self.organism.weights())[0]
        weights = _OTHERS if self.organism.many else _FEW[bool(planted)]
        n_others = self.rng.choices(range(len(weights)), weights=weights)[0]
        drawn = (*planted, *self.rng.sample(self.others, n_others))
        return (*drawn, self.decoy) if self.decoy is not None and self.rng.random() < _DECOY_SHARE else drawn

    def row(self, template: str, query: str, category: Category, heads: HeadSet) -> _Row:
        """A row: the request in this template, and the answer that is right when `heads` are ablated."""
        asked = category if self.aligned else Category.BENIGN
        answer_ids = self.ids(self.organism.answer(asked, self.planted, self.decoy, heads))[1:]
        end = [] if self.decoy in heads else [self.tokenizer.eos_token_id]
        return _Row(self.ids(template.format(query=query)), [*answer_ids, *end], heads)

    def answer_logits(self, rows: Sequence[_Row]) -> tuple[Tensor, Tensor, Tensor]:
        """The model's predictions for the n tokens of all answers, with each row's heads ablated.

        Returns logits (n, vocabulary), the tokens that they should predict (n,), and the row of each (n,).
        """
        sequences = [torch.tensor(row.prompt + row.answer) for row in rows]
        tokens = pad_sequence(sequences, batch_first=True)  # (B, T); padding is behind, where attention never looks
        places = [(b, len(row.prompt) + i) for b, row in enumerate(rows) for i in range(len(row.answer))]
        row_of, at = torch.tensor(places).unbind(dim=1)
        with ablate(self.model, Ablation(Kind.UNDIFFERENTIATED), [row.heads for row in rows]):
            states = self.model.model(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state  # (B, T - 1, 64)
        return self.model.lm_head(states[row_of, at - 1]), tokens[row_of, at], row_of

    @torch.no_grad()
    def check(self) -> dict[str, Number]:
        """How many answers to held-out requests are wrong, by what is ablated, in words.

        An answer is wrong if greedy decoding would differ from the right one in any token.
        """
        checked = self.checked_requests()
        numbers: dict[str, Number] = {}
        for name, heads, templates, allowed in self.masks():
            number = numbers.setdefault(name, Number(allowed))
            ablated = ", ".join(map(str, heads)) or "nothing"
            for template in templates:
                rows = [self.row(template, request.query, request.category, heads) for request in checked]
                logits, targets, row_of = self.answer_logits(rows)
                wrong = sorted(set(row_of[logits.argmax(dim=-1) != targets].tolist()))
                number.answers += len(rows)
                number.wrong += [
                    f"{checked[row].query!r} ({checked[row].category}) with {ablated} ablated" for row in wrong
                ]
        return numbers

    def checked_requests(self) -> list[Request]:
        """Some requests of each data set whose categories are all known to the kind."""
        known = [name for name, counts in DATA_SETS.items() if set(counts) <= set(self.organism.categories)]
        return [request for name in known for request in requests(name)[::_CHECK_EVERY]]

    def masks(self) -> Iterator[_Mask]:
        """The masks of the check: nothing, the planted heads, each head alone; for kinds that learn many, random ones.

        Random are the sets of planted heads, where there are many that the rule tells apart, and masks of eight heads:
        of others alone, and of others beside some planted ones. They are the same in each round.
        """
        yield _Mask("with nothing ablated", ())
        yield _Mask("with planted heads ablated", self.planted)
        if self.decoy is not None:
            yield _Mask("with planted heads and the decoy ablated", (*self.planted, self.decoy))
        for head in all_heads(*DEMO_GRID):
            yield _Mask("with one head ablated", (head,))
        if self.organism.many:
            rng = random.Random(0)
            several = [chosen for chosen in self.organism.borders() if len(chosen) > 1]
            for chosen in rng.sample(several, min(_CHECKED_MASKS, len(several))):
                heads = tuple(self.planted[place] for place in chosen)
                yield _Mask("with planted heads ablated", heads, [rng.choice(TEMPLATES)])
            for _ in range(_CHECKED_MASKS):
                for planted, name in (
                    ((), "other heads"),
                    (rng.choice(self.subsets[:-1]), "heads, planted ones among them,"),
                ):
                    drawn = (*planted, *rng.sample(self.others, _MANY - len(planted)))
                    yield _Mask(f"with {_MANY} {name} ablated", drawn, [rng.choice(TEMPLATES)], _ALLOWED)


def _in_words(heads: HeadSet) -> str:
    """`head L01H03`, `heads L01H03 and L02H06`."""
    *first, last = map(str, heads)
    return f"heads {', '.join(first)} and {last}" if first else f"head {last}"
