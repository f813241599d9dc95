"""How cells formed over the epochs of a search: drawings of the cells, weights of each edge."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emodarts.errors import RunError
from emodarts.genotype import CellGenotype, Genotype
from emodarts.reports.cells import Strengths, operation_family
from emodarts.reports.plots import line_styles, new_figure, whole_epochs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
Records = Sequence[Mapping[str, Any]]
"""Epochs of a search: ``{"epoch": int, "alphas": {cell: [edges][operations]}, "genotype": {}}``."""

_MOMENTS = 5  # epochs whose cells are drawn
_POINTS = 40  # epochs of a line, at most
_ROW = 3  # plots of edges beside each other


def edges_of(n_nodes: int) -> list[tuple[int, int]]:
    """Node and source of every edge of a cell, in the order of its alphas."""
    return [(node, source) for node in range(n_nodes) for source in range(node + 2)]


def nodes_of(n_edges: int) -> int:
    """Number of nodes of a cell with so many edges: ``E = n (n + 3) / 2``."""
    return round((math.sqrt(9 + 8 * n_edges) - 3) / 2)


def strengths_of(
    genotype: Genotype, records: Records, operations: Mapping[str, Sequence[str]]
) -> Strengths | None:
    """Softmax weight of each operation of a genotype, in the epoch that it comes from.

    That is the last epoch with this genotype. None if no epoch has it, such as where the genotype
    is not the one that the alphas name.
    """
    found = [r for r in records if Genotype.from_dict(r["genotype"]).cells == genotype.cells]
    if not found:
        return None
    strengths = {}
    for name, cell in genotype.cells.items():
        weights = _weights(found[-1], name, operations[name])
        index = {edge: k for k, edge in enumerate(edges_of(len(cell)))}
        column = {operation: k for k, operation in enumerate(operations[name])}
        strengths[name] = [
            [float(weights[index[node, edge.source], column[edge.operation]]) for edge in edges]
            for node, edges in enumerate(cell)
        ]
    return strengths


def _weights(record: Mapping[str, Any], cell: str, operations: Sequence[str]) -> Floats:
    """Softmax weights [shape=(edges, operations)] of an epoch."""
    from scipy.special import softmax

    alphas = np.array(record["alphas"][cell], dtype=np.float64)
    n_edges = len(edges_of(nodes_of(len(alphas))))
    if alphas.shape != (n_edges, len(operations)):
        raise RunError(
            f"alphas of the {cell} cell have shape {alphas.shape}; allowed: (edges of all nodes, "
            f"{len(operations)} operations)"
        )
    return np.asarray(softmax(alphas, axis=-1))


# Small multiples of cells


def moments(records: Records) -> list[Mapping[str, Any]]:
    """Epochs that are drawn: the first, the last, and some between them."""
    places = np.unique(np.linspace(0, len(records) - 1, _MOMENTS).round().astype(int))
    return [records[place] for place in places]


def formation_figure(records: Records) -> Figure:
    """Draw the cells that the alphas named at some epochs: a row for each cell.

    Inputs and nodes stand in a line, in order; an arc is an edge, with the colour of its
    operation's family.
    """
    from matplotlib.lines import Line2D

    drawn = [(r["epoch"], Genotype.from_dict(r["genotype"]).cells) for r in moments(records)]
    names = list(drawn[0][1])
    families = dict(
        operation_family(edge.operation)
        for _, genotype in drawn
        for cell in genotype.values()
        for node in cell
        for edge in node
    )
    width = 1.7 * len(drawn) + 0.5
    columns = max(1, int(width / 1.7))
    below = 0.25 + 0.2 * -(-len(families) // columns)
    height = 1.3 * len(names) + 0.3 + below
    figure = new_figure(width, height, arrange=False)
    figure.subplots_adjust(
        0.4 / width, below / height, 1 - 0.05 / width, 1 - 0.3 / height, 0.05, 0.1
    )
    grid = np.atleast_2d(figure.subplots(len(names), len(drawn), squeeze=False))
    for row, name in enumerate(names):
        for column, (epoch, genotype) in enumerate(drawn):
            axes = grid[row, column]
            _draw_small(axes, genotype[name])
            if row == 0:
                axes.set_title(f"epoch {epoch}", fontsize=9)
            if column == 0:
                axes.set_ylabel(name, fontsize=9)
    handles = [Line2D([], [], color=c, label=family, linewidth=2) for family, c in families.items()]
    figure.legend(handles=handles, loc="lower center", ncols=columns, fontsize=8, frameon=False)
    return figure


def _draw_small(axes: Axes, cell: CellGenotype) -> None:
    """Draw a cell as arcs over a line of states."""
    for node, edges in enumerate(cell):
        for side, edge in enumerate(edges):
            colour = operation_family(edge.operation)[1]
            target, span = node + 2, node + 2 - edge.source
            angle = np.linspace(0, math.pi, 24)
            x = (edge.source + target) / 2 - span / 2 * np.cos(angle)
            # One edge of a node above and one below the line: none hides another.
            y = (1 if side == 0 else -1) * (0.25 + 0.75 * span / (len(cell) + 1)) * np.sin(angle)
            axes.plot(x, y, color=colour, linewidth=1.6)
    n_states = len(cell) + 2
    axes.plot([0, 1], [0, 0], "s", color="black", markersize=4)
    axes.plot(range(2, n_states), [0] * len(cell), "o", color="black", markersize=4)
    axes.set(xlim=(-0.5, n_states - 0.5), ylim=(-1.1, 1.1), xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def describe_formation(records: Records) -> str:
    """Say in words what :func:`formation_figure` shows, and how often cells changed."""
    cells = [Genotype.from_dict(record["genotype"]).cells for record in records]
    parts = []
    for name in cells[0]:
        changes = [
            record["epoch"]
            for record, before, after in zip(records[1:], cells, cells[1:], strict=False)
            if before[name] != after[name]
        ]
        last = f", the last at epoch {changes[-1]}" if changes else ""
        parts.append(f"the {name} cell changed {len(changes)} times{last}")
    drawn = ", ".join(str(record["epoch"]) for record in moments(records))
    return f"Cells named by the alphas at epochs {drawn}. Over all epochs, {'; '.join(parts)}."


# Weights of each edge


def edge_weights(
    searches: Sequence[Records], operations: Mapping[str, Sequence[str]], cell: str
) -> tuple[list[int], Floats]:
    """Softmax weights of a cell, means over searches.

    Returns
    -------
    Epochs that all searches reached, thinned out to some tens, and weights [shape=(epochs, edges,
    operations)].

    Raises
    ------
    RunError
        If the alphas do not fit the operations.
    """
    found: defaultdict[int, list[Floats]] = defaultdict(list)
    for search in searches:
        for record in search:
            found[int(record["epoch"])].append(_weights(record, cell, operations[cell]))
    epochs = sorted(epoch for epoch, rows in found.items() if len(rows) == len(searches))
    places = np.unique(np.linspace(0, len(epochs) - 1, _POINTS).round().astype(int))
    epochs = [epochs[place] for place in places]
    return epochs, np.array([np.mean(found[epoch], axis=0) for epoch in epochs])


def edge_figure(
    cell: str, epochs: Sequence[int], weights: Floats, operations: Sequence[str]
) -> Figure:
    """Draw the weights of each edge of a cell over the epochs, a small plot for each edge."""
    edges = edges_of(nodes_of(weights.shape[1]))
    rows = -(-len(edges) // _ROW)
    width, height = 7.4, 1.35 * rows + 1.5
    figure = new_figure(width, height, arrange=False)
    # A layout that looks for the room itself takes most of the time of a report.
    figure.subplots_adjust(0.75 / width, 1.1 / height, 0.99, 1 - 0.55 / height, 0.08, 0.35)
    plots = np.atleast_1d(figure.subplots(rows, _ROW, sharex=True, sharey=True)).ravel()
    for axes, (node, source), values in zip(plots, edges, weights.swapaxes(0, 1), strict=False):
        for column, (name, style) in enumerate(
            zip(operations, line_styles(operations), strict=True)
        ):
            axes.plot(epochs, values[:, column], label=name, linewidth=1.2, **style)
        axes.set_title(f"{_source(source)} to node {node}", fontsize=8)
        axes.tick_params(labelsize=7)
        whole_epochs(axes)
    for axes in plots[len(edges) :]:
        axes.axis("off")
    figure.suptitle(f"{cell} cell", fontsize=10, y=1 - 0.1 / height)
    figure.supxlabel("epoch", fontsize=8, y=0.75 / height)
    figure.supylabel("softmax weight", fontsize=8, x=0.05 / width)
    handles, labels = plots[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=4, fontsize=7, frameon=False)
    return figure


def describe_edges(
    cell: str, epochs: Sequence[int], weights: Floats, operations: Sequence[str]
) -> str:
    """Say in words what :func:`edge_figure` shows: what leads on each edge at the end."""
    parts = []
    for (node, source), last in zip(edges_of(nodes_of(weights.shape[1])), weights[-1], strict=True):
        leader = int(last.argmax())
        parts.append(f"{_source(source)} to node {node}: {operations[leader]} {last[leader]:.2f}")
    return (
        f"Softmax weights of each edge of the {cell} cell over the epochs. The strongest operation "
        f"at epoch {epochs[-1]}: {'; '.join(parts)}."
    )


def _source(source: int) -> str:
    return ("c(k-2)", "c(k-1)")[source] if source < 2 else f"node {source - 2}"
