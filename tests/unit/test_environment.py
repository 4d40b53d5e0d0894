"""What is installed is said in three places, which agree: ranges in pyproject.toml, what is tested in
envs/constraints.txt, and the same for the conda environment of the jobs."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import safetyheads

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RANGES = [
    requirement
    for requirement in map(
        Requirement,
        (*PROJECT["dependencies"], *(entry for more in PROJECT["optional-dependencies"].values() for entry in more)),
    )
    if requirement.name != PROJECT["name"]
]


def pins(lines: list[str]) -> dict[str, Version]:
    """The version that each line pins its package to."""
    found = {}
    for line in lines:
        name, version = re.fullmatch(r"([\w.-]+)==([\w.!]+)", line).groups()
        found[canonicalize_name(name)] = Version(version)
    return found


CONSTRAINTS = pins(
    [line for line in (ROOT / "envs" / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
)


@pytest.mark.parametrize("requirement", RANGES, ids=str)
def test_what_is_tested_lies_in_the_range_of_pyproject(requirement):
    assert CONSTRAINTS[canonicalize_name(requirement.name)] in requirement.specifier


@pytest.mark.parametrize("requirement", [*map(Requirement, PROJECT["dependencies"])], ids=str)
def test_a_dependency_may_be_newer_than_what_is_tested_but_not_the_next_major_version(requirement):
    lowest, highest = sorted(requirement.specifier, key=lambda bound: bound.operator, reverse=True)
    assert (lowest.operator, highest.operator) == (">=", "<")
    tested = CONSTRAINTS[canonicalize_name(requirement.name)]
    assert Version(highest.version) == Version(str(tested.major + 1))


def test_the_conda_environment_pins_what_is_tested():
    environment = yaml.safe_load((ROOT / "envs" / "safetyheads.yaml").read_text())
    (packages,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    direct = {canonicalize_name(Requirement(entry).name) for entry in PROJECT["dependencies"]}
    assert pins(packages) == {name: CONSTRAINTS[name] for name in direct}
    oldest = PROJECT["requires-python"].removeprefix(">=")
    assert f"python={oldest}" in environment["dependencies"]


def test_the_library_the_project_and_its_citation_have_one_version_and_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {safetyheads.__version__, PROJECT["version"], citation["version"]} == {PROJECT["version"]}
    assert PROJECT["license"] == citation["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")


def test_the_changelog_has_this_version_and_room_for_the_next():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    sections = re.findall(r"^## \[(.+?)\]", changelog, re.M)
    assert sections[:2] == ["Unreleased", PROJECT["version"]]


def test_the_snakemake_in_the_snakefile_is_the_lowest_that_pyproject_allows():
    (named,) = re.findall(r'min_version\("(.+?)"\)', (ROOT / "Snakefile").read_text())
    assert f"snakemake>={named},<10" in PROJECT["dependencies"]


def test_every_command_that_installs_the_project_takes_what_is_tested():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    commands = [line for page in pages for line in page.read_text().splitlines() if "pip install -e" in line]
    assert len(commands) == 7
    assert all("envs/constraints.txt" in command for command in commands), commands


def test_the_first_two_blocks_of_the_readme_run_the_demo_and_the_tests():
    """`.ci/run` takes the second of them as it stands."""
    blocks = re.findall(r"^```\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    assert blocks[0] == "pip install -e . -c envs/constraints.txt && snakemake --cores 1\n"
    assert blocks[1] == "pip install -e '.[test]' -c envs/constraints.txt && pytest\n"
