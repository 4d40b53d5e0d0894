"""The study that the tests run."""

from project import Settings, small_study

SHIPS, SAHARA = (f"{stage}/tiny/neutral/plainly/undifferentiated" for stage in ("ships", "sahara"))
MINE = "completions/tiny/neutral/plainly/undifferentiated/mine/short"
TARGETS = [f"results/{artefact}.parquet" for artefact in ("rates", SHIPS, SAHARA)]


def settings() -> Settings:
    """All stages, in batches of one row: there are many, so that a job is often in the middle."""
    study = small_study()
    study["decodings"]["short"] = {"top_k": 5, "samples": 4, "max_new_tokens": 8}
    study["compute"] = {"token_budget": 1}
    study["studies"]["main"] |= {"judges": ["paper"], "plans": ["mine"]}
    return study
