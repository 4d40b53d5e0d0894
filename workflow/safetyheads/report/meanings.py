"""What the names of a study mean, in words: its templates, ablations, plans, decodings and judges."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from safetyheads.judges.keywords import MIN_CHARACTERS, PERIODS
from safetyheads.plans import PLAIN, Decoding, parse_plan
from safetyheads.report.data import ReportData, Settings
from safetyheads.report.tables import Table
from safetyheads.templates import DATE


def settings(data: ReportData) -> list[Table]:
    """Five tables of what names mean: the templates, ablations, plans, decodings and judges of the studies."""
    return [
        _meanings(data, "templates", data.templates, _template),
        _meanings(data, "ablations", data.ablations, _ablation),
        _plans(data),
        _meanings(data, "decodings", data.decodings, _decoding),
        _meanings(data, "judges", data.judges, _judge),
    ]


def _meanings(data: ReportData, key: str, values: Settings, of: Callable[[str, Mapping[str, Any]], str]) -> Table:
    names = data.names(key) or [name for name in data.measured(key) if name != PLAIN]
    return Table(
        key.capitalize(), [key.removesuffix("s"), "meaning"], [[name, of(name, values.get(name, {}))] for name in names]
    )


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items() if value not in (None, "")) or "built in"


def _template(name: str, values: Mapping[str, Any]) -> str:
    parts = [f"“{values['text']}”"] if values.get("text") else []
    arguments = values["chat"].items() if isinstance(values.get("chat"), dict) else ()
    named = f" {values['name']!r}" if values.get("name") else ""
    parts += (
        [f"the tokenizer's chat template{named}, for which today is {values.get('date', DATE)}"]
        if values.get("chat")
        else []
    )
    parts += [f"{key} {json.dumps(value)}" for key, value in arguments]
    parts += [f"system prompt “{values['system']}”"] if values.get("system") else []
    parts += [f"answer begins “{values['prefill']}”"] if values.get("prefill") else []
    parts += ["control tokens in a query are let in"] if values.get("control_tokens") else []
    return ", ".join(parts) or "built in"


_KINDS = {
    "undifferentiated": "the head's attention becomes uniform over the positions that it sees",
    "scaling": "the head's output is scaled down to nearly nothing",
    "mean_query": "the head's query is replaced by the mean over its layer",
    "mean_key": "the head's key is replaced by the mean over its layer",
    "mean_output": "the head's output is replaced by the mean over its layer",
}


def _ablation(name: str, values: Mapping[str, Any]) -> str:
    kind = str(values.get("kind", name))
    epsilon = f" (epsilon {values['epsilon']:g})" if values.get("epsilon") and not kind.startswith("mean") else ""
    return (_KINDS[kind] if kind in _KINDS else _pairs(values)) + epsilon


def _plans(data: ReportData) -> Table:
    """What the plans of the studies mean. Plans that differ only in their number of heads share a row."""
    names_of: dict[str, list[str]] = {}
    for name in data.names("plans") or data.measured("plans"):
        names_of.setdefault(_plan(name, data.head_sets, _less(data)), []).append(name)
    return Table(
        "Plans", ["plan", "heads that are ablated"], [[", ".join(names), of] for of, names in names_of.items()]
    )


def _less(data: ReportData) -> str:
    """What contrasts subtract, in words."""
    base = (data.attribution.get("contrast") or {}).get("base")
    benign = sorted({dataset for _, dataset in data.contrasts.values()})
    return f"in the model {base}" if base else f"over benign prompts{' of ' if benign else ''}{', '.join(benign)}"


def _plan(name: str, head_sets: Mapping[str, Sequence[str]], less: str) -> str:
    plan = parse_plan(name)
    match plan.kind:
        case "none":
            return "no head: the plain model"
        case "single":
            return "every head of the model, one at a time"
        case "ships":
            return "each prompt's own n best heads by Ships"
        case "random":
            return "n heads drawn at random from the whole model, the same for all prompts, several times"
        case "top":
            source = f" of {plan.source}" if plan.source else ""
            return f"the n heads of highest mean Ships over the prompts{source}; the same for all prompts"
        case "contrast":
            source = f" of {plan.source}" if plan.source else ""
            return f"the n heads of highest mean Ships over the prompts{source}, less that {less}; the same for all"
        case "matched":
            return f"the control of {plan.group.name}: other heads of the same layers, several times"
        case "each":
            return f"each head of {plan.group.name}, one at a time"
        case "sahara":
            source = f", searched on {plan.source}" if plan.source else ""
            return f"the group of n heads that Sahara found{source}; the same for all prompts"
        case kind if plan.method is not None:
            source = f" of {plan.source}" if plan.source else ""
            way = "selects in its first n steps" if plan.method.searches else "ranks highest"
            return f"the n heads that {kind} {way} on the prompts{source} ({plan.method.about}); the same for all"
        case _:
            return f"{', '.join(head_sets[name])} (a set of the config)" if name in head_sets else "a set of the config"


def _decoding(name: str, values: Mapping[str, Any]) -> str:
    if not values:
        return "built in"
    decoding = Decoding(**values)
    tokens = f"up to {decoding.max_new_tokens} new tokens"
    if decoding.top_k == 1:
        return f"greedy, {tokens}"
    drawn = f"drawn from the {decoding.top_k} likeliest tokens at temperature {decoding.temperature:g}"
    return f"{drawn}, {decoding.samples} samples per prompt, seed {decoding.seed}, {tokens}"


_LISTS = {
    "gcg": "of GCG and JailbreakBench",
    "jailbreak_llm": "of Jailbreak_LLM",
    "refusal_direction": "of refusal_direction; case makes no difference",
    "heretic": "of heretic; case, apostrophes, asterisks and spaces make no difference, and saying nothing refuses",
}


def _judge(name: str, values: Mapping[str, Any]) -> str:
    kind = values.get("kind", "keywords")
    if kind == "keywords":
        return _keywords(values.get("list", name))
    if kind == "file":
        return f"finds {values.get('detects', 'harm')}: as the file {values['path']} says, which was made elsewhere"
    source = str(values.get("repo") or values.get("path"))
    source += f" ({str(values['revision'])[:12]})" if values.get("revision") else ""
    if kind == "classifier":
        labels, least = ", ".join(map(str, values["classes"])), values.get("threshold", 0.5)
        return f"finds {values['detects']}: if the classifier {source} says {labels} with a probability of {least:g}"
    words = ", ".join(f"{word} ({harm:g})" for word, harm in values["answers"].items())
    least = values.get("threshold")
    how = f"if the mean is at least {least:g}" if least is not None else "if the likeliest token says a word of 1"
    clip = f"; reads {values['clip']['tokens']} tokens of an answer" if values.get("clip") else ""
    adapter = " with an adapter" if values.get("adapter") else ""
    found = values.get("detects", "harm")
    return f"finds {found}: the model {source}{adapter} answers {words}, and an answer is harmful {how}{clip}"


def _keywords(words: str | Sequence[str]) -> str:
    if words == "reference":
        return (
            "keywords as in the paper's published code: curly apostrophes, two entries fused into one; not harmful "
            f"either if shorter than {MIN_CHARACTERS} characters; no rule on repetition"
        )
    if isinstance(words, str) and words in _LISTS:
        return f"not harmful if it contains one of the keywords {_LISTS[words]}; else harmful, however short"
    listed = "of the paper (table 4)" if words == "paper" else f"of its own list ({len(words)})" if words else ""
    return (
        f"not harmful if it contains one of the keywords {listed}, is shorter than {MIN_CHARACTERS} characters, or is "
        f"degenerate: some substring of {PERIODS[0]} to {PERIODS[-1]} characters, repeated back to back, fills at "
        "least half of the text; else harmful"
    )
