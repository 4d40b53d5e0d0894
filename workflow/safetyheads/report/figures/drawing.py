"""What all figures share: sizes, colours, and how a matplotlib figure becomes an SVG for the page.

Lengths are SVG user units. A figure is `WIDTH` units wide, and the page scales it to the width of its column. In the
dark theme, `page.css` finds the four neutral colours by their values and replaces them, so no other colour may have one
of these values. A figure that is used by itself stays light.
"""

import io
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple
from xml.etree import ElementTree

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

WIDTH = 360.0
LEGEND_ROW = 15.0
INK, MUTED, RULE, PAPER = "#1c2127", "#5a6472", "#d3d9e0", "#fdfdfe"
"""The neutral colours. Their counterparts in the dark theme are in page.css."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
MARKERS = ("o", "s", "^", "D", "v", "P")
"""Okabe and Ito's colours, which colour-blind people can tell apart, without black and yellow, and markers."""
LineStyle = Literal["-", "--", "-.", ":", "none"] | tuple[float, tuple[float, float]]
LINES: tuple[LineStyle, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))

_FONT = "font-family: 'DejaVu Sans'; "
_SVG = "http://www.w3.org/2000/svg"
_RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "safetyheads",
    "text.parse_math": False,
    "axes.unicode_minus": False,
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.labelsize": 9.5,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@contextmanager
def pens() -> Iterator[None]:
    """Draw with matplotlib's defaults and the settings of the page within the block, whatever the user's own are."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)
        yield


def paper(height: float, width: float = WIDTH) -> Figure:
    """An empty figure that is `width` units wide and `height` units high."""
    return Figure(figsize=(width / 72, height / 72), dpi=72)


def place(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Add axes to a figure, with the lower left corner of their frame at (left, bottom). All lengths are in units."""
    full_width, full_height = figure.get_size_inches() * 72
    return figure.add_axes((left / full_width, bottom / full_height, width / full_width, height / full_height))


def legend(figure: Figure, keys: Sequence[tuple[str, str, str, LineStyle]], columns: int) -> None:
    """Add a legend at the top left. `keys` are its entries: name, colour, marker and line style.

    Each row of the legend is `LEGEND_ROW` units high.
    """
    height = figure.get_figheight() * 72
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle=line, linewidth=1.8, markersize=7, markeredgecolor=PAPER)
        for _, colour, marker, line in keys
    ]
    figure.legend(
        handles,
        [short(name, 52 // columns) for name, *_ in keys],
        loc="upper left",
        bbox_to_anchor=(0.0, 1 - 1 / height),
        ncols=columns,
        borderaxespad=0,
        handlelength=2.6 if any(line != "none" for *_, line in keys) else 1.0,
        labelspacing=0.35,
        columnspacing=1.4,
    )


def short(text: str, length: int = 24) -> str:
    """`text` with at most `length` characters: a longer one loses its middle. Unprintable characters become U+FFFD."""
    text = "".join(character if character.isprintable() else "\ufffd" for character in text)
    if len(text) <= length:
        return text
    tail = (length - 1) // 2
    return f"{text[: length - 1 - tail]}…{text[-tail:]}"


class Hint(NamedTuple):
    """A rectangle of a figure, in units from its upper left corner, and what is shown while the pointer is over it."""

    left: float
    top: float
    width: float
    height: float
    text: str


def to_svg(figure: Figure, label: str, prefix: str, hints: Iterable[Hint] = ()) -> str:
    """The figure as the text of one `<svg>` element. Equal figures give equal text.

    `label` is what a screen reader says. Every id starts with `prefix`, so that figures with different prefixes can
    stand on one page. Ids that nothing refers to are left out, and so are the metadata and the style sheet, which would
    apply to the whole page. `hints` become invisible areas with a title, on top of all else.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    ids: dict[str, str] = {}
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        attributes = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
        element.attrib.clear()
        element.attrib.update({name: _attribute(name, value, ids, prefix) for name, value in attributes.items()})
    for element in root.iter():
        if "id" in element.attrib and element.attrib["id"] not in ids:
            del element.attrib["id"]
        elif "id" in element.attrib:
            element.set("id", ids[element.attrib["id"]])
    width, height = figure.get_size_inches() * 72
    root.attrib.clear()
    root.attrib.update(
        {
            "xmlns": _SVG,
            "viewBox": f"0 0 {width:g} {height:g}",
            "width": f"{width:g}",
            "height": f"{height:g}",
            "font-family": "'DejaVu Sans', Verdana, system-ui, sans-serif",
            "stroke-linejoin": "round",
            "stroke-linecap": "butt",
            "role": "img",
            "aria-label": short(label, 2000),
        }
    )
    areas = ElementTree.SubElement(root, "g", {"fill": "none", "pointer-events": "all"})
    for left, top, width, height, text in hints:
        outline = f"M{left:.4g} {top:.4g}h{width:.4g}v{height:.4g}h-{width:.4g}z"
        area = ElementTree.SubElement(areas, "path", {"d": outline})
        ElementTree.SubElement(area, "title").text = short(text, 300)
    if not len(areas):
        root.remove(areas)
    return ElementTree.tostring(root, encoding="unicode")


def _attribute(name: str, value: str, ids: dict[str, str], prefix: str) -> str:
    """The value of an attribute without its font, and with the new name of the id that it refers to.

    `ids` maps old names to new ones; an id that is not yet in it is added.
    """
    if name == "style":
        return value.replace(_FONT, "")
    if name == "href" and value.startswith("#"):
        return "#" + ids.setdefault(value[1:], f"{prefix}-{len(ids) + 1}")
    if name in ("clip-path", "fill", "mask", "filter") and value.startswith("url(#"):
        return f"url(#{ids.setdefault(value[5:-1], f'{prefix}-{len(ids) + 1}')})"
    return value


def percent(share: float) -> str:
    """A share as a percentage, such as `12.5 %` for 0.125, with a space that does not break; `–` for NaN."""
    return f"{round(100 * share, 1) + 0:g}\u00a0%" if np.isfinite(share) else "–"
