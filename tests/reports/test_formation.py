"""How cells formed: the strength of edges, and what figures of the epochs show."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from emodarts.errors import RunError
from emodarts.genotype import Edge, Genotype
from emodarts.reports.formation import (
    describe_edges,
    describe_formation,
    edge_figure,
    edge_weights,
    edges_of,
    formation_figure,
    nodes_of,
    strengths_of,
)

OPERATIONS = {"sequence": ("lstm_1", "rnn_1", "none")}
FIRST = Genotype(sequence=((Edge("lstm_1", 0), Edge("rnn_1", 1)),))
SECOND = Genotype(sequence=((Edge("rnn_1", 0), Edge("rnn_1", 1)),))


def record(epoch: int, genotype: Genotype, alphas: list[list[float]]) -> dict[str, Any]:
    return {"epoch": epoch, "alphas": {"sequence": alphas}, "genotype": genotype.to_dict()}


LOG2 = math.log(2)
RECORDS = [
    record(1, FIRST, [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]),
    record(2, FIRST, [[LOG2, 0.0, 0.0], [0.0, LOG2, LOG2]]),  # 2:1:1 and 1:2:2
    record(3, SECOND, [[0.0, LOG2, 0.0], [0.0, LOG2, 0.0]]),
]


@pytest.mark.parametrize("n_nodes", [1, 2, 4, 7])
def test_nodes_and_edges(n_nodes: int) -> None:
    edges = edges_of(n_nodes)
    assert len(edges) == sum(node + 2 for node in range(n_nodes))
    assert nodes_of(len(edges)) == n_nodes
    assert edges[:3] == [(0, 0), (0, 1), (1, 0)][: len(edges)]


def test_strengths_are_softmax_weights_of_the_last_epoch_with_the_genotype() -> None:
    assert strengths_of(FIRST, RECORDS, OPERATIONS) == {
        "sequence": [[pytest.approx(0.5), pytest.approx(0.4)]]
    }
    other = Genotype(sequence=((Edge("rnn_1", 0), Edge("lstm_1", 1)),))
    assert strengths_of(other, RECORDS, OPERATIONS) is None


def test_weights_of_edges_are_means_over_searches() -> None:
    epochs, weights = edge_weights([RECORDS, RECORDS[:2]], OPERATIONS, "sequence")
    assert epochs == [1, 2]
    assert weights[1, 0] == pytest.approx([0.5, 0.25, 0.25])
    assert weights.sum(-1) == pytest.approx(np.ones((2, 2)))
    text = describe_edges("sequence", epochs, weights, OPERATIONS["sequence"])
    assert "c(k-2) to node 0: lstm_1 0.50" in text
    assert "at epoch 2" in text
    figure = edge_figure("sequence", epochs, weights, OPERATIONS["sequence"])
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["c(k-2) to node 0", "c(k-1) to node 0"]
    assert list(figure.axes[0].lines[0].get_ydata()) == pytest.approx([1 / 3, 0.5])


def test_long_searches_are_thinned_out() -> None:
    long = [record(k, FIRST, [[0.0] * 3] * 2) for k in range(1, 301)]
    epochs, weights = edge_weights([long], OPERATIONS, "sequence")
    assert (epochs[0], epochs[-1]) == (1, 300)
    assert len(epochs) == len(weights) <= 40


def test_alphas_of_another_space_are_refused() -> None:
    with pytest.raises(RunError, match=r"alphas of the sequence cell have shape \(2, 3\)"):
        edge_weights([RECORDS], {"sequence": ("lstm_1", "none")}, "sequence")


def test_small_multiples_show_the_cells_of_some_epochs() -> None:
    figure = formation_figure(RECORDS)
    assert [axes.get_title() for axes in figure.axes] == ["epoch 1", "epoch 2", "epoch 3"]
    colours = [[line.get_color() for line in axes.lines[:2]] for axes in figure.axes]
    assert colours[0] == colours[1] != colours[2]
    assert describe_formation(RECORDS) == (
        "Cells named by the alphas at epochs 1, 2, 3. Over all epochs, the sequence cell changed 1 "
        "times, the last at epoch 3."
    )


@pytest.mark.parametrize("n", [2, 3])
def test_the_legend_of_the_formation_is_within_the_figure(n: int) -> None:
    figure = formation_figure(RECORDS[:n])
    figure.canvas.draw()
    inner, outer = figure.legends[0].get_window_extent(), figure.bbox
    assert outer.x0 <= inner.x0 < inner.x1 <= outer.x1
    lowest = min(axes.get_window_extent().y0 for axes in figure.axes)
    assert outer.y0 <= inner.y0 < inner.y1 <= lowest
