"""Hints: values that are allowed but hardly meant are told, and messages about wrong ones say what to write."""

from pathlib import Path
from typing import Any

import pytest

from safetyheads.config.hints import hints, path_hint, place_hint
from safetyheads.config.load import load_config
from safetyheads.errors import SafetyHeadsError

STUDY = {
    "models": ["phi-3-mini"],
    "datasets": ["advbench"],
    "templates": ["simple"],
    "ablations": ["scaling"],
    "plans": ["none"],
    "decodings": ["greedy"],
    "judges": ["paper"],
}


def told(section: str, name: str, entry: dict[str, Any]) -> list[str]:
    values = {section: {name: entry}, "studies": {"main": STUDY}}
    return hints(values, load_config(values))


@pytest.mark.parametrize(
    ("section", "entry", "said"),
    [
        ("templates", {"text": r"Query: {query}\nAnswer:"}, r"templates.mine.text: found \n, a backslash"),
        ("templates", {"text": r"{query}\tA"}, r"found \t"),
        ("templates", {"text": "{query}", "prefill": r"Sure\u0021"}, r"templates.mine.prefill: found \u0021"),
        ("templates", {"chat": True, "system": r"Be kind.\n"}, r"templates.mine.system: found \n"),
        ("models", {"repo": "a/b", "chat_template": r"{{ messages[0]['content'] + '\n' }}\n"}, "chat_template: found"),
        ("judges", {"kind": "keywords", "list": [r"I can\u2019t"]}, r"judges.mine.list[0]: found \u2019"),
        ("templates", {"text": "Q: {{query}}"}, "puts braces around each query"),
        ("templates", {"text": "{instruction}\n{query}"}, "found {instruction}, which stays as it is"),
        (
            "templates",
            {"text": "{query}", "prefill": "To {query}:"},
            "prefill: found {query}, which stays as it is here",
        ),
    ],
)
def test_text_that_is_hardly_meant_is_told(section: str, entry: dict[str, Any], said: str) -> None:
    (line,) = told(section, "mine", entry)
    assert line.startswith("Is this meant? ")
    assert said in line


@pytest.mark.parametrize(
    ("section", "entry"),
    [
        ("templates", {"text": "Q:\t{query}\nA:"}),
        ("templates", {"text": r"Show \textbf{x} = \rho for {query}"}),
        ("templates", {"text": 'Answer in JSON, such as {"a": 1}: {query}'}),
        ("models", {"repo": "a/b", "chat_template": r"{%- if x == '\n' %}{{ '\n' + messages }}{% endif %}"}),
        ("templates", {"chat": True, "system": "Be {kind."}),
    ],
)
def test_text_that_is_meant_is_not(section: str, entry: dict[str, Any]) -> None:
    assert told(section, "mine", entry) == []


def test_a_declaration_that_a_slip_keeps_from_being_used_is_told() -> None:
    (line,) = told("templates", "simpel", {"text": "{query}"})
    assert "templates.simpel: no study uses it; one uses 'simple'" in line
    assert told("templates", "simple", {"text": "{query}"}) == []
    assert told("templates", "simple2", {"text": "{query}"}) == []
    assert told("templates", "other", {"text": "{query}"}) == []


@pytest.mark.parametrize(
    "place",
    ["{prompt}", "{instruction}", "{input}", "{{ query }}", "{}", "{0}", "%s", "[QUERY]", "$query", "{query!r}"],
)
def test_a_template_without_the_query_says_what_looks_like_its_place(place: str) -> None:
    assert place_hint(f"Question: {place} Answer:") == f". Write {{query}} in place of {place}"
    with pytest.raises(SafetyHeadsError) as error:
        load_config({"templates": {"mine": {"text": f"Question: {place}"}}, "studies": {"main": STUDY}})
    assert f"in place of {place}" in str(error.value)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("$SCRATCH/run1", "write the path itself: /scratch/me/run1"),
        ("${SCRATCH}/run1", "write the path itself: /scratch/me/run1"),
        ("$NOWHERE/run1", "Variables and ~ are not filled in"),
        ("~/run1", "write the path itself: /home/me/run1"),
        ("%SCRATCH%/run1", "Variables and ~"),
        (r"C:\runs\one", "under WSL it is /mnt/c/runs/one"),
        ("C:/runs", "under WSL it is /mnt/c/runs"),
        (r"runs\one", "separated by /: runs/one"),
        ("runs\new", "control character"),
        ("run1 ", "ends with a space"),
        ("/scratch/me/run-1_b.c/ü x", ""),
    ],
)
def test_a_path_that_only_a_shell_or_windows_understands_is_explained(
    path: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("NOWHERE", raising=False)
    assert said in path_hint(path)
    assert bool(path_hint(path)) == bool(said)
    values = {"results": path, "datasets": {"advbench": {"path": path, "format": "text"}}, "studies": {"main": STUDY}}
    with pytest.raises(SafetyHeadsError) as error:
        load_config(values)
    assert str(error.value).count(said) >= (2 if said else 1)


@pytest.mark.parametrize("path", ["a{b}.csv", "{query}.csv", "a}.csv"])
def test_braces_in_a_path_are_refused_before_snakemake_takes_them_for_wildcards(path: str, tmp_path: Path) -> None:
    (tmp_path / path).write_text("input\nHello\n")
    values = {"datasets": {"advbench": {"path": path, "query": "input"}}, "studies": {"main": STUDY}}
    with pytest.raises(SafetyHeadsError, match="datasets.advbench.path: found .* without '{' and '}'"):
        load_config(values, tmp_path)


@pytest.mark.parametrize(
    ("section", "entries", "said"),
    [
        ("templates", {"Simple": {"text": "{query}"}}, "templates.Simple: found a name that differs from the built-in"),
        ("templates", {"a": {"chat": True}, "A": {"chat": True}}, "differs from the name 'a' by upper and lower case"),
        ("models", {"Phi-3-Mini": {"repo": "a/b"}}, "or phi-3-mini, to override it"),
        ("ablations", {"Plain": {"kind": "scaling"}}, "found 'Plain'; allowed: another name"),
        ("head_sets", {"Single": ["L00H00"]}, "found 'Single'; allowed: a name that is not a built-in plan"),
        ("head_sets", {"NONE": ["L00H00"]}, "found 'NONE'"),
        ("head_sets", {"a": ["L00H00"], "A": ["L00H00"]}, "head_sets.A: found a name that differs"),
    ],
)
def test_names_that_differ_by_case_alone_are_refused(section: str, entries: dict[str, Any], said: str) -> None:
    with pytest.raises(SafetyHeadsError) as error:
        load_config({section: entries, "studies": {"main": STUDY}})
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("section", "entry", "said"),
    [
        ("compute", {"token_budget": "1e4"}, "found '1e4' (text); allowed: a whole number. Write 10000"),
        ("compute", {"token_budget": 8192.0}, "allowed: a whole number. Write 8192"),
        ("compute", {"mixed": "yes"}, "found 'yes' (text); allowed: true or false. Write true, without quotes"),
        ("models", {"mine": {"repo": "a/b", "dtype": False}}, "YAML reads this as a truth value: put it in quotes"),
        ("models", {None: {"repo": "a/b"}}, "found the name None (no value); allowed: text"),
        ("judges", {"mine": {"kind": "keywords", "list": [False]}}, "YAML reads False, no text: quote it"),
    ],
)
def test_a_value_that_yaml_reads_in_its_own_way_is_told_with_what_to_write(section: str, entry: Any, said: str) -> None:
    with pytest.raises(SafetyHeadsError) as error:
        load_config({section: entry, "studies": {"main": STUDY}})
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("changes", "attribution", "expected"),
    [
        ({"plans": ["sahara-1"]}, {}, "sahara-1. With steps: 1 the search takes 1/3 of the time."),
        ({"plans": ["sahara-1", "sahara-2@jailbreakbench"]}, {"rank": 2}, "With steps: 2 the search takes 2/3"),
        ({"plans": ["sahara-1"]}, {"steps": 3}, None),
        ({"plans": ["sahara-3"]}, {}, None),
        ({"plans": ["ships-1"]}, {}, None),
        ({"plans": ["sahara-1"], "models": ["demo"]}, {}, None),
    ],
)
def test_steps_of_sahara_that_no_plan_uses_are_told(
    changes: dict[str, Any], attribution: dict[str, Any], expected: str | None
) -> None:
    values = {"studies": {"main": STUDY | changes}, "models": {"demo": {"demo": True}}, "attribution": attribution}
    found = [line for line in hints(values, load_config(values)) if "attribution.steps" in line]
    assert len(found) == (expected is not None)
    assert expected is None or expected in found[0]


def test_a_plan_that_is_measured_nowhere_is_told() -> None:
    values = {"studies": {"main": STUDY | {"datasets": ["alpaca"], "plans": ["none", "top-2", "top-2@advbench"]}}}
    (line,) = hints(values, load_config(values))
    assert line.startswith("Is this meant? studies.main.plans[1]: top-2 is not measured")
    values["studies"]["main"]["datasets"].append("advbench")
    assert hints(values, load_config(values)) == []


BENIGN = {"url": "https://example.org/a.csv", "query": "q", "benign": True}


@pytest.mark.parametrize(
    ("plans", "names", "attribution", "said"),
    [
        (["ships-1"], ["one", "two"], {}, "there are several benign data sets (one, two) and none is chosen"),
        (["ships-1"], ["one", "two"], {"benign": "two"}, None),
        (["ships-1"], ["one"], {}, None),
        (["none"], ["one", "two"], {}, None),
        (["top-1"], ["one"], {"benign": "advbench"}, "advbench is not marked `benign: true`"),
    ],
)
def test_benign_queries_that_signs_would_go_by_are_asked_for(
    plans: list[str], names: list[str], attribution: dict[str, Any], said: str | None
) -> None:
    values = {"datasets": dict.fromkeys(names, BENIGN), "studies": {"main": {**STUDY, "plans": plans}}}
    values["attribution"] = attribution
    found = [line for line in hints(values, load_config(values)) if "attribution.benign" in line]
    assert (said is None) == (found == []) and (said or "") in "".join(found)
