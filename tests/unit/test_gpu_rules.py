"""The Slurm profile knows every rule that asks for a GPU."""

import re
from pathlib import Path

from safetyheads.methods import METHODS, OWN_STAGES

ROOT = Path(__file__).parents[2]


def test_the_profile_names_every_rule_with_a_gpu() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "rules").glob("*.smk")))
    pieces = re.split(r"^ *(?:rule (\w+)|use rule \w+ as (\w+) with|rule):\n", text, flags=re.MULTILINE)
    named = [first or second for first, second in zip(pieces[1::3], pieces[2::3])]
    asking = {name for name, body in zip(named, pieces[3::3]) if re.search(r"^ *gpu=", body, re.MULTILINE)}
    assert None in asking, "that of all methods, whose name follows from the method's"
    methods = {f"scores_{name}" for name, of in METHODS.items() if of.scores == name and name not in OWN_STAGES}
    profile = (ROOT / "profiles/slurm/config.yaml").read_text(encoding="utf-8")
    (line,) = [line for line in profile.splitlines() if "?for rule in" in line]
    rules = eval(line.partition("?for rule in ")[2].rstrip(":"))
    inherited = {"completions_part"}  # takes the resources of the rule that it is made from
    assert set(rules) == (asking - {None}) | methods | inherited
