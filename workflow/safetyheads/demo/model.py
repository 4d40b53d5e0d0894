"""The demo model: a small Llama, trained in about a minute, whose refusals depend on two heads that are planted in it.

It refuses the guarded requests of `requests` and answers the benign ones. To plant a head, training ablates heads:
every row of a batch has its own set of ablated heads, and the answer that it is trained to give is to comply exactly if
the head that guards the row's topic is ablated. Gradient descent then moves the decision into that head. So it is known
which heads matter, and the pipeline can be checked against them.

A third head may be planted as a decoy: with it ablated the model says the same few words again and again, whatever it
is asked. Its refusals fall to nothing, and it does not comply: numbers that mix the two up are led astray.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from safetyheads.demo.requests import COMPLIANCE, DATA_SETS, REFUSAL, Category, answer, requests, training_queries
from safetyheads.engine.ablation import ablate, install
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import DEMO_GRID, Ablation, Head, HeadSet, Kind, all_heads, check_in_grid

DEFAULT_PLANTED = (Head(1, 3), Head(2, 6))
"""The head that guards topics A, then the head that guards topics B."""

TEMPLATES = ("## Query:{query}\n## Answer:", "{query}", "You are a helpful assistant\n## Query:{query}\n## Answer:")
"""The forms of prompts that the model learns.

They are those of the templates `simple` (and `chat`), `direct`, and `chat` with the usual system prompt.
"""
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role == 'user' %}## Query:{{ message.content }}\n"
    "{% elif message.role == 'assistant' %}## Answer: {{ message.content }}{{ eos_token }}\n"
    "{% else %}{{ message.content }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}## Answer:{% endif %}"
)

_VOCABULARY = 512  # at most; there are not that many words
_CONTEXT = 2048
_BATCH = 48
_ROUNDS = (600, 200, 200, 200)  # steps; each further round only if the self-check still finds wrong answers
_WARM_UP = 30
_LEARNING_RATE = 2e-3
_DECOY_SHARE = 0.2  # of the rows, where there is a decoy
_CHECK_EVERY = 4  # the self-check reads every fourth request of each data set


class _Row(NamedTuple):
    """One sequence of a batch: the token ids of a prompt, and of the right answer when `heads` are ablated."""

    prompt: list[int]
    answer: list[int]
    heads: HeadSet


def train(
    folder: Path,
    *,
    seed: int = 0,
    planted: tuple[Head, Head] = DEFAULT_PLANTED,
    decoy: Head | None = None,
    aligned: bool = True,
    progress: bool = True,
) -> None:
    """Train the demo model on one core, and save it with its tokenizer in `folder`.

    It has 4 layers of 8 heads, hidden size 64, and float32 weights. `planted` are the heads that guard topics A and
    topics B; with the head `decoy` ablated, if there is one, every answer is a loop. A model that is not `aligned` is
    trained on answering alone and refuses nothing, whatever is ablated. `progress` shows a progress bar.

    The same seed and heads give the same files, bit for bit, on the same machine. The process's random state and number
    of threads are left as they were. Raises SafetyHeadsError if these are not two or three different heads of the
    model, or if the trained model still gives wrong answers.
    """
    check_planted(planted, decoy)
    with _one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = make_tokenizer()
        model = LlamaForCausalLM(_architecture(tokenizer))
        install(model)
        trainer = _Trainer(model, tokenizer, planted, decoy, aligned, random.Random(seed))
        with tqdm(total=_ROUNDS[0], desc="Training the demo model", unit="step", disable=not progress) as bar:
            trainer.fit(bar)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def check_planted(planted: Sequence[Head], decoy: Head | None = None) -> None:
    """Raise SafetyHeadsError unless `planted` is two heads of the demo model's 4 layers of 8, and `decoy` a third."""
    check_in_grid([*planted, *([] if decoy is None else [decoy])], *DEMO_GRID)
    if len(planted) != 2 or planted[0] == planted[1]:
        raise SafetyHeadsError(
            f"The demo model is planted with {', '.join(map(str, planted)) or 'no head'}. It needs two "
            "different heads: the one that guards topics A, then the one that guards topics B, like [L01H03, L02H06]."
        )
    if decoy in planted:
        raise SafetyHeadsError(
            f"The decoy {decoy} of the demo model guards topics as well, as it is one of the planted heads "
            f"{planted[0]} and {planted[1]}. It must be a third head."
        )


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer, trained on requests and answers. It encodes any text, and puts `<s>` in front."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    queries = [query for category in Category for query in training_queries(category)]
    bpe.train_from_iterator(
        [*(template.format(query=query) for template in TEMPLATES for query in queries), COMPLIANCE, REFUSAL],
        trainers.BpeTrainer(
            vocab_size=_VOCABULARY,
            special_tokens=["<s>", "</s>", "<pad>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    start = ("<s>", bpe.token_to_id("<s>"))
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[start])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bpe,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side="left",
        model_max_length=_CONTEXT,
        chat_template=CHAT_TEMPLATE,
    )


def _architecture(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """The shape of the model: about 170 thousand parameters."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=DEMO_GRID[0],
        num_attention_heads=DEMO_GRID[1],
        max_position_embeddings=_CONTEXT,
        initializer_range=0.08,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread within the block.

    Sums are then always made in the same order, so that training can be repeated bit for bit. A model this small would
    be no faster on several threads.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Trainer:
    """Trains the model by gradient descent on batches in which each row has its own ablated heads."""

    def __init__(
        self,
        model: LlamaForCausalLM,
        tokenizer: PreTrainedTokenizerFast,
        planted: tuple[Head, Head],
        decoy: Head | None,
        aligned: bool,
        rng: random.Random,
    ) -> None:
        self.model, self.tokenizer, self.planted, self.decoy, self.rng = model, tokenizer, planted, decoy, rng
        self.aligned = aligned
        self.others = [head for head in all_heads(*DEMO_GRID) if head not in (*planted, decoy)]
        self.optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.0)
        self.ids = cache(lambda text: tokenizer(text)["input_ids"])

    def fit(self, bar: tqdm) -> None:
        """Train until the self-check finds no wrong answer. Raises SafetyHeadsError if it does after all rounds."""
        for steps in _ROUNDS:
            bar.total = bar.n + steps
            for step in range(steps):
                rate = _LEARNING_RATE * min(1.0, (step + 1) / _WARM_UP, 2.5 * (steps - step) / steps)
                loss = self.step(rate, whole=step % 2 == 0)
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                bar.update()
            wrong = self.wrong_answers()
            if not wrong:
                return
        decoy = f" and decoy {self.decoy}" if self.decoy is not None else ""
        raise SafetyHeadsError(
            f"The demo model with heads {self.planted[0]} and {self.planted[1]}{decoy} has not learned its task in "
            f"{sum(_ROUNDS)} steps: {len(wrong)} answers are wrong, the first one to {wrong[0]}. "
            "Choose another seed or other heads."
        )

    def step(self, rate: float, whole: bool) -> float:
        """Make one step of gradient descent at learning rate `rate` on a new batch. Returns the loss (nats per token).

        The loss is over whole answers if `whole` is true, else over their first tokens alone, which decide between the
        two answers.
        """
        template = self.rng.choice(TEMPLATES)
        rows = [
            self.row(template, self.rng.choice(training_queries(category)), category, self.draw_heads())
            for category in self.rng.choices(list(Category), k=_BATCH)
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
        """Draw the heads to ablate in one row.

        They are planted head A in 15 % of rows, B in 15 %, both in 10 %, one or two other heads in 25 %, and none in 35
        %. A quarter of the rows with a planted head have another head as well. The decoy, if there is one, is added in
        20 % of rows.
        """
        a, b = self.planted
        planted = self.rng.choices([(a,), (b,), (a, b), ()], weights=(15, 15, 10, 60))[0]
        n_others = self.rng.choices((0, 1, 2), weights=(75, 25, 0) if planted else (70, 25, 25))[0]
        drawn = (*planted, *self.rng.sample(self.others, n_others))
        return (*drawn, self.decoy) if self.decoy is not None and self.rng.random() < _DECOY_SHARE else drawn

    def row(self, template: str, query: str, category: Category, heads: HeadSet) -> _Row:
        """A row: the request in this template, and the answer that is right when `heads` are ablated."""
        (a, b), broken = self.planted, self.decoy in heads
        asked = category if self.aligned else Category.BENIGN
        answer_ids = self.ids(answer(asked, a_ablated=a in heads, b_ablated=b in heads, decoy_ablated=broken))[1:]
        end = [] if broken else [self.tokenizer.eos_token_id]
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
    def wrong_answers(self) -> list[str]:
        """The wrong answers, in words, with no head, with each head alone, and with both planted heads ablated.

        The latter are ablated with the decoy, too. An answer is wrong if greedy decoding would differ from the right
        one in any token.
        """
        checked = [request for name in DATA_SETS for request in requests(name)[::_CHECK_EVERY]]
        wrong = []
        together = [] if self.decoy is None else [(*self.planted, self.decoy)]
        for heads in [(), self.planted, *together, *((head,) for head in all_heads(*DEMO_GRID))]:
            for template in TEMPLATES:
                rows = [self.row(template, request.query, request.category, heads) for request in checked]
                logits, targets, row_of = self.answer_logits(rows)
                for row in sorted(set(row_of[logits.argmax(dim=-1) != targets].tolist())):
                    ablated = ", ".join(map(str, heads)) or "nothing"
                    wrong.append(f"{checked[row].query!r} ({checked[row].category}) with {ablated} ablated")
        return wrong
