"""Drawings of the cells of a genotype, as directed graphs from left to right.

Every node of a cell becomes a block: a box for each of its two operations, and a circle that
adds them up. Blocks stand in columns, in order. A line that passes a block on its way gets a
lane of its own beside that block, so no line runs through a box and no labels overlap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from emodarts.genotype import SKIP, CellGenotype, Genotype

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Prefix of the operations, family in the legend, and colour: Okabe and Ito's palette, which
#: colour-blind readers can tell apart.
_FAMILIES = (
    (SKIP, "skip connection", "#6E6E6E"),
    ("max_pool", "pooling", "#E69F00"),
    ("avg_pool", "pooling", "#E69F00"),
    ("sep_conv", "separable convolution", "#0072B2"),
    ("dil_conv", "dilated convolution", "#009E73"),
    ("lstm_att", "LSTM with attention", "#CC79A7"),
    ("rnn_att", "RNN with attention", "#D55E00"),
    ("lstm", "LSTM", "#3FA0D8"),
    ("rnn", "RNN", "#A39A00"),
)
_CONCAT_COLOUR = "#BDBDBD"

# All lengths are inches; so are the coordinates of the drawing.
_BOX_WIDTH, _BOX_HEIGHT = 0.9, 0.23
_STRENGTH = 0.3  # more width of a box for the strength of its edge
_SLOT = 0.16  # from the middle of a block to the middle of a box
_FAN = 0.3  # from the boxes of a block to the middle of its circle
_RADIUS = 0.13
_GAP = 0.5  # between columns, where lines change their height
_END_WIDTH, _END_HEIGHT = 0.46, 0.25  # the cell's inputs and its output
_LANE_HALF, _BLOCK_HALF, _END_HALF = 0.07, _SLOT + _BOX_HEIGHT / 2 + 0.05, 0.28
_TITLE, _MARGIN, _LEGEND_ROW = 0.3, 0.15, 0.22
_FONT = 8.0  # points
_EDGE, _JOIN = 1.3, 0.8  # widths of lines, points

_STARTS, _SWEEPS = 12, 6


def operation_family(operation: str) -> tuple[str, str]:
    """Return the family of an operation, as named in legends, and its colour."""
    for prefix, family, colour in _FAMILIES:
        if operation.startswith(prefix):
            return family, colour
    return "other", "#000000"


#: Weight of each edge by cell, in the order of the nodes and their edges in the genotype.
Strengths = Mapping[str, Sequence[Sequence[float]]]


def draw_genotype(genotype: Genotype, strengths: Strengths | None = None) -> Figure:
    """Draw all cells of a genotype below each other.

    The inputs ``c_{k-2}`` and ``c_{k-1}``, outputs of the previous two cells, stand on the
    left. Boxes are operations, coloured by family; each circle is a node, the sum of its two
    operations. Grey lines join all nodes to the cell's output ``c_k`` on the right.

    Parameters
    ----------
    strengths : shown beside each operation and by the width of its line; None for none.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawings = {
        name: _arrange(_build(cell, None if strengths is None else strengths.get(name)))
        for name, cell in genotype.cells.items()
    }
    families = _families_of(genotype)
    width = max(graph.width for graph, _ in drawings.values()) + 2 * _MARGIN
    columns = min(len(families) + 1, max(1, int(width / 1.7)))
    legend_height = _LEGEND_ROW * -(-(len(families) + 1) // columns) + _MARGIN
    height = sum(_TITLE + 2 * _MARGIN + np.ptp(_reach(g, y)) for g, y in drawings.values())
    figure = Figure(figsize=(width, height + legend_height), dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(-_MARGIN, width - _MARGIN), ylim=(height + legend_height, 0.0))
    axes.axis("off")
    top = 0.0
    for name, (graph, y) in drawings.items():
        low, high = _reach(graph, y)
        axes.text(0, top + _MARGIN, f"{name} cell", fontsize=_FONT + 2, weight="bold", va="top")
        _draw(axes, graph, y + top + _MARGIN + _TITLE - low)
        top += _TITLE + 2 * _MARGIN + high - low
    _draw_legend(figure, families, columns)
    return figure


def describe_genotype(genotype: Genotype, strengths: Strengths | None = None) -> str:
    """Say in words what :func:`draw_genotype` shows."""
    cells = []
    for name, cell in genotype.cells.items():
        sources = ["c_{k-2}", "c_{k-1}", *(f"node {index}" for index in range(len(cell)))]
        weights = None if strengths is None else strengths.get(name)
        nodes = [
            " plus ".join(
                f"{edge.operation} of {sources[edge.source]}"
                + ("" if weights is None else f" ({weights[index][k]:.2f})")
                for k, edge in enumerate(node)
            )
            for index, node in enumerate(cell)
        ]
        listed = "; ".join(f"node {index} is {text}" for index, text in enumerate(nodes))
        cells.append(f"{name.capitalize()} cell: {listed}.")
    return " ".join([*cells, "The output c_k of a cell concatenates its nodes."])


def _families_of(genotype: Genotype) -> dict[str, str]:
    """Families in use and their colours, in the order of the palette."""
    operations = {e.operation for cell in genotype.cells.values() for node in cell for e in node}
    used = dict(operation_family(operation) for operation in operations)
    return {family: used[family] for _, family, _ in _FAMILIES if family in used}


def _draw_legend(figure: Figure, families: dict[str, str], columns: int) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Artist] = [Patch(color=c, label=family) for family, c in families.items()]
    handles.append(Line2D([], [], color=_CONCAT_COLOUR, linewidth=1, label="concatenation"))
    figure.legend(
        handles=handles,
        loc="lower center",
        ncols=columns,
        frameon=False,
        fontsize=_FONT,
        handlelength=1.0,
        handleheight=0.9,
    )


# Where everything stands


@dataclass(frozen=True, slots=True)
class _Line:
    """A line through one item of each column on its way, and what it carries."""

    path: tuple[int, ...]
    operation: str | None
    """None joins a node to the output."""
    strength: float | None = None
    """Of its edge; None where none is shown."""


@dataclass(frozen=True, slots=True)
class _Graph:
    """A cell as a layered graph. Items are numbers; each stands in one column.

    Attributes
    ----------
    columns : items of each column: the inputs, one block and its passing lanes for each
        node, the output.
    halves : half the height of each item, inches.
    lines : edges and the joins to the output.
    blocks : item of each node.
    box : width of a box, inches.
    """

    columns: list[list[int]]
    halves: list[float]
    lines: list[_Line]
    blocks: list[int]
    box: float

    @property
    def width(self) -> float:
        return self.left(len(self.columns) - 1) + _END_WIDTH

    def left(self, column: int) -> float:
        """Left side of a column, inches."""
        block = self.box + _FAN + _RADIUS + _GAP
        return 0.0 if column == 0 else _END_WIDTH + _GAP + (column - 1) * block

    def right(self, column: int) -> float:
        """Right side of a column, inches."""
        return self.left(column + 1) - _GAP


def _build(cell: CellGenotype, strengths: Sequence[Sequence[float]] | None) -> _Graph:
    """Place nodes in columns and give every longer line a lane in each column it passes."""
    n = len(cell)
    columns: list[list[int]] = [[0, 1], *[[i + 2] for i in range(n)], [n + 2]]
    halves = [_END_HALF, _END_HALF, *[_BLOCK_HALF] * n, _END_HALF]
    lines = []

    def connect(source: int, target: int, operation: str | None, weight: float | None) -> None:
        path = [source]
        for column in range(max(0, source - 1) + 1, target - 1):
            columns[column].append(len(halves))
            path.append(len(halves))
            halves.append(_LANE_HALF)
        lines.append(_Line((*path, target), operation, weight))

    for index, node in enumerate(cell):
        for k, edge in enumerate(node):
            weight = None if strengths is None else strengths[index][k]
            connect(edge.source, index + 2, edge.operation, weight)
    for index in range(n):
        connect(index + 2, n + 2, None, None)
    box = _BOX_WIDTH + (0 if strengths is None else _STRENGTH)
    return _Graph(columns, halves, lines, blocks=list(range(2, n + 2)), box=box)


def _arrange(graph: _Graph) -> tuple[_Graph, NDArray[np.float64]]:
    """Find the height of each item: fewest crossings first, then the shortest ways.

    Sweeps pull each item to the mean of its neighbours, as in layered graph drawing
    (Sugiyama et al., 1981), from several seeded starts.
    """
    generator = np.random.default_rng(0)
    best, best_cost = np.zeros(len(graph.halves)), (np.inf, np.inf)
    for _ in range(_STARTS):
        y = generator.normal(size=len(graph.halves))
        for sweep in range(_SWEEPS):
            y = _sweep(graph, y, forwards=sweep % 2 == 0, both=sweep >= _SWEEPS - 2)
            cost = _cost(graph, y)
            if cost < best_cost:
                best, best_cost = y, cost
    return graph, best


def _sweep(
    graph: _Graph, y: NDArray[np.float64], forwards: bool, both: bool
) -> NDArray[np.float64]:
    """Move each column once: items go to the mean of their neighbours and stay apart."""
    y = y.copy()
    order = range(len(graph.columns))
    for column in order if forwards else reversed(order):
        near: dict[int, list[float]] = {item: [] for item in graph.columns[column]}
        for line in graph.lines:
            for before, after in pairwise(line.path):
                if after in near and (forwards or both):
                    near[after].append(y[before])
                if before in near and (both or not forwards):
                    near[before].append(y[after])
        items = graph.columns[column]
        wanted = np.array([np.mean(near[item]) if near[item] else y[item] for item in items])
        if column == 0:
            wanted = np.sort(wanted)  # c_{k-2} stays above c_{k-1}
        y[items] = _apart(wanted, np.array([graph.halves[item] for item in items]))
    return y


def _apart(wanted: NDArray[np.float64], halves: NDArray[np.float64]) -> NDArray[np.float64]:
    """Nearest heights (least squares) in the wanted order that leave each item its room."""
    from sklearn.isotonic import isotonic_regression

    order = np.argsort(wanted, kind="stable")
    steps = halves[order][:-1] + halves[order][1:]
    offsets = np.concatenate([[0.0], np.cumsum(steps)])
    placed = np.empty_like(wanted)
    placed[order] = isotonic_regression(wanted[order] - offsets) + offsets
    return placed


def _cost(graph: _Graph, y: NDArray[np.float64]) -> tuple[float, float]:
    """Crossings of lines, and the height that all lines climb, inches."""
    gaps: list[list[tuple[float, float]]] = [[] for _ in graph.columns]
    for line in graph.lines:
        for column, start, end in _steps(graph, y, line):
            gaps[column].append((start, end))
    crossings = sum(
        (a - c) * (b - d) < -1e-9 for steps in gaps for (a, b), (c, d) in combinations(steps, 2)
    )
    return float(crossings), sum(abs(b - a) for steps in gaps for a, b in steps)


def _steps(
    graph: _Graph, y: NDArray[np.float64], line: _Line
) -> Iterator[tuple[int, float, float]]:
    """Column that a line leaves, and its heights there and in the next column."""
    first = max(0, line.path[0] - 1)
    heights = [y[item] for item in line.path]
    if line.operation is not None:
        heights[-1] += _slot(graph, y, line)
    for step, (start, end) in enumerate(pairwise(heights)):
        yield first + step, start, end


def _slot(graph: _Graph, y: NDArray[np.float64], line: _Line) -> float:
    """Height of a line's box in its block: the line that comes from above has the upper one."""
    (other,) = (
        o
        for o in graph.lines
        if o is not line and o.operation is not None and o.path[-1] == line.path[-1]
    )
    return -_SLOT if y[line.path[-2]] < y[other.path[-2]] else _SLOT


def _reach(graph: _Graph, y: NDArray[np.float64]) -> tuple[float, float]:
    """Top and bottom of a drawn cell, inches."""
    halves = np.array(graph.halves)
    return float((y - halves).min()), float((y + halves).max())


# Ink


def _draw(axes: Axes, graph: _Graph, y: NDArray[np.float64]) -> None:
    from matplotlib.patches import Circle

    last = len(graph.columns) - 1
    for line in sorted(graph.lines, key=lambda line: line.operation is not None):
        _draw_line(axes, graph, y, line)
    for item, label in ((0, "$c_{k-2}$"), (1, "$c_{k-1}$")):
        _draw_box(axes, 0.0, y[item], label, "#FFFFFF", "#000000", _END_WIDTH, _END_HEIGHT)
    end = y[graph.columns[last][0]]
    _draw_box(axes, graph.left(last), end, "$c_k$", "#FFFFFF", "#000000", _END_WIDTH, _END_HEIGHT)
    for index, block in enumerate(graph.blocks):
        x = graph.right(index + 1) - _RADIUS
        axes.add_patch(
            Circle((x, y[block]), _RADIUS, facecolor="white", edgecolor="black", zorder=3)
        )
        axes.text(x, y[block], str(index), fontsize=_FONT, ha="center", va="center_baseline")


def _draw_line(axes: Axes, graph: _Graph, y: NDArray[np.float64], line: _Line) -> None:
    points: list[tuple[float, float]] = []
    for column, start, end in _steps(graph, y, line):
        points += [(graph.right(column), start), (graph.left(column + 1), end)]
    if line.operation is None:
        _draw_arrow(axes, points, _CONCAT_COLOUR, _JOIN)
        return
    _, colour = operation_family(line.operation)
    label, width = line.operation, _EDGE
    if line.strength is not None:
        strongest = max(other.strength or 0.0 for other in graph.lines)
        label, width = (
            f"{label}  {line.strength:.2f}",
            _EDGE * (0.5 + 1.5 * line.strength / strongest),
        )
    _draw_arrow(axes, points, colour, width)
    x, height = points[-1]
    _draw_box(axes, x, height, label, colour, colour, graph.box, _BOX_HEIGHT)
    node = (x + graph.box + _FAN, float(y[line.path[-1]]))
    side = np.array([x + graph.box, height]) - node
    touch = node + side / np.hypot(*side) * _RADIUS
    _draw_arrow(axes, [(x + graph.box, height), tuple(touch)], colour, width, straight=True)


def _draw_arrow(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    colour: str,
    width: float,
    straight: bool = False,
) -> None:
    """Draw an arrow through points: level in lanes, an S-curve in the gaps between them."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    vertices, codes = [points[0]], [Path.MOVETO]
    for i, (start, end) in enumerate(pairwise(points)):
        if straight or i % 2:
            vertices.append(end)
            codes.append(Path.LINETO)
        else:
            middle = (start[0] + end[0]) / 2
            vertices += [(middle, start[1]), (middle, end[1]), end]
            codes += [Path.CURVE4] * 3
    axes.add_patch(
        FancyArrowPatch(
            path=Path(vertices, codes),
            arrowstyle="-|>",
            mutation_scale=8,
            linewidth=width,
            color=colour,
            shrinkA=0,
            shrinkB=0,
            joinstyle="miter",
            zorder=1,
        )
    )


def _draw_box(
    axes: Axes, x: float, y: float, label: str, fill: str, edge: str, width: float, height: float
) -> None:
    """Draw a labelled box with its left side at ``x`` and its middle at ``y``."""
    from matplotlib.patches import FancyBboxPatch

    axes.add_patch(
        FancyBboxPatch(
            (x, y - height / 2),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor=fill,
            edgecolor=edge,
            linewidth=1.0,
            zorder=3,
        )
    )
    # On paper ink, which a page may turn round; on a colour, what can be read on it.
    colour = "#111111" if _luminance(fill) > 0.18 else "#FDFDFD"
    colour = "#000000" if fill == "#FFFFFF" else colour
    axes.text(
        x + width / 2, y, label, fontsize=_FONT, color=colour, ha="center", va="center", zorder=4
    )


def _luminance(colour: str) -> float:
    """Relative luminance of a colour ``#RRGGBB``: 0 is black, 1 is white (WCAG 2.2)."""
    channels = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
