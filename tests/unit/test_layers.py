"""Configuration files on top of one another, and --config on top of them: what is read, merged, told and refused."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from snakemake.utils import update_config

from safetyheads.config.layers import check_file, check_options_once, merge, put_together, read_words
from safetyheads.errors import SafetyHeadsError

ROOT = Path(__file__).parents[2]

WORD = st.text(st.characters(max_codepoint=0x7FF, exclude_characters="'`$:"), max_size=8)
VALUES = st.recursive(
    st.integers() | WORD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORD, inner, min_size=1, max_size=3),
)
MAPPINGS = st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3)


@given(section=st.dictionaries(WORD, VALUES))
def test_a_value_of_the_command_line_is_what_a_file_would_hold(section: dict[str, Any]) -> None:
    assert read_words([f"compute={json.dumps(section)}"]) == {"compute": section}


def test_numbers_in_a_value_of_the_command_line_are_numbers() -> None:
    words = ["compute={token_budget: 512, mixed: true}", "models={big: {max_memory: {0: 20GiB}}}"]
    assert read_words(words) == {
        "compute": {"token_budget": 512, "mixed": True},
        "models": {"big": {"max_memory": {0: "20GiB"}}},
    }


@pytest.mark.parametrize("folder", ["out", "2024", "1e3", "a: b", "/x/[1]", "%x", "no"])
def test_the_folder_of_results_is_taken_as_it_stands(folder: str) -> None:
    assert read_words([f"results={folder}"]) == {"results": folder}


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("compute={token_budget:512}", ["'token_budget:512'", "a space after each colon"]),
        ("compute={token_budget: 512", ["not YAML", "in single quotes", "--config 'compute={token_budget: 512}'"]),
        ("compute={shards: 1, shards: 2}", ["--config compute: found the key 'shards' 2 times"]),
        ("decodings={x: {seed: 010}}", ["found 010", "the number 8", "allowed: 8, or text, in quotes: '010'"]),
        ('templates={x: {text: "It\'s {query}"}}', ["both kinds of quotes", "--configfile my-study.yaml more.yaml"]),
        ("report={title: `id`}", ["backtick"]),
        ("report={title: $(id)}", ["`$(`"]),
    ],
)
def test_a_word_that_cannot_be_meant_is_told_with_what_to_write(word: str, said: list[str]) -> None:
    with pytest.raises(SafetyHeadsError) as error:
        read_words([word])
    assert [words for words in said if words not in str(error.value)] == []


@given(first=MAPPINGS, second=MAPPINGS)
def test_files_are_merged_as_snakemake_merges_them(first: dict[str, Any], second: dict[str, Any]) -> None:
    """A later file changes what it names, also within sections; lists are replaced. The layers stay as they are."""
    expected, before = deepcopy(first), deepcopy((first, second))
    update_config(expected, deepcopy(second))
    assert put_together([("a.yaml", first), ("b.yaml", second)])[0] == expected
    assert (first, second) == before


@given(first=MAPPINGS, second=MAPPINGS)
def test_every_value_that_a_layer_changes_is_told_and_no_other(first: dict[str, Any], second: dict[str, Any]) -> None:
    values, told = put_together([("a.yaml", first), ("b.yaml", second)])
    assert bool(told) >= any(
        isinstance(value, int | str | list) and value != first.get(key) for key, value in second.items()
    )
    assert merge(values, second) == []
    assert all(line.startswith("b.yaml sets ") for line in told)


def test_a_change_is_told_with_both_values() -> None:
    layers = [("a.yaml", {"compute": {"shards": 1, "threads": 2}}), ("--config", {"compute": {"shards": 4}})]
    values, told = put_together(layers)
    assert values == {"compute": {"shards": 4, "threads": 2}}
    assert told == ["--config sets compute.shards: 4 (was: 1)"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--configfile", "a.yaml", "--configfile", "b.yaml"],
        ["--configfile=a.yaml", "--configfiles", "b.yaml"],
        ["--config", "a=1", "-n", "--config", "b=2"],
        ["--config", "a=1", "-Cb=2"],
    ],
)
def test_an_option_given_twice_is_refused_because_its_first_values_would_be_lost(arguments: list[str]) -> None:
    with pytest.raises(SafetyHeadsError, match="found 2 times.*Write all behind it"):
        check_options_once(arguments)


@pytest.mark.parametrize(
    "arguments", [[], ["--configfile", "a.yaml", "b.yaml", "--config", "x={a: 1}", "yy=2"], ["--cores", "1", "-n"]]
)
def test_options_given_once_pass(arguments: list[str]) -> None:
    check_options_once(arguments)


MISREAD = [
    (
        "models:\n  no: {path: x}\n",
        "line 2: found no, which YAML reads as a truth value; allowed: text, in quotes: 'no'",
    ),
    ("models:\n  ~: {path: x}\n", "line 2: found ~, which YAML reads as no value"),
    ("datasets:\n  2024-05-01: {path: x}\n", "line 2: found 2024-05-01, which YAML reads as a date"),
    ("judges:\n  x:\n    list:\n      - No\n", "line 4: found No, which YAML reads as a truth value"),
    ("head_sets: {x: [null]}\n", "line 1: found null, which YAML reads as no value"),
    ("studies: {x: {models: [12:30]}}\n", "found 12:30, which YAML reads as the number 750"),
    ("compute: {token_budget: 0777}\n", "found 0777, which YAML reads as the number 511; allowed: 511, or text"),
    ("models: {x: {revision: 2024-05-01}}\n", "found 2024-05-01, which YAML reads as a date"),
    ("models: {x: {}}\nmodels: {}\n", "line 1: found the key 'models' 2 times"),
]


@pytest.mark.parametrize(("text", "said"), MISREAD)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_what_yaml_reads_as_something_else_is_told_with_its_line(
    text: str, said: str, encoding: str, tmp_path: Path
) -> None:
    (tmp_path / "study.yaml").write_text(text, encoding=encoding)
    with pytest.raises(SafetyHeadsError) as error:
        check_file(tmp_path / "study.yaml")
    assert str(error.value).startswith(f"{tmp_path / 'study.yaml'}, line ")
    assert said in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "models: &m {x: {seed: 0}}\nother: *m\n",
        "a: {mixed: yes, b: 1_000, c: 0x10, d: 1.5, e: '010', f: 0, g: -5}\n",
        '{"a": [1,\n\t2]}',
    ],
)
def test_what_is_plain_passes(text: str, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(text)
    check_file(tmp_path / "study.yaml")


@pytest.mark.parametrize(
    "file", ["config.yaml", "all-experiments.yaml", "methods.yaml", "organisms.yaml", "paper.yaml"]
)
def test_the_configurations_of_this_repository_pass(file: str) -> None:
    check_file(ROOT / "config" / file)
