"""What figures show: the numbers behind lines, labels and legends."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from emodarts.errors import RunError
from emodarts.recipe import SPACES
from emodarts.reports.plots import (
    Curve,
    agreement_figure,
    alpha_figure,
    confusion_figure,
    describe_agreement,
    describe_alphas,
    describe_confusion,
    describe_search,
    describe_training,
    drawable,
    mean_weights,
    search_figure,
    training_figure,
)

CNN_OPERATIONS = tuple(SPACES["all"].cnn)
SEQUENCE_OPERATIONS = tuple(SPACES["all"].sequence)


def named_lines(axes: Axes) -> dict[str, Any]:
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


def legend(axes: Axes) -> list[str]:
    found = axes.get_legend()
    return [] if found is None else [text.get_text() for text in found.get_texts()]


def curve(values: dict[str, list[float]], chosen: int | None = None) -> Curve:
    n = len(next(iter(values.values())))
    columns = {name: np.array(column, dtype=float) for name, column in values.items()}
    return Curve({"epoch": np.arange(1.0, n + 1), **columns}, chosen)


def test_confusion_is_in_percent_of_the_truth_with_counts() -> None:
    figure = confusion_figure([[3, 1, 0], [0, 0, 0], [1, 0, 1]], ["a", "$b$", "$"])
    axes = figure.axes[0]
    texts = {(int(t.get_position()[1]), int(t.get_position()[0])): t.get_text() for t in axes.texts}
    assert texts[0, 0] == "75.0 %\n(3)"
    assert texts[0, 1] == "25.0 %\n(1)"
    assert texts[2, 2] == "50.0 %\n(1)"
    assert [texts[1, k] for k in range(3)] == ["–"] * 3
    assert [t.get_text() for t in axes.get_yticklabels()] == ["a", "$b$", "$"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    assert np.array_equal(np.asarray(axes.images[0].get_array())[0], [75, 25, 0])
    figure.canvas.draw()


def test_names_of_any_script_are_drawn_without_boxes() -> None:
    """A box comes with a warning, which is an error here."""
    classes = [
        "Wut",
        "\u0433\u043d\u0435\u0432",
        "\u03b8\u03c5\u03bc\u03cc\u03c2",
        "\u6012\u308a",
        "\u63e9\u0378",
        "\u063a\u0636\u0628",
        "\u0915\u094d\u0930",
    ]
    figure = confusion_figure(np.eye(7, dtype=int).tolist(), classes)
    figure.canvas.draw()
    shown = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert shown[:3] == classes[:3]
    assert shown[3] in (classes[3], "class 4")  # as fonts are
    assert shown[4:] == ["class 5", "class 6", "class 7"]


def test_a_font_is_looked_for_that_has_the_characters() -> None:
    """Script capitals are in the STIX fonts that come with matplotlib, but not in the first."""
    names, fonts = drawable(["a", "\U0001d49c"])
    assert names == ["a", "\U0001d49c"]
    assert fonts[0] == "DejaVu Sans"
    assert len(fonts) == 2


def test_training_shows_the_mean_of_folds_and_marks_chosen_epochs() -> None:
    first = {
        "train_loss": [3, 2, 1.0],
        "validation_loss": [4, 3, 5.0],
        "train_ua": [0.2, 0.4, 0.6],
        "validation_ua": [0.1, 0.3, 0.2],
    }
    second = {name: [value + 0.2 for value in column] for name, column in first.items()}
    loss, ua = training_figure([curve(first, chosen=2), curve(second, chosen=1)]).axes
    lines = named_lines(ua)
    assert lines["training"].get_ydata() == pytest.approx([30, 50, 70])
    assert lines["inner validation"].get_ydata() == pytest.approx([20, 40, 30])
    dots = [
        (line.get_xdata()[0], line.get_ydata()[0])
        for line in ua.lines
        if line.get_label() == "chosen epoch"
    ]
    assert np.allclose(dots, [(2, 30), (1, 30)])
    assert named_lines(loss)["training"].get_ydata() == pytest.approx([3.1, 2.1, 1.1])
    assert legend(loss) == legend(ua) == ["training", "inner validation", "chosen epoch"]


def test_the_mean_ends_with_the_shortest_curve() -> None:
    curves = [curve({"train_loss": [4, 3, 2.0]}), curve({"train_loss": [2, 1.0]})]
    loss, ua = training_figure(curves).axes
    mean = named_lines(loss)["training"]
    assert mean.get_xdata() == pytest.approx([1, 2])
    assert mean.get_ydata() == pytest.approx([3, 2])
    assert [text.get_text() for text in ua.texts] == ["not measured"]


def test_a_dot_falls_back_to_training_where_nothing_was_validated() -> None:
    values = {"train_loss": [3, 2.0], "validation_loss": [np.nan, np.nan]}
    loss = training_figure([curve(values, chosen=2)]).axes[0]
    assert legend(loss) == ["training", "chosen epoch"]
    assert named_lines(loss)["chosen epoch"].get_ydata() == pytest.approx([2])


def test_search_shows_losses_ua_skips_and_entropy() -> None:
    values = {
        "weight_loss": [2, 1.0],
        "alpha_loss": [np.nan, 1.5],
        "alpha_ua": [0.3, 0.5],
        "skips_normal": [0, 2.0],
        "skips_reduction": [1, 1.0],
        "entropy_normal": [2.0, 1.9],
        "entropy_reduction": [2.0, 1.8],
    }
    loss, ua, skips, entropy = search_figure([curve(values)]).axes
    assert named_lines(loss)["weights"].get_ydata() == pytest.approx([2, 1])
    assert named_lines(loss)["alphas"].get_ydata() == pytest.approx([np.nan, 1.5], nan_ok=True)
    assert named_lines(ua)["alpha data"].get_ydata() == pytest.approx([30, 50])
    assert named_lines(skips)["normal"].get_ydata() == pytest.approx([0, 2])
    assert legend(entropy) == legend(skips) == ["normal", "reduction"]


def alpha_records(cells: dict[str, int], edges: int = 5, epochs: int = 3) -> list[dict[str, Any]]:
    generator = np.random.default_rng(0)
    return [
        {
            "epoch": e,
            "alphas": {c: generator.normal(size=(edges, n)).tolist() for c, n in cells.items()},
        }
        for e in range(1, epochs + 1)
    ]


OPERATIONS = {
    "normal": CNN_OPERATIONS,
    "reduction": CNN_OPERATIONS,
    "sequence": SEQUENCE_OPERATIONS,
}


def test_alphas_show_every_operation_as_a_softmax_weight() -> None:
    records = alpha_records({"normal": 8, "reduction": 8, "sequence": 14})
    figure = alpha_figure(mean_weights([records], OPERATIONS))
    assert [axes.get_title() for axes in figure.axes] == [f"{c} cell" for c in OPERATIONS]
    for axes, (cell, names) in zip(figure.axes, OPERATIONS.items(), strict=True):
        assert legend(axes) == list(names)
        weights = np.array([named_lines(axes)[name].get_ydata() for name in names])
        assert weights.sum(0) == pytest.approx(1)
        raw = np.exp(np.array(records[1]["alphas"][cell]))
        expected = (raw / raw.sum(1, keepdims=True)).mean(0)
        assert weights[:, 1] == pytest.approx(expected)
        looks = {(line.get_color(), str(line.get_linestyle())) for line in axes.lines}
        assert len(looks) == len(names), "two operations look alike"


def test_alphas_are_averaged_over_searches_that_reached_the_epoch() -> None:
    zeros = [{"epoch": 1, "alphas": {"normal": [[0.0, 0.0]]}}]
    other = [
        {"epoch": 1, "alphas": {"normal": [[np.log(3), 0.0]]}},
        {"epoch": 2, "alphas": {"normal": [[9.0, 0.0]]}},
    ]
    weights = mean_weights([zeros, other], {"normal": ("skip_connect", "none")})
    axes = alpha_figure(weights).axes[0]
    line = named_lines(axes)["skip_connect"]
    assert line.get_xdata() == pytest.approx([1])
    assert line.get_ydata() == pytest.approx([(0.5 + 0.75) / 2])
    assert "epoch 1. normal cell: skip_connect 0.625, none 0.375." in describe_alphas(weights)


def test_alphas_of_another_space_are_refused() -> None:
    with pytest.raises(RunError, match=r"normal cell have shape \(5, 7\).*8 operations"):
        mean_weights([alpha_records({"normal": 7})], OPERATIONS)


@pytest.mark.parametrize(("n", "numbers"), [(1, 9), (6, 0)])
def test_agreement_is_shown_in_colours_and_of_few_genotypes_in_numbers(
    n: int, numbers: int
) -> None:
    trials = [(0, 0), (0, 1), (1, 0)] * n
    shares = [[1.0, 0.5, 0.1], [0.5, 1.0, 0.0], [0.1, 0.0, 1.0]]
    axes = agreement_figure(trials, np.tile(shares, (n, n)).tolist()).axes[0]
    assert len(axes.texts) == numbers
    assert [text.get_text() for text in axes.texts][:3] == ["100", "50", "10"][:numbers]
    assert axes.get_xlabel() == "fold, seed"


def test_agreement_in_words() -> None:
    shares = [[1.0, 0.5, 0.1], [0.5, 1.0, 0.0], [0.1, 0.0, 1.0]]
    assert describe_agreement([(0, 0), (0, 1), (1, 0)], shares) == (
        "Share of edges that each two of 3 genotypes have in common, from 0 % (fold 0 seed 1 and "
        "fold 1 seed 0) to 50 % (fold 0 seed 0 and fold 0 seed 1). Seeds of one fold share 50 % in "
        "the mean."
    )


def test_of_many_curves_the_faint_lines_skip_epochs_and_the_mean_does_not() -> None:
    values = {"epoch": list(range(1, 101)), "train_loss": [1.0] * 100}
    loss = training_figure([curve(values) for _ in range(40)]).axes[0]
    *faint, mean = (len(line.get_xdata()) for line in loss.lines)
    assert set(faint) == {50}
    assert mean == 100


def test_figures_leave_no_pyplot_state() -> None:
    code = (
        "import sys; from emodarts.reports import cells, plots, report;"
        "assert 'matplotlib' not in sys.modules;"
        "plots.confusion_figure([[1]], ['a']).canvas.draw();"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Words in place of figures


def test_a_confusion_matrix_in_words() -> None:
    assert describe_confusion([[3, 1, 0], [0, 0, 0], [2, 0, 2]], ["a", "b", "c"]) == (
        "Confusion matrix: predicted classes for each true class. a: 75.0 % a, 25.0 % b; "
        "b: no utterances; c: 50.0 % a, 50.0 % c."
    )


def test_curves_in_words_are_the_ends_of_the_drawn_means() -> None:
    curves = [curve({"train_loss": [4, 3, 2.0]}), curve({"train_loss": [2, 1.0]})]
    assert describe_training(curves) == (
        "Loss and UA in training at the first and the last epoch, means over 2 folds and seeds: "
        "training loss 3.00, then 2.00."
    )


def test_what_was_not_measured_is_left_out_of_the_words() -> None:
    values = {"alpha_loss": [np.nan, 1.5, 1.25], "alpha_ua": [0.25, 0.5, 0.625]}
    assert describe_search([curve(values)]) == (
        "Losses, UA, skips and entropies in the search at the first and the last epoch: loss of "
        "the alphas 1.50, then 1.25; UA on the data of the alphas 25.0 %, then 62.5 %."
    )


def test_all_are_figures() -> None:
    assert isinstance(search_figure([curve({"weight_loss": [1.0]})]), Figure)
