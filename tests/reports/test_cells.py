"""A drawing shows all of its genotype, and nothing in it covers anything else."""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch
from matplotlib.transforms import Bbox

from emodarts.genotype import NONE, CellGenotype, Edge, Genotype
from emodarts.recipe import SPACES
from emodarts.reports.cells import describe_genotype, draw_genotype, operation_family

CNN_OPERATIONS = tuple(SPACES["all"].cnn)
SEQUENCE_OPERATIONS = tuple(SPACES["all"].sequence)


def cells(nodes: int, operations: tuple[str, ...]) -> st.SearchStrategy[CellGenotype]:
    names = st.sampled_from([o for o in operations if o != NONE])

    def node(index: int) -> st.SearchStrategy[tuple[Edge, ...]]:
        sources = st.lists(st.integers(0, index + 1), min_size=2, max_size=2, unique=True)
        return st.tuples(sources, names, names).map(
            lambda drawn: (Edge(drawn[1], drawn[0][0]), Edge(drawn[2], drawn[0][1]))
        )

    return st.tuples(*map(node, range(nodes)))


genotypes = st.tuples(st.integers(1, 4), st.integers(1, 4)).flatmap(
    lambda n: st.builds(
        Genotype,
        cells(n[0], CNN_OPERATIONS),
        cells(n[0], CNN_OPERATIONS),
        st.none() | cells(n[1], SEQUENCE_OPERATIONS),
    )
)


def parts(figure: Figure, kind: type) -> list[Any]:
    return [patch for patch in figure.axes[0].patches if type(patch) is kind]


def ends(arrow: FancyArrowPatch) -> tuple[tuple[float, float], tuple[float, float]]:
    """Start and end of an arrow, inches."""
    vertices = arrow._path_original.vertices
    return tuple(vertices[0]), tuple(vertices[-1])


def read_edges(figure: Figure) -> dict[str, set[tuple[int, str, int]]]:
    """Edges ``(source, operation, node)`` of every cell, by following the arrows."""
    axes = figure.axes[0]
    titles = sorted(
        (t.get_position()[1], t.get_text()) for t in axes.texts if "cell" in t.get_text()
    )

    def cell_at(y: float) -> str:
        return [text.split()[0] for top, text in titles if top < y][-1]

    labels = {t.get_position(): t.get_text() for t in axes.texts}
    leaving, boxes, circles = {}, {}, {}
    for box in parts(figure, FancyBboxPatch):
        x, y, width = box.get_x(), box.get_y() + box.get_height() / 2, box.get_width()
        text = labels[(x + width / 2, y)]
        if "_{k-" in text:
            leaving[round(x + width, 6), round(y, 6)] = ["k-2", "k-1"].index(text[4:7])
        else:
            boxes[round(x, 6), round(y, 6)] = text, (round(x + width, 6), round(y, 6))
    for circle in parts(figure, Circle):
        x, y = circle.center
        leaving[round(x + circle.radius, 6), round(y, 6)] = int(labels[circle.center]) + 2
        circles[x, y] = int(labels[circle.center])
    source_of, node_of = {}, {}
    for arrow in parts(figure, FancyArrowPatch):
        start, end = (tuple(np.round(point, 6)) for point in ends(arrow))
        if end in boxes and boxes[end][0] != "$c_k$":
            source_of[end] = leaving[start]
        elif start not in leaving:
            centre = min(circles, key=lambda c: np.hypot(c[0] - end[0], c[1] - end[1]))
            assert np.hypot(centre[0] - end[0], centre[1] - end[1]) < 0.14
            node_of[start] = circles[centre]
    found: dict[str, set[tuple[int, str, int]]] = {text.split()[0]: set() for _, text in titles}
    for left, (operation, right) in boxes.items():
        if operation != "$c_k$":
            found[cell_at(left[1])].add((source_of[left], operation, node_of[right]))
    return found


def assert_clear(figure: Figure) -> None:
    """Labels, boxes and circles lie apart, labels lie in their boxes, lines avoid boxes."""
    figure.canvas.draw()  # puts the legend in its place
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    bounds = Bbox.from_bounds(0, 0, *figure.bbox.size)
    texts = [t.get_window_extent(renderer) for t in figure.axes[0].texts]
    texts += [t.get_window_extent(renderer) for t in figure.legends[0].get_texts()]
    shapes = [
        p.get_window_extent(renderer)
        for p in [*parts(figure, FancyBboxPatch), *parts(figure, Circle)]
    ]
    for group in (texts, shapes):
        assert not [1 for a, b in combinations(group, 2) if a.overlaps(b)]
    for text in texts:
        for holder in [bounds, *(shape for shape in shapes if shape.overlaps(text))]:
            assert holder.x0 < text.x0 < text.x1 < holder.x1
            assert holder.y0 < text.y0 < text.y1 < holder.y1
    for arrow in parts(figure, FancyArrowPatch):
        path = arrow._path_original.transformed(figure.axes[0].transData)
        points = path.interpolated(1).to_polygons(closed_only=False)[0]
        dense = np.concatenate([np.linspace(a, b, 5) for a, b in pairwise(points)])
        for shape in shapes:
            inner = shape.padded(-2)
            inside = (
                (dense[:, 0] > inner.x0)
                & (dense[:, 0] < inner.x1)
                & (dense[:, 1] > inner.y0)
                & (dense[:, 1] < inner.y1)
            )
            # The corners of a circle's bounding box are free.
            if np.isclose(shape.width, shape.height):
                centre = (shape.p0 + shape.p1) / 2
                inside &= np.hypot(*(dense - centre).T) < shape.width / 2 - 2
            assert not inside.any()


@given(genotypes)
@settings(max_examples=3, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_a_drawing_can_be_read_back_and_nothing_overlaps(genotype: Genotype) -> None:
    figure = draw_genotype(genotype)
    assert read_edges(figure) == {
        name: {(e.source, e.operation, i) for i, node in enumerate(cell) for e in node}
        for name, cell in genotype.cells.items()
    }
    assert_clear(figure)


def crowded(operation: str, nodes: int) -> CellGenotype:
    """Every node reads both inputs, so that the most lines pass the most blocks."""
    return tuple((Edge(operation, 0), Edge(operation, 1)) for _ in range(nodes))


@pytest.mark.parametrize("nodes", [1, 4, 7])
def test_crowded_cells_stay_clear(nodes: int) -> None:
    figure = draw_genotype(Genotype(crowded("sep_conv_5x5", nodes), crowded("dil_conv_5x5", nodes)))
    assert_clear(figure)
    assert len(read_edges(figure)["normal"]) == 2 * nodes


@pytest.mark.parametrize("first", [0, 1])
def test_the_line_from_above_enters_the_upper_box(first: int) -> None:
    """In whatever order a node lists its edges, its two lines do not cross."""
    edges = {0: Edge("max_pool_3x3", 0), 1: Edge("avg_pool_3x3", 1)}
    cell = ((edges[first], edges[1 - first]),)
    texts = draw_genotype(Genotype(cell, cell)).axes[0].texts
    height = {t.get_text(): -t.get_position()[1] for t in reversed(texts)}
    assert height["$c_{k-2}$"] > height["$c_{k-1}$"]
    assert height["max_pool_3x3"] > height["avg_pool_3x3"]


def test_every_operation_has_its_label_family_and_colour() -> None:
    figure = draw_genotype(Genotype(crowded("max_pool_3x3", 1), crowded("dil_conv_3x3", 1)))
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert texts.count("max_pool_3x3") == 2
    assert texts.count("dil_conv_3x3") == 2
    for label in ("$c_{k-2}$", "$c_{k-1}$", "$c_k$", "0"):
        assert texts.count(label) == 2
    legend = [t.get_text() for t in figure.legends[0].get_texts()]
    assert legend == ["pooling", "dilated convolution", "concatenation"]


def test_families_keep_operations_apart() -> None:
    families = {o: operation_family(o)[0] for o in (*CNN_OPERATIONS, *SEQUENCE_OPERATIONS)}
    assert families["lstm_2"] == "LSTM"
    assert families["lstm_att_2"] == "LSTM with attention"
    assert families["rnn_1"] == "RNN"
    assert families["rnn_att_1"] == "RNN with attention"
    assert families["skip_connect"] == "skip connection"
    assert [o for o, family in families.items() if family == "other"] == [NONE]
    colours = {operation_family(o) for o in families}
    assert len({family for family, _ in colours}) == len({colour for _, colour in colours}) == 9


def test_the_same_genotype_is_drawn_the_same() -> None:
    genotype = Genotype(crowded("max_pool_3x3", 3), crowded("skip_connect", 3))
    first, second = (draw_genotype(genotype) for _ in range(2))
    for figure in (first, second):
        figure.canvas.draw()
    assert np.array_equal(
        np.asarray(first.canvas.buffer_rgba()),  # type: ignore[attr-defined]
        np.asarray(second.canvas.buffer_rgba()),  # type: ignore[attr-defined]
    )


def test_a_genotype_in_words() -> None:
    cell = (
        (Edge("max_pool_3x3", 0), Edge("skip_connect", 1)),
        (Edge("sep_conv_3x3", 2), Edge("skip_connect", 1)),
    )
    words = describe_genotype(Genotype(cell, crowded("dil_conv_3x3", 2), crowded("lstm_1", 1)))
    assert words == (
        "Normal cell: node 0 is max_pool_3x3 of c_{k-2} plus skip_connect of c_{k-1}; "
        "node 1 is sep_conv_3x3 of node 0 plus skip_connect of c_{k-1}. "
        "Reduction cell: node 0 is dil_conv_3x3 of c_{k-2} plus dil_conv_3x3 of c_{k-1}; "
        "node 1 is dil_conv_3x3 of c_{k-2} plus dil_conv_3x3 of c_{k-1}. "
        "Sequence cell: node 0 is lstm_1 of c_{k-2} plus lstm_1 of c_{k-1}. "
        "The output c_k of a cell concatenates its nodes."
    )


@pytest.fixture(scope="module")
def with_every_operation() -> Figure:
    names = [o for o in CNN_OPERATIONS if o != NONE]
    cell = tuple((Edge(one, 0), Edge(other, 1)) for one, other in pairwise(names))
    return draw_genotype(Genotype(cell, cell))


@pytest.mark.parametrize("operation", [o for o in CNN_OPERATIONS if o != NONE])
def test_labels_stand_out_from_their_boxes(with_every_operation: Figure, operation: str) -> None:
    """A contrast of at least 4.5 to 1, as WCAG asks of text."""
    figure = with_every_operation
    text = next(t for t in figure.axes[0].texts if t.get_text() == operation)
    x, y = text.get_position()
    box = next(
        b
        for b in parts(figure, FancyBboxPatch)
        if np.allclose((b.get_x() + b.get_width() / 2, b.get_y() + b.get_height() / 2), (x, y))
    )
    bright, dark = sorted(map(luminance, (box.get_facecolor(), text.get_color())), reverse=True)
    assert (bright + 0.05) / (dark + 0.05) >= 4.5


def luminance(colour: Any) -> float:
    channels = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
