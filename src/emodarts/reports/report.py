"""The report of a run: Markdown and figures from the files in its directory.

A report only shows what a run has written. It scores nothing again and chooses nothing.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emodarts import files
from emodarts.errors import RunError, list_some
from emodarts.experiments.run import DATA, ENVIRONMENT, FORMAT, RECIPE
from emodarts.experiments.trial import GENOTYPE, OPTIMISTIC, RESULT
from emodarts.genotype import Genotype
from emodarts.recipe import OneShotSpec, Recipe, load_recipe
from emodarts.reports import cells, plots, tables
from emodarts.scoring.comparison import paired_test
from emodarts.scoring.predictions import read_predictions
from emodarts.searching import loop as search_loop
from emodarts.training import loop as training_loop

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = "report"
"""Of the report, within the run directory."""

_REQUIRED = (
    *("name", "corpus", "protocol", "split", "seeds", "ua", "wa", "macro_f1", "ua_sd_folds"),
    *("wa_sd_folds", "macro_f1_sd_folds", "ua_sd_seeds", "pooled", "confusion", "classes"),
    *("n_test", "folds", "genotypes"),
)


def load_result(run: Path) -> dict[str, Any]:
    """Read ``result.json`` of a finished run.

    Raises
    ------
    RunError
        If the directory is missing, the run is not finished, or the file is broken.
    """
    if not run.is_dir():
        raise RunError(f"no run directory {run}")
    path = run / RESULT
    if not path.exists():
        raise RunError(
            f"{run} has no scores to report: it has no {RESULT}. Legal: a run whose folds are all "
            "tested; a search, and a model trained with --all-data, test on nobody"
        )
    result = files.read_object(path, RunError, "format")
    if result["format"] != FORMAT:
        raise RunError(f"{path}: format is {result['format']!r}; legal: {FORMAT!r}")
    return files.read_object(path, RunError, *_REQUIRED)


def write_report(run: Path) -> Path:
    """Write ``report/report.md`` and its figures into a run directory.

    Links are relative, so the run directory can be moved. Files of an earlier report are
    replaced.

    Returns
    -------
    Path
        Of the Markdown file.

    Raises
    ------
    RunError, RecipeError, GenotypeError
        If the run is not finished or one of its files is broken.
    WriteError
        If the report cannot be written.
    """
    result = load_result(run)
    recipe = load_recipe(run / RECIPE)
    searched = [
        folder for folder in _trials(run, result) if (folder / search_loop.HISTORY).exists()
    ]
    origin = _origin(recipe, result)
    figures: dict[str, Figure] = {}
    sections = [
        f"# {tables.escape(result['name'])} on {tables.escape(result['corpus'])}",
        *_result_section(run, result, figures),
        *_setup_section(run, result, recipe, origin),
        *_cells_section(result, origin, figures),
        *_training_section(run, result, figures),
        *_search_section(searched, recipe, figures),
    ]
    folder = run / FOLDER
    for name, figure in figures.items():
        files.write_bytes(folder / name, _png(figure))
    path = folder / "report.md"
    files.write_text(path, "\n\n".join(sections) + "\n")
    return path


def draw_cells(trial: Path) -> Path:
    """Draw the genotype in a trial's folder as ``cells.png`` beside it.

    Raises
    ------
    GenotypeError
        If ``genotype.json`` is missing or broken.
    """
    path = trial / "cells.png"
    files.write_bytes(path, _png(cells.draw_genotype(Genotype.load(trial / GENOTYPE))))
    return path


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _image(figures: dict[str, Figure], name: str, figure: Figure, text: str) -> str:
    figures[name] = figure
    return f"![{text}]({name})"


# Sections


def _result_section(run: Path, result: Mapping[str, Any], figures: dict[str, Figure]) -> list[str]:
    matrix = plots.confusion_figure(result["confusion"], result["classes"])
    return [
        "## Result",
        tables.result_table([result]),
        *_optimistic_line(run, result),
        "## Folds",
        tables.fold_table(result),
        "## Classes",
        tables.class_table(result),
        _image(figures, "confusion.png", matrix, "Confusion matrix"),
    ]


def _optimistic_line(run: Path, result: Mapping[str, Any]) -> list[str]:
    """What choosing on the test fold would have shown, where every fold and seed has told."""
    paths = [folder / OPTIMISTIC for folder in _trials(run, result)]
    if not all(path.exists() for path in paths):
        return []
    key = "test_ua_of_best_test_epoch"
    found = np.array(
        [files.read_object(path, RunError, key)[key] for path in paths], dtype=np.float64
    )
    mean = float(found.mean())
    return [
        f"*Optimistic, not a result:* had each epoch been chosen on the test fold itself, mean UA "
        f"would read {tables.percent(mean)} %. Test scores decided nothing in this run."
    ]


def _origin(recipe: Recipe, result: Mapping[str, Any]) -> str:
    """Where the genotypes come from: a recipe can search, but a run can be given one."""
    if result["genotypes"] == "searched" and isinstance(recipe.search, OneShotSpec):
        return f"searched ({recipe.search.epochs} epochs, order {recipe.search.order})"
    return "drawn at random" if result["genotypes"] == "random" else "given, not searched"


def _setup_section(run: Path, result: Mapping[str, Any], recipe: Recipe, origin: str) -> list[str]:
    data = files.read_object(run / DATA, RunError, "n_utterances", "n_speakers", "digest")
    environment = files.read_object(run / ENVIRONMENT, RunError)
    merged = [entry for entry in result.get("labels") or () if "=" in entry]
    facts = {
        "corpus": result["corpus"],
        "utterances": f"{data['n_utterances']:,} of {data['n_speakers']} speakers",
        "classes": ", ".join(result["classes"]),
        **({"merged": "; ".join(merged)} if merged else {}),
        "test utterances": f"{result['n_test']:,}",
        "folds": f"{len(result['folds'])} ({result['split']})",
        "protocol": result["protocol"],
        "seeds": ", ".join(map(str, result["seeds"])),
        **_recipe_facts(recipe),
        "genotypes": origin,
        "data digest": data["digest"],
    }
    return [
        "## What was run",
        tables.markdown_table(["what", "value"], facts.items()),
        *_left_out(data),
        "All settings: [recipe.yaml](../recipe.yaml). Folds: [folds.json](../folds.json). "
        "Every prediction: [predictions.csv](../predictions.csv).",
        "### Hardware and software",
        tables.markdown_table(["what", "value"], _flat(environment).items()),
    ]


def _recipe_facts(recipe: Recipe) -> dict[str, str]:
    return {
        "features": f"{recipe.features.kind}, {recipe.features.n_features} x "
        f"{recipe.features.n_frames} (frequency x time), {recipe.features.duration:g} s at "
        f"{recipe.features.sample_rate} Hz",
        "SeqNN": recipe.network.seqnn.mode,
        "training": f"{recipe.training.epochs} epochs, epoch chosen by {recipe.training.select}",
    }


def _left_out(data: Mapping[str, Any]) -> list[str]:
    """Count what did not take part, by reason."""
    lines = []
    for key, what in (("skipped", "Left out of the corpus"), ("bad", "Unreadable and left out")):
        reasons = Counter(reason for _, reason in data.get(key, ()))
        if reasons:
            listed = list_some([f"{n:,} {reason}" for reason, n in reasons.most_common()], 8)
            lines.append(f"{what}: {tables.escape(listed)}.")
    return lines


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested mappings as one, with dotted keys."""
    flat: dict[str, str] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            flat |= _flat(item, f"{prefix}{key}.")
        else:
            flat[prefix + key] = tables.NOTHING if item is None else str(item)
    return flat


def _cells_section(result: Mapping[str, Any], origin: str, figures: dict[str, Figure]) -> list[str]:
    """Draw the cells of each fold's first seed; equal ones once."""
    found = {
        (fold["fold"], seed["seed"]): Genotype.from_dict(seed["genotype"])
        for fold in result["folds"]
        for seed in fold["seeds"]
        if seed.get("genotype") is not None
    }
    if not found:
        return []
    sections = [
        "## Cells",
        f"Genotypes: {origin}. How often each operation occurs in those of all {len(found)} folds "
        "and seeds:",
        tables.operation_table(list(found.values())),
    ]
    first_seed = result["seeds"][0]
    drawn: dict[Genotype, list[int]] = {}
    for (fold, seed), genotype in found.items():
        if seed == first_seed:
            drawn.setdefault(genotype, []).append(fold)
    for genotype, folds in drawn.items():
        title = f"Fold {', '.join(map(str, folds))}, seed {first_seed}"
        name = f"cells-fold-{folds[0]}.png"
        image = _image(figures, name, cells.draw_genotype(genotype), f"Cells of {title.lower()}")
        sections += [f"### {title}", image]
    return sections


def _training_section(
    run: Path, result: Mapping[str, Any], figures: dict[str, Figure]
) -> list[str]:
    trials = _trials(run, result).items()
    curves = [read_curve(folder / training_loop.HISTORY, epoch) for folder, epoch in trials]
    figure = plots.training_figure(curves)
    return [
        "## Training",
        _image(figures, "training.png", figure, "Loss and UA over the training epochs"),
        "Faint lines are folds and seeds, bold ones their mean.",
    ]


def _search_section(
    searched: Sequence[Path], recipe: Recipe, figures: dict[str, Figure]
) -> list[str]:
    if not searched:
        return []
    figure = plots.search_figure([read_curve(folder / search_loop.HISTORY) for folder in searched])
    sections = [
        "## Search",
        _image(figures, "search.png", figure, "Loss, UA, skips and entropy over the search epochs"),
    ]
    alphas = [
        folder / search_loop.ALPHAS for folder in searched if (folder / search_loop.ALPHAS).exists()
    ]
    if alphas:
        figure = plots.alpha_figure(
            [_read_alphas(path) for path in alphas], recipe.network.operations
        )
        sections.append(_image(figures, "alphas.png", figure, "Weights of the operations"))
    return sections


# Files of a run


def _trials(run: Path, result: Mapping[str, Any]) -> dict[Path, int | None]:
    """Folder and chosen epoch of every fold and seed."""
    return {
        run / f"fold-{fold['fold']}" / f"seed-{seed['seed']}": seed.get("epoch")
        for fold in result["folds"]
        for seed in fold["seeds"]
    }


def read_curve(path: Path, chosen: int | None = None) -> plots.Curve:
    """Read a CSV of epochs; an empty field is NaN.

    Raises
    ------
    RunError
        For a missing or empty file, no column ``epoch``, or a value that is not a number.
    """
    rows = files.read_csv(path, RunError)
    if not rows or "epoch" not in rows[0]:
        raise RunError(f"{path} has no epochs")
    try:
        columns = {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}
    except ValueError as error:
        raise RunError(f"{path}: {error}") from error
    return plots.Curve(columns, chosen)


def _read_alphas(path: Path) -> list[dict[str, Any]]:
    """Read the alphas of every epoch of a search."""
    records = files.read_json(path, RunError)
    if not isinstance(records, list) or not records:
        raise RunError(f"{path} has no epochs")
    for record in records:
        if not isinstance(record, dict) or not {"epoch", "alphas"} <= set(record):
            raise RunError(f"{path}: each epoch needs 'epoch' and 'alphas'")
    return records


# Several runs


def compare(runs: Sequence[Path]) -> str:
    """Compare finished runs: one table, and a paired test where the utterances are the same.

    Returns
    -------
    str
        Markdown. It says where runs differ in corpus, classes, split or protocol, and which
        pairs have no test and why.

    Raises
    ------
    RunError
        If a run is not finished or one of its files is broken.
    """
    results = _name_apart(runs, [load_result(run) for run in runs])
    names = [result["name"] for result in results]
    predictions = [read_predictions(run / "predictions.csv") for run in runs]
    tests, untested = {}, []
    for i, j in combinations(range(len(runs)), 2):
        (a, classes), (b, other_classes) = predictions[i], predictions[j]
        try:
            if set(classes) != set(other_classes):
                raise RunError("the systems have different classes")
            tests[names[i], names[j]] = paired_test(a, b, classes)
        except RunError as error:
            untested.append(tables.escape(f"{names[i]} and {names[j]}: no paired test: {error}"))
    parts = [tables.result_table(results), *_differences(results)]
    if tests:
        parts += ["## Paired tests", tables.paired_table(tests)]
    return "\n\n".join([*parts, *untested]) + "\n"


def _name_apart(runs: Sequence[Path], results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add the directory to names that more than one run has."""
    counts = Counter(result["name"] for result in results)
    return [
        {**result, "name": f"{result['name']} ({run})"} if counts[result["name"]] > 1 else result
        for run, result in zip(runs, results, strict=True)
    ]


def _differences(results: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for key in ("corpus", "classes", "split", "protocol"):
        values = [", ".join(v) if isinstance(v, list) else v for v in (r[key] for r in results)]
        if len(set(values)) > 1:
            listed = "; ".join(
                f"{result['name']}: {value}" for result, value in zip(results, values, strict=True)
            )
            lines.append(f"**The runs differ in {key}:** {tables.escape(listed)}.")
    return lines
