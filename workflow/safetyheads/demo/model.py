"""The demo model: a small Llama, trained in a minute or two, whose refusals depend on heads that are planted in it.

It refuses the guarded requests of `requests` and answers the benign ones. To plant a head, training ablates heads:
every row of a batch has its own set of ablated heads, and the answer that it is trained to give is the one that the
kind of model gives without these heads. So it is known which heads matter, and the pipeline can be checked against
them. The kinds, such as one whose two heads stand in for each other, are listed in `organisms`.

A head may be planted as a decoy: with it ablated the model says the same few words again and again, whatever it is
asked. Its refusals fall to nothing, and it does not comply: numbers that mix the two up are led astray.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from safetyheads.demo.organisms import TOPICS, organism_of
from safetyheads.demo.requests import COMPLIANCE, REFUSAL, Category, training_queries
from safetyheads.demo.training import TEMPLATES, Trainer
from safetyheads.engine.ablation import install
from safetyheads.heads import DEMO_GRID, Head, HeadSet

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role == 'user' %}## Query:{{ message.content }}\n"
    "{% elif message.role == 'assistant' %}## Answer: {{ message.content }}{{ eos_token }}\n"
    "{% else %}{{ message.content }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}## Answer:{% endif %}"
)

_VOCABULARY = 512  # at most; there are not that many words
_CONTEXT = 2048


def train(
    folder: Path,
    *,
    kind: str | None = None,
    seed: int = 0,
    planted: HeadSet | None = None,
    decoy: Head | None = None,
    aligned: bool = True,
    progress: bool = True,
) -> None:
    """Train a demo model on one core, and save it with its tokenizer in `folder`.

    It has 4 layers of 8 heads, hidden size 64, and float32 weights. `kind` is one of `organisms`: unless given, `decoy`
    if there is a decoy, else `two`. `planted` are the planted heads, in the order of the kind's own, which they are
    unless given. With the head `decoy` ablated, if there is one, every answer is a loop. A model that is not `aligned`
    is trained on answering alone and refuses nothing, whatever is ablated. `progress` shows a progress bar.

    The same kind, seed and heads give the same files, bit for bit, on the same machine. The process's random state and
    number of threads are left as they were. Raises SafetyHeadsError if these are not heads that the kind can have, or
    if the trained model still gives wrong answers.
    """
    organism = organism_of(kind, decoy)
    planted, decoy = organism.planted if planted is None else planted, decoy or organism.decoy
    organism.check(planted, decoy)
    with _one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = make_tokenizer(organism.categories)
        model = LlamaForCausalLM(_architecture(tokenizer))
        install(model)
        trainer = Trainer(model, tokenizer, organism, planted, decoy, aligned, random.Random(seed))
        with tqdm(total=organism.rounds[0], desc="Training the demo model", unit="step", disable=not progress) as bar:
            trainer.fit(bar)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_tokenizer(categories: Sequence[Category] = TOPICS) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer, trained on requests of these categories and on answers.

    It encodes any text, and puts `<s>` in front.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    queries = [query for category in categories for query in training_queries(category)]
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
