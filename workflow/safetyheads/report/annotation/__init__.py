"""The sample of answers that people label, as a CSV file and as a page that does the same by keys.

Both are blind: they say neither model nor heads, judge nor outcome, and the condition is sealed. The page holds answers
to harmful requests, so it is made on request alone. It loads nothing and sends nothing: its content policy allows its
own script and style, by their sums, and forbids all connections. Queries and answers are data to it, never markup.
"""

import csv
import json
from base64 import b64encode
from hashlib import sha256
from io import StringIO
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from safetyheads.judges.labels import seal

COLUMNS = ["id", "query", "text", "stratum", "weight", "sealed", "harmful", "label", "annotator"]
"""The columns of the CSV file; the last three are for the annotator."""

_FOLDER = Path(__file__).parent
_GIVEN = COLUMNS[:6]
_ESCAPED = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&"}


def blinded(sample: pd.DataFrame) -> pd.DataFrame:
    """The rows of the CSV file, all values as text, from a sample as `annotation_sample.draw` gives it."""
    sealed = [seal(name, condition) for name, condition in zip(sample["id"], sample["condition"])]
    rows = sample.assign(
        sealed=sealed,
        weight=sample["weight"].map(lambda weight: repr(float(weight))),
        harmful="",
        label="",
        annotator="",
    )
    return rows[COLUMNS]


def as_csv(rows: pd.DataFrame) -> str:
    """The text of the CSV file: every value in quotes, and texts as they are, with their own line ends."""
    file = StringIO(newline="")
    writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([COLUMNS, *rows.itertuples(index=False)])
    return file.getvalue()


def page(rows: pd.DataFrame) -> str:
    """The HTML text of the page for the rows of `blinded`. Equal rows give an equal page."""
    environment = Environment(loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined)
    css, script = ((_FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    content = {
        "sample": sha256(as_csv(rows).encode()).hexdigest()[:16],
        "columns": COLUMNS,
        "rows": rows[_GIVEN].to_dict("records"),
    }
    return environment.get_template("page.html.j2").render(
        css=Markup(css),
        script=Markup(script),
        css_sum=_sum(css),
        script_sum=_sum(script),
        data=Markup(json.dumps(content).translate(_ESCAPED)),
        count=len(rows.drop_duplicates(["query", "text"])),
    )


def _sum(text: str) -> str:
    """The sum by which a content policy allows an inline script or style."""
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"
