"""What all charts share: a figure, what a pointer finds in it, and the SVG that it becomes.

Lines and letters are drawn in `currentColor`, so that a page which inlines a chart decides
their colour; alone, a chart is a mid-tone grey on nothing. What belongs to a method carries the
class `m` and its place in params.yaml, so that a page can hide it. Matplotlib's object interface
is used throughout, because pyplot keeps global state.
"""

import io
import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette, distinguishable with any colour vision (Wong 2011,
doi 10.1038/nmeth.1618), without its yellow and black, which vanish on white or on dark."""

LINES = ("-", "--", "-.", ":")
"""Line styles: the next one for every round through the palette."""

INK = "#010203"
"""Stands for the page's text colour until the SVG is finished."""

ALONE = "#6b7280"
"""The ink of a chart that no page surrounds: legible on white and on black."""

WIDE, NARROW = 370, 300
"""Widths of charts in SVG units, about as wide as a phone and a page of several show them."""

GUIDE: dict[str, Any] = {"color": INK, "alpha": 0.5, "linewidth": 1, "linestyle": (0, (4, 3))}
"""A dashed line to compare with."""

SCALE = 2
"""Pixels for each SVG unit of a chart that is looked at by itself."""

REACH = 7.0
"""Radius in SVG units within which a pointer finds a point."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    # DejaVu comes with matplotlib: the layout is measured with it on every machine.
    "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
    "font.size": 10,
    "text.parse_math": False,
    "text.color": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.16,
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}


def colour(index: int) -> str:
    """Return the colour of the method at that place in params.yaml."""
    return COLOURS[index % len(COLOURS)]


def printable(name: str, length: int = 18) -> str:
    """Return a name without what no font draws, and short enough to stand in a chart."""
    # A font that lacks a joiner or a no-break space draws a box for it; a reader sees none.
    drawn = (" " if c.isspace() else c for c in name if unicodedata.category(c) != "Cf")
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in drawn)
    return shown if len(shown) <= length else shown[: length - 1] + "\N{HORIZONTAL ELLIPSIS}"


@dataclass(frozen=True)
class Tip:
    """What a pointer that rests on a place of a chart is told.

    Attributes:
        axes: Where the place is.
        x: Across, in data coordinates.
        y: Up, in data coordinates.
        text: What is told.
        index: The method's place in params.yaml; None for what is of no method.
        cell: Whether the place is a whole cell of a matrix, one unit wide, and not a point.
    """

    axes: Axes
    x: float
    y: float
    text: str
    index: int | None = None
    cell: bool = False


class Drawing:
    """A figure, what a pointer finds in it, and the SVG that it becomes.

    Args:
        name: Prefix of every id in the SVG.
        figure: What is drawn on, 72 units an inch.
    """

    def __init__(self, name: str, figure: Figure) -> None:
        self.name = name
        self.figure = figure
        self._marked = 0
        self._tips: list[Tip] = []

    def mark(self, artists: Iterable[Artist], index: int | None) -> None:
        """Note that `artists` belong to the method at that place in params.yaml, if to any."""
        for artist in artists if index is not None else ():
            artist.set_gid(f"m{index}-{self._marked}")
            self._marked += 1

    def tip(self, tip: Tip) -> None:
        """Tell something to a pointer that rests on a place."""
        self._tips.append(tip)

    def svg(self) -> str:
        """Return the finished chart: `<svg ...>...</svg>` and a line break."""
        for axes in self.figure.axes:
            axes.patch.set_alpha(0.0)
        buffer = io.StringIO()
        self.figure.savefig(buffer, format="svg", metadata={"Date": None})
        text = buffer.getvalue()
        text = text[text.index("<svg") :]
        text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
        text = re.sub(r'(<svg [^>]*?) height="', rf'\1 color="{ALONE}" height="', text, count=1)
        # A page's style gives another size; without any, MLflow shows the file as nothing.
        text = re.sub(r'\b(width|height)="([\d.]+)pt"', _enlarged, text, count=2)
        text = re.sub(r'<g id="m(\d+)-(\d+)"', r'<g class="m\1" id="m\1-\2"', text)
        # Several charts share a page, and an id must be unique on it.
        text = re.sub(r'\bid="', f'id="{self.name}-', text)
        text = re.sub(r'(url\(|href=")#', rf"\1#{self.name}-", text)
        # Places are final only now that the layout has been computed; the last lies on top.
        tips = "".join(map(self._place, self._tips))
        head, end, tail = text.rpartition("</svg>")
        return f"{head}{tips}{end}{tail}".replace(INK, "currentColor")

    def _place(self, tip: Tip) -> str:
        """Return an unseen shape over the place of a tip, with its text."""
        ends = [tip.axes.transData.transform((tip.x + d, tip.y + d)) for d in (-0.5, 0.0, 0.5)]
        (left, one), (x, y), (right, other) = ends
        height = 72 * float(self.figure.get_figheight())
        kind, paint = "tip", INK
        if tip.index is not None:
            kind, paint = f"tip m{tip.index}", colour(tip.index)
        if tip.cell:
            top, size = height - max(one, other), (right - left, abs(other - one))
            shape = (
                f'<rect x="{left:.2f}" y="{top:.2f}" width="{size[0]:.2f}" height="{size[1]:.2f}"'
            )
        else:
            shape = f'<circle cx="{x:.2f}" cy="{height - y:.2f}" r="{REACH:g}"'
        looks = f'class={quoteattr(kind)} fill="{paint}" fill-opacity="0"'
        name = shape[1:].split()[0]
        return f"{shape} {looks}><title>{escape(tip.text)}</title></{name}>\n"


def _enlarged(side: re.Match[str]) -> str:
    return f'{side[1]}="{SCALE * float(side[2]):g}"'


@contextmanager
def drawing(
    name: str,
    size: tuple[float, float],
    margins: tuple[float, float, float, float] | None = None,
) -> Iterator[Drawing]:
    """Yield an empty drawing in the report's style; it must be finished within the block.

    Args:
        name: Prefix of every id in it.
        size: Width and height in SVG units.
        margins: Left, right, top and bottom in SVG units; None lets matplotlib find them.
    """
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # DejaVu only measures the letters; the reader's own fonts draw those it lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        width, height = size
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        if margins is None:
            figure.set_layout_engine("constrained")
        else:
            left, right, top, bottom = margins
            figure.subplots_adjust(
                left / width, bottom / height, 1 - right / width, 1 - top / height
            )
        figure.patch.set_alpha(0.0)
        FigureCanvasSVG(figure)
        yield Drawing(name, figure)
