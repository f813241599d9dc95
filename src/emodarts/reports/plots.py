"""Figures of a run: confusion matrix, speakers, reliability, sizes, curves, paths of the alphas.

Figures are made without pyplot, so no state is shared and no window is opened. Pure black stands
for ink and pure white for paper, which a page may turn round in the dark; text on a colour is
therefore nearly black or nearly white.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emodarts.errors import RunError
from emodarts.reports.cells import operation_family
from emodarts.scoring.confidence import Reliability

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

_BLUE, _ORANGE, _GREEN, _PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
_CELLS = {"normal": _BLUE, "reduction": _ORANGE, "sequence": _GREEN}
_FAINT = 0.35
DARK_TEXT, LIGHT_TEXT = "#111111", "#FDFDFD"
_GREY = "#7A7A7A"
_FONT = "DejaVu Sans"
"""The font that comes with matplotlib: Latin, Greek, Cyrillic and more."""
_POINTS = 2000
"""Points of all faint lines of one colour, about."""
_LONGEST = 32
"""Characters of a name in a figure."""
_MANY = 40
"""Lines from which on a legend has a fixed place."""
_CROWD = 16
"""Genotypes from which on their agreement is shown by colours alone."""
MOST_NAMED = 40
"""Speakers that are named, in a figure or a table."""
_STYLES: tuple[Any, ...] = ("solid", "dashed", "dotted", "dashdot")


@dataclass(frozen=True)
class Curve:
    """Columns of one fold and seed, over its epochs.

    Attributes
    ----------
    columns : values by column name [shape=(epochs,)], ``epoch`` among them; NaN where a
        value was not measured.
    chosen : the epoch that the trained network comes from, or None.
    """

    columns: Mapping[str, Floats]
    chosen: int | None = None


def confusion_figure(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> Figure:
    """Draw a confusion matrix: each row in percent of its truth, with the counts.

    Parameters
    ----------
    confusion : counts [classes][classes], rows truth, columns predicted.
    classes : their names, in order. A class without truth has an empty row.
    """
    counts = np.array(confusion, dtype=np.int64).reshape(len(classes), len(classes))
    totals = counts.sum(axis=1, keepdims=True)
    percent = 100 * counts / np.where(totals > 0, totals, 1)
    side = 1.8 + 0.72 * len(classes)
    figure = new_figure(side + 1.4, side)
    axes = figure.add_subplot()
    image = axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(image, ax=axes, label="% of the true class", shrink=0.8)
    ticks = range(len(classes))
    names, fonts = drawable(classes)
    # A class may be called anything.
    plain: dict[str, Any] = {"parse_math": False, "fontfamily": fonts}
    axes.set_xticks(ticks, names, rotation=45, ha="right", rotation_mode="anchor", **plain)
    axes.set_yticks(ticks, names, **plain)
    axes.set(xlabel="predicted", ylabel="true")
    for row in ticks:
        for column in ticks:
            share = percent[row, column]
            text = f"{share:.1f} %\n({counts[row, column]})" if totals[row] else "–"
            colour = LIGHT_TEXT if share > 65 else DARK_TEXT
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    return figure


def drawable(classes: Sequence[str], what: str = "class") -> tuple[list[str], list[str]]:
    """Names of classes, or of ``what``, as they can be drawn here, and the fonts that do it.

    A name is ``class 3``, for the third, if no font has its characters, or if they change their
    shape or order beside others, as in Arabic or Hindi. Long names lose their end.
    """
    names, fonts = [], [_FONT]
    for number, name in enumerate(classes, 1):
        text = unicodedata.normalize("NFC", name)
        text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
        font = None if any(map(_changes, text)) else _font_for(text)
        names.append(f"{what} {number}" if font is None else text)
        if font is not None and font not in fonts:
            fonts.append(font)
    return names, fonts


def _changes(character: str) -> bool:
    return unicodedata.category(character) in (
        "Mn",
        "Mc",
        "Cc",
        "Cf",
        "Zl",
        "Zp",
    ) or unicodedata.bidirectional(character) in ("R", "AL")


@lru_cache
def _font_for(text: str) -> str | None:
    """A font that has what the standard one lacks of a text."""
    from matplotlib.font_manager import findfont, fontManager, get_font

    def lacking(path: str) -> set[str]:
        font = get_font(path)
        return {c for c in text if not font.get_char_index(ord(c))}

    missing = lacking(findfont(_FONT))
    if not missing:
        return _FONT
    for entry in sorted(fontManager.ttflist, key=lambda entry: (entry.name, entry.fname)):
        # The last resort has a box for every character.
        if not entry.name.startswith("Last Resort") and not missing & lacking(entry.fname):
            return str(entry.name)
    return None


def describe_confusion(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    """Say in words what :func:`confusion_figure` shows."""
    parts = []
    for name, row in zip(classes, np.array(confusion, dtype=np.int64), strict=True):
        shares = [
            f"{100 * row[k] / row.sum():.1f} % {classes[k]}" for k in np.argsort(-row) if row[k]
        ]
        parts.append(f"{name}: {', '.join(shares) or 'no utterances'}")
    return f"Confusion matrix: predicted classes for each true class. {'; '.join(parts)}."


def speaker_figure(scores: Mapping[str, float]) -> Figure:
    """Draw the UA of each speaker as a dot, the best on top, and their mean as a line.

    Of many speakers, names are left out.

    Parameters
    ----------
    scores : UA by speaker, as a fraction.
    """
    ordered = sorted(scores.items(), key=lambda item: (item[1], item[0]))
    values = [100 * value for _, value in ordered]
    named = len(ordered) <= MOST_NAMED
    figure = new_figure(5.6, 0.9 + 0.17 * len(ordered) if named else 4.0)
    axes = figure.add_subplot()
    places = range(1, len(ordered) + 1)
    if named:
        names, fonts = drawable([name for name, _ in ordered], "speaker")
        axes.hlines(places, 0, values, color=_BLUE, alpha=_FAINT, linewidth=1)
        axes.set_yticks(places, names, fontsize=8, parse_math=False, fontfamily=fonts)
        axes.set_ylim(0.4, len(ordered) + 0.6)
    else:
        axes.set_ylabel("speakers, from the lowest")
    axes.plot(values, places, "o", color=_BLUE, markersize=5 if named else 2)
    axes.axvline(float(np.mean(values)), color=_ORANGE, linewidth=1, label="mean of speakers")
    axes.set(xlabel="UA, %", xlim=(0, 101))
    axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def reliability_figure(found: Reliability) -> Figure:
    """Draw accuracy by confidence against the diagonal, and the counts of the bins below."""
    figure = new_figure(4.2, 4.4)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    width = 100 * (found.bins[0].high - found.bins[0].low)
    filled = [b for b in found.bins if b.count]
    places = [50 * (b.low + b.high) for b in filled]
    above.bar(places, [100 * b.accuracy for b in filled], 0.92 * width, color=_BLUE)
    above.plot([0, 100], [0, 100], color=_ORANGE, linewidth=1.4, label="as sure as right")
    means = [100 * b.confidence for b in filled]
    above.plot(means, [100 * b.accuracy for b in filled], "o", color="black", markersize=3.5)
    above.set(ylabel="accuracy, %", xlim=(0, 100), ylim=(0, 101))
    above.legend(fontsize=8, frameon=False, loc="upper left")
    below.bar(places, [b.count for b in filled], 0.92 * width, color=_GREY)
    below.set(xlabel="confidence, %", ylabel="answers")
    return figure


@dataclass(frozen=True)
class Point:
    """A system in a plot of UA against parameters.

    Attributes
    ----------
    ua, sd : as fractions; ``sd`` None where it is not known.
    """

    name: str
    parameters: int
    ua: float
    sd: float | None


def size_figure(systems: Sequence[Point], published: Sequence[Point]) -> Figure:
    """Draw UA against parameters: systems as filled dots, published ones as hollow squares.

    Labels stand in a legend of numbers below, so that none lies on another.
    """
    points = [*systems, *published]
    figure = new_figure(5.4, 3.2 + 0.17 * len(points))
    axes = figure.add_subplot()
    names, fonts = drawable([point.name for point in systems], "system")
    labels = [*names, *(f"{point.name}, as published" for point in published)]
    for number, (point, label) in enumerate(zip(points, labels, strict=True), 1):
        own = number <= len(systems)
        colour = _BLUE if own else _GREY
        axes.errorbar(
            [point.parameters],
            [100 * point.ua],
            yerr=None if point.sd is None else [100 * point.sd],
            fmt="o" if own else "s",
            color=colour,
            markerfacecolor=colour if own else "white",
            markersize=6,
            elinewidth=1,
            capsize=2,
            label=f"{number}  {label}",
        )
        axes.annotate(
            str(number),
            (point.parameters, 100 * point.ua),
            xytext=(6, 4),
            textcoords="offset points",
            fontsize=8,
        )
    lowest = 100 * min(point.ua - (point.sd or 0) for point in points)
    axes.set(xscale="log", xlabel="parameters", ylabel="UA, %", ylim=(max(0, lowest - 5), 101))
    axes.margins(x=0.1)
    legend = figure.legend(fontsize=8, frameon=False, loc="outside lower left", handletextpad=0.4)
    for text in legend.get_texts():
        text.set(parse_math=False, fontfamily=fonts)
    return figure


def describe_sizes(systems: Sequence[Point], published: Sequence[Point]) -> str:
    """Say in words what :func:`size_figure` shows."""
    parts = [f"{p.name}: {p.parameters:,} parameters, UA {100 * p.ua:.1f} %" for p in systems]
    parts += [
        f"{p.name}, as published: {p.parameters:,} parameters, UA {100 * p.ua:.1f} %"
        for p in published
    ]
    return f"UA against parameters. {'; '.join(parts)}."


def training_figure(curves: Sequence[Curve]) -> Figure:
    """Draw loss and UA on the training and the inner validation data over the epochs.

    Every fold and seed is a faint line with a dot at its chosen epoch; their mean is bold.
    """
    figure = new_figure(8.4, 3.3)
    loss, ua = figure.subplots(1, 2)
    for part, name, colour in (
        ("train", "training", _BLUE),
        ("validation", "inner validation", _ORANGE),
    ):
        _draw_curves(loss, curves, f"{part}_loss", colour, name)
        _draw_curves(ua, curves, f"{part}_ua", colour, name, scale=100)
    loss.set(xlabel="epoch", ylabel="loss")
    ua.set(xlabel="epoch", ylabel="UA, %", ylim=(0, 101))
    for curve in curves:
        _mark_chosen(loss, curve, "validation_loss", "train_loss")
        _mark_chosen(ua, curve, "validation_ua", "train_ua", scale=100)
    for axes in (loss, ua):
        _finish(axes)
    return figure


def search_figure(curves: Sequence[Curve]) -> Figure:
    """Draw a search: losses, UA on the alpha data, skips, and entropy of the alphas.

    Entropy is that of the softmax over candidate operations, in nats, mean over edges. Faint
    lines are folds and seeds, bold ones their mean.
    """
    figure = new_figure(8.4, 5.8)
    (loss, ua), (skips, entropy) = figure.subplots(2, 2)
    _draw_curves(loss, curves, "weight_loss", _BLUE, "weights")
    _draw_curves(loss, curves, "alpha_loss", _ORANGE, "alphas")
    _draw_curves(ua, curves, "alpha_ua", _PINK, "alpha data", scale=100)
    for cell, colour in _CELLS.items():
        _draw_curves(skips, curves, f"skips_{cell}", colour, cell)
        _draw_curves(entropy, curves, f"entropy_{cell}", colour, cell)
    loss.set(xlabel="epoch", ylabel="loss")
    ua.set(xlabel="epoch", ylabel="UA, %", ylim=(0, 101))
    skips.set(xlabel="epoch", ylabel="skip_connect edges")
    skips.set_ylim(bottom=-0.2)
    entropy.set(xlabel="epoch", ylabel="entropy of alphas, nats")
    for axes in (loss, ua, skips, entropy):
        _finish(axes)
    return figure


def eigenvalue_figure(curves: Sequence[Curve]) -> Figure:
    """Draw the dominant eigenvalue of the Hessian of the alphas' loss over the epochs."""
    figure = new_figure(5.2, 3.0)
    axes = figure.add_subplot()
    _draw_curves(axes, curves, "eigenvalue", _BLUE, "dominant eigenvalue")
    axes.set(xlabel="epoch", ylabel="dominant eigenvalue")
    _finish(axes)
    return figure


def describe_eigenvalues(curves: Sequence[Curve]) -> str:
    """Say in words what :func:`eigenvalue_figure` shows."""
    return _describe(
        "Dominant eigenvalue of the Hessian of the alphas' loss", curves, {"eigenvalue": "mean"}
    )


def describe_training(curves: Sequence[Curve]) -> str:
    """Say in words what :func:`training_figure` shows."""
    return _describe(
        "Loss and UA in training",
        curves,
        {
            "train_loss": "training loss",
            "validation_loss": "inner validation loss",
            "train_ua": "training UA",
            "validation_ua": "inner validation UA",
        },
    )


def describe_search(curves: Sequence[Curve]) -> str:
    """Say in words what :func:`search_figure` shows."""
    cells = {f"skips_{cell}": f"skip_connect edges of the {cell} cell" for cell in _CELLS}
    cells |= {f"entropy_{cell}": f"entropy of the alphas of the {cell} cell" for cell in _CELLS}
    losses = {"weight_loss": "loss of the weights", "alpha_loss": "loss of the alphas"}
    return _describe(
        "Losses, UA, skips and entropies in the search",
        curves,
        {**losses, "alpha_ua": "UA on the data of the alphas", **cells},
    )


def _describe(what: str, curves: Sequence[Curve], names: Mapping[str, str]) -> str:
    """First and last value of the mean of each column that was measured."""
    means = f", means over {len(curves)} folds and seeds" if len(curves) > 1 else ""
    parts = []
    for column, name in names.items():
        _, mean = _mean_curve(curves, column)
        measured = mean[np.isfinite(mean)]
        if measured.size:
            first, last = (
                f"{100 * value:.1f} %" if column.endswith("_ua") else f"{value:.2f}"
                for value in (measured[0], measured[-1])
            )
            parts.append(f"{name} {first}, then {last}")
    listed = "; ".join(parts) or "nothing was measured"
    return f"{what} at the first and the last epoch{means}: {listed}."


def agreement_figure(
    trials: Sequence[tuple[int | None, int]], shares: Sequence[Sequence[float]]
) -> Figure:
    """Draw the share of edges that each two genotypes have in common, of few also as numbers.

    Parameters
    ----------
    trials : fold and seed of each genotype.
    shares : [genotypes][genotypes], as fractions.
    """
    percent = 100 * np.array(shares)
    few = len(trials) < _CROWD
    side = 1.7 + (0.32 if few else 0.13) * len(trials)
    figure = new_figure(side + 0.9, side)
    axes = figure.add_subplot()
    image = axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(image, ax=axes, label="% of edges in common", shrink=0.8)
    names, what = _short_names(trials)
    ticks: dict[str, Any] = {"labels": names, "fontsize": 7 if few else 5}
    axes.set_xticks(range(len(names)), rotation=90 if "," in what else 0, **ticks)
    axes.set_yticks(range(len(names)), **ticks)
    axes.set(xlabel=what, ylabel=what)
    for row, column in np.ndindex(percent.shape if few else (0, 0)):
        share = percent[row, column]
        colour = LIGHT_TEXT if share > 65 else DARK_TEXT
        axes.text(column, row, f"{share:.0f}", ha="center", va="center", color=colour, fontsize=6)
    return figure


def _short_names(trials: Sequence[tuple[int | None, int]]) -> tuple[list[str], str]:
    """Names of trials by what tells them apart, and what that is."""
    if len({fold for fold, _ in trials}) == 1:
        return [str(seed) for _, seed in trials], "seed"
    if len({seed for _, seed in trials}) == 1:
        return [str(fold) for fold, _ in trials], "fold"
    return [f"{fold}, {seed}" for fold, seed in trials], "fold, seed"


def describe_agreement(
    trials: Sequence[tuple[int | None, int]], shares: Sequence[Sequence[float]]
) -> str:
    """Say in words what :func:`agreement_figure` shows, and how seeds of one fold agree."""
    pairs = [(shares[i][j], i, j) for i in range(len(trials)) for j in range(i)]
    names = [f"fold {fold} seed {seed}" for fold, seed in trials]
    (low, a, b), (high, c, d) = min(pairs), max(pairs)
    text = (
        f"Share of edges that each two of {len(trials)} genotypes have in common, from "
        f"{100 * low:.0f} % ({names[b]} and {names[a]}) to {100 * high:.0f} % "
        f"({names[d]} and {names[c]})."
    )
    of_fold = [share for share, i, j in pairs if trials[i][0] == trials[j][0]]
    if 0 < len(of_fold) < len(pairs):
        text += f" Seeds of one fold share {100 * np.mean(of_fold):.0f} % in the mean."
    return text


@dataclass(frozen=True)
class Weights:
    """Softmax weights of the operations of a cell, means over its edges and over searches.

    Attributes
    ----------
    operations : their names.
    epochs : those that all searches reached.
    values : [shape=(epochs, operations)].
    """

    operations: tuple[str, ...]
    epochs: tuple[int, ...]
    values: Floats


def mean_weights(
    searches: Sequence[Sequence[Mapping[str, Any]]], operations: Mapping[str, Sequence[str]]
) -> dict[str, Weights]:
    """Softmax weights by cell.

    Parameters
    ----------
    searches : for each fold and seed, the records of its epochs: ``{"epoch": int, "alphas":
        {cell: raw alphas [edges][operations]}}``.
    operations : candidate names of each cell, in the order of the last axis.

    Raises
    ------
    RunError
        If the alphas have another number of operations than ``operations`` names.
    """
    cells = [name for name in _CELLS if name in searches[0][0]["alphas"]]
    return {cell: _mean_weights(searches, cell, tuple(operations[cell])) for cell in cells}


def _mean_weights(
    searches: Sequence[Sequence[Mapping[str, Any]]], cell: str, operations: tuple[str, ...]
) -> Weights:
    from scipy.special import softmax

    found: defaultdict[int, list[Floats]] = defaultdict(list)
    for search in searches:
        for record in search:
            alphas = np.array(record["alphas"][cell], dtype=np.float64)
            if alphas.ndim != 2 or alphas.shape[1] != len(operations):
                raise RunError(
                    f"alphas of the {cell} cell have shape {alphas.shape}; "
                    f"allowed: (edges, {len(operations)} operations)"
                )
            found[int(record["epoch"])].append(softmax(alphas, axis=-1).mean(0))
    epochs = sorted(epoch for epoch, rows in found.items() if len(rows) == len(searches))
    values = np.array([np.mean(found[epoch], axis=0) for epoch in epochs])
    return Weights(operations, tuple(epochs), values)


def alpha_figure(cells: Mapping[str, Weights]) -> Figure:
    """Draw the weight of each operation over the epochs, one plot for each cell."""
    figure = new_figure(2.6 + 3.0 * len(cells), 4.2)
    plots = np.atleast_1d(figure.subplots(1, len(cells)))
    for axes, (cell, weights) in zip(plots, cells.items(), strict=True):
        names = weights.operations
        for column, (name, style) in enumerate(zip(names, line_styles(names), strict=True)):
            axes.plot(weights.epochs, weights.values[:, column], label=name, linewidth=1.4, **style)
        axes.set(title=f"{cell} cell", xlabel="epoch")
        whole_epochs(axes)
        columns = 2 if len(names) > 6 else 1
        axes.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.17),
            ncols=columns,
            fontsize=7,
            frameon=False,
        )
    figure.axes[0].set_ylabel("softmax weight, mean over edges")
    return figure


def describe_alphas(cells: Mapping[str, Weights]) -> str:
    """Say in words what :func:`alpha_figure` shows: the weights at the last epoch."""
    parts = []
    for cell, weights in cells.items():
        last = weights.values[-1]
        listed = [f"{weights.operations[k]} {last[k]:.3f}" for k in np.argsort(-last)]
        parts.append(f"{cell} cell: {', '.join(listed)}")
    epoch = next(iter(cells.values())).epochs[-1]
    return f"Softmax weights of the operations at epoch {epoch}. {'; '.join(parts)}."


def line_styles(names: Sequence[str]) -> list[dict[str, Any]]:
    """Colour by family; members of a family differ by the dashes of the line."""
    seen: defaultdict[str, int] = defaultdict(int)
    styles = []
    for name in names:
        family, colour = operation_family(name)
        styles.append({"color": colour, "linestyle": _STYLES[seen[family] % len(_STYLES)]})
        seen[family] += 1
    return styles


def new_figure(width: float, height: float, arrange: bool = True) -> Figure:
    """An empty figure of a size in inches; ``arrange`` finds the room that its labels need."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained" if arrange else None)
    FigureCanvasAgg(figure)
    return figure


def _draw_curves(
    axes: Axes,
    curves: Sequence[Curve],
    column: str,
    colour: str,
    label: str,
    scale: float = 1.0,
) -> None:
    """Draw a column of every curve that has it: faint lines, and their mean in bold.

    Of many curves, the faint lines skip epochs, so that a page stays small.
    """
    present = _measured(curves, column)
    if len(present) > 1:
        step = -(-sum(len(epochs) for epochs, _ in present) // _POINTS)
        for epochs, values in present:
            axes.plot(
                epochs[::step], scale * values[::step], color=colour, alpha=_FAINT, linewidth=0.8
            )
    if present:
        epochs, mean = _mean_curve(curves, column)
        axes.plot(epochs, scale * mean, color=colour, linewidth=1.8, label=label)


def _measured(curves: Sequence[Curve], column: str) -> list[tuple[Floats, Floats]]:
    """Epochs and values of the curves that have a column."""
    return [
        (curve.columns["epoch"], curve.columns[column])
        for curve in curves
        if column in curve.columns and not np.isnan(curve.columns[column]).all()
    ]


def _mean_curve(curves: Sequence[Curve], column: str) -> tuple[Floats, Floats]:
    """Epochs and mean of a column; it ends where the first curve ends, so always over all."""
    present = _measured(curves, column)
    epochs = min((epochs for epochs, _ in present), key=len, default=np.empty(0))
    values = [values[: len(epochs)] for _, values in present] or [epochs]
    return epochs, np.mean(values, axis=0)


def _mark_chosen(axes: Axes, curve: Curve, *columns: str, scale: float = 1.0) -> None:
    """Put a dot at the chosen epoch, on the first of the columns that was measured there."""
    at = np.flatnonzero(curve.columns["epoch"] == curve.chosen)
    for column in columns:
        if at.size and column in curve.columns and np.isfinite(curve.columns[column][at[0]]):
            value = scale * curve.columns[column][at[0]]
            axes.plot(
                curve.columns["epoch"][at],
                [value],
                "ko",
                markersize=4,
                zorder=3,
                label="chosen epoch",
            )
            return


def _finish(axes: Axes) -> None:
    """Whole epochs on the axis, and a legend that names each thing once."""
    whole_epochs(axes)
    named = {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if named:
        # Looking for the emptiest corner takes long among many lines.
        axes.legend(
            list(named.values()),
            list(named),
            fontsize=8,
            frameon=False,
            loc="best" if len(axes.lines) < _MANY else "upper right",
        )
    else:
        axes.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axes.transAxes)


def whole_epochs(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
