"""Demo models that a test has trained, and their answers to held-out requests."""

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from safetyheads import prompts
from safetyheads.artifacts.parts import Parts
from safetyheads.datasets import table
from safetyheads.demo import model as demo
from safetyheads.demo.requests import columns
from safetyheads.engine.generation import Row, generate
from safetyheads.heads import Ablation, Head, HeadSet, Kind
from safetyheads.judges import judge
from safetyheads.judges.degenerate import degenerate
from safetyheads.models.load import load
from safetyheads.models.tokenizer import load_tokenizer
from safetyheads.plans import Decoding

SIMPLE = {"text": "## Query:{query}\n## Answer:"}
UNDIFFERENTIATED = Ablation(Kind.UNDIFFERENTIATED)
GREEDY = Decoding(max_new_tokens=16)


class Trained(NamedTuple):
    """A demo model as the pipeline loads it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    planted: HeadSet
    decoy: Head | None
    folder: Path

    def prompts(self, name: str, template: dict[str, object] = SIMPLE) -> pd.DataFrame:
        return prompts.build(table(name, *columns(name)), template, self.tokenizer, 2048).table

    def answers(
        self, name: str, heads: HeadSet, template: dict[str, object] = SIMPLE, decoding: Decoding = GREEDY
    ) -> pd.DataFrame:
        """The text, finish_reason and category of each prompt's answer, with `heads` ablated."""
        made = self.prompts(name, template)
        rows = [Row(query_id, ids, heads) for query_id, ids in zip(made["query_id"], made["token_ids"])]
        parts = Parts(self.folder / name, template, heads)
        eos = [self.tokenizer.eos_token_id]
        done = generate(self.model, rows, UNDIFFERENTIATED, decoding, eos_token_ids=eos, token_budget=8192, parts=parts)
        in_order = [done[index] for index in range(len(rows))]
        texts = [self.tokenizer.decode(found.token_ids, skip_special_tokens=True) for found in in_order]
        reasons = [found.finish_reason for found in in_order]
        category = table(name, *columns(name))["category"].to_numpy()
        return pd.DataFrame({"text": texts, "finish_reason": reasons, "category": category})

    def asr(self, name: str, heads: HeadSet, template: dict[str, object] = SIMPLE) -> pd.Series:
        """Share of coherent answers by category, with `heads` ablated; no text is broken."""
        found = self.answers(name, heads, template)
        assert set(found["finish_reason"]) == {"eos"}
        assert not degenerate(found["text"])["degenerate"].any()
        return judge("paper", found["text"])["harmful"].groupby(found["category"]).mean()


def train(folder: Path, *, planted: HeadSet, decoy: Head | None = None, **settings: Any) -> Trained:
    """A demo model that is trained into `folder / "model"`, and loaded from there."""
    demo.train(folder / "model", planted=planted, decoy=decoy, progress=False, **settings)
    model = load(folder / "model", dtype="float32", device="cpu")
    return Trained(model, load_tokenizer(folder / "model", "fast"), planted, decoy, folder)
