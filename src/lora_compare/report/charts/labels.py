"""Names written beside what they name, moved apart where they would cover each other."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.artist import Artist
from matplotlib.axes import Axes

LINE = 13.0
"""Height of a label in points."""

LETTER = 6.2
"""Generous mean width of a letter in points, at the charts' 10 point type."""

Box = tuple[float, float, float, float]
"""Left, bottom, right, top in points."""


@dataclass(frozen=True)
class Mark:
    """A point with a name, in data coordinates.

    Attributes:
        name: What to write beside it.
        colour: Of the line that leads from the name to it.
        x: Across.
        y: Up.
        low: Lower end of its interval; None without one.
        high: Upper end of its interval; None without one.
    """

    name: str
    colour: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None


def text_width(text: str) -> float:
    """Return about how wide `text` is in points; no font is measured."""
    return LETTER * len(text)


def spread(heights: Sequence[float], gap: float = LINE) -> list[float]:
    """Return `heights` moved as little as needed to be `gap` apart, in the same order.

    Labels that touch move as one block, whose middle stays at the middle of where its labels
    wanted to be.
    """
    order = sorted(range(len(heights)), key=lambda i: (heights[i], i))
    blocks: list[list[int]] = []
    for i in order:
        blocks.append([i])
        while (
            len(blocks) > 1
            and _bottom(blocks[-1], heights, gap) < _top(blocks[-2], heights, gap) + gap
        ):
            last = blocks.pop()
            blocks[-1].extend(last)
    places = [0.0] * len(heights)
    for block in blocks:
        for k, i in enumerate(block):
            places[i] = _bottom(block, heights, gap) + k * gap
    return places


def _bottom(block: Sequence[int], heights: Sequence[float], gap: float) -> float:
    return sum(heights[i] for i in block) / len(block) - gap * (len(block) - 1) / 2


def _top(block: Sequence[int], heights: Sequence[float], gap: float) -> float:
    return _bottom(block, heights, gap) + gap * (len(block) - 1)


def label_ends(axes: Axes, ends: Sequence[Mark]) -> list[list[Artist]]:
    """Write each curve's name to the right of its end; return its text and its line."""
    _settle(axes)
    heights = [float(axes.transData.transform((end.x, end.y))[1]) for end in ends]
    drawn: list[list[Artist]] = []
    for end, height, place in zip(ends, heights, spread(heights), strict=True):
        label = axes.annotate(
            end.name,
            (end.x, end.y),
            xytext=(16, place - height),
            textcoords="offset points",
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "relpos": (0, 0.5),
                "color": end.colour,
                "linewidth": 1.4,
                "shrinkA": 0,
                "shrinkB": 1,
            },
        )
        assert label.arrow_patch is not None
        drawn.append([label, label.arrow_patch])
    return drawn


def label_spots(axes: Axes, spots: Sequence[Mark]) -> list[Artist]:
    """Write each point's name above or below its interval, where nothing else stands."""
    _settle(axes)
    left, _, right, _ = axes.bbox.extents
    taken = [_stem(axes, spot) for spot in spots]
    drawn: list[Artist] = []
    for spot, stem in zip(spots, list(taken), strict=True):
        middle, half = (stem[0] + stem[2]) / 2, text_width(spot.name) / 2
        centre = min(max(middle, left + half), right - half)
        bases = [stem[3] + 3, stem[1] - LINE - 3, stem[3] + 3 + LINE, stem[1] - 2 * LINE - 3]
        boxes = [(centre - half, base, centre + half, base + LINE) for base in bases]
        box = next((b for b in boxes if not any(_overlap(b, other) for other in taken)), boxes[0])
        taken.append(box)
        label = axes.annotate(
            spot.name,
            (centre, box[1] + LINE / 2),
            xycoords="figure pixels",
            ha="center",
            va="center",
            annotation_clip=False,
        )
        drawn.append(label)
    return drawn


def _settle(axes: Axes) -> None:
    """Let the axes take the limits of all that was drawn: positions depend on them."""
    axes.get_xlim()
    axes.get_ylim()


def _stem(axes: Axes, spot: Mark) -> Box:
    x, bottom = axes.transData.transform((spot.x, spot.y if spot.low is None else spot.low))
    _, top = axes.transData.transform((spot.x, spot.y if spot.high is None else spot.high))
    return float(x) - 5, float(bottom), float(x) + 5, float(top)


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
