"""The report of a run, and the comparison of several, from the files in their directories.

A report shows what a run has written, and what :mod:`emodarts.scoring` makes of its predictions. It
computes no score itself and chooses nothing.
"""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emodarts import files
from emodarts.cost import Spent
from emodarts.errors import RunError, list_some
from emodarts.experiments.summary import FORMAT
from emodarts.genotype import Genotype
from emodarts.layout import RunFolder, TrialFolder
from emodarts.recipe import (
    DartsSpec,
    HalvingSpec,
    OneShotSpec,
    Recipe,
    differing_keys,
    load_recipe,
)
from emodarts.reports import answers, cells, formation, plots, tables
from emodarts.reports.document import (
    Block,
    Figure,
    Link,
    Paragraph,
    Remark,
    Section,
    Table,
    numbers,
    words,
)
from emodarts.reports.markdown import to_markdown
from emodarts.reports.protocol import protocol_in_words, repeating
from emodarts.reports.published import size_section
from emodarts.reports.verdict import verdict
from emodarts.scoring.comparison import paired_test
from emodarts.scoring.predictions import read_predictions
from emodarts.searching.agreement import agreement, pairwise

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

#: Runs whose differing settings are shown with their values, at most.
_VALUES = 4
_REQUIRED = (
    *("name", "corpus", "protocol", "split", "seeds", "ua", "wa", "macro_f1", "ua_sd_folds"),
    *("wa_sd_folds", "macro_f1_sd_folds", "ua_sd_seeds", "pooled", "confusion", "classes"),
    *("n_test", "folds", "genotypes", "system"),
)


def load_result(run: Path) -> dict[str, Any]:
    """Read ``result.json`` of a finished run, and add the ``cost`` of search and training.

    The cost is that of a trial in the mean; a stage that no trial has recorded is missing in it.

    Raises
    ------
    RunError
        If the directory is missing, the run is not finished, or the file is broken.
    """
    if not run.is_dir():
        raise RunError(f"no run directory {run}")
    path = RunFolder(run).result
    if not path.exists():
        raise RunError(
            f"{run} has no scores to report: it has no {path.name}, which is written once all "
            "folds are tested; a search, or training with --all-data, tests none"
        )
    result = files.read_object(path, RunError, "format")
    if result["format"] != FORMAT:
        raise RunError(f"{path}: format is {result['format']!r}; allowed: {FORMAT!r}")
    found = files.read_object(path, RunError, *_REQUIRED)
    return {**found, "cost": _cost(run, found), "optimistic_ua": _optimistic(run, found)}


def _cost(run: Path, result: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """What search and training of a trial cost in the mean, with the highest peak of memory."""
    kept = [folder.result for folder in _trials(run, result) if folder.result.is_file()]
    costs = [files.read_object(path, RunError).get("cost", {}) for path in kept]
    means = {}
    for stage in ("search", "training"):
        spent = [Spent.of(cost[stage]) for cost in costs if cost.get(stage)]
        if spent and not (stage == "search" and result["genotypes"] == "given"):
            total = sum(spent, Spent()).to_dict()
            peak = total.pop("peak_memory")
            means[stage] = {k: v / len(spent) for k, v in total.items()} | {"peak_memory": peak}
    return means


def _optimistic(run: Path, result: Mapping[str, Any]) -> float | None:
    """What choosing on the test fold would have scored, if every fold and seed recorded it."""
    paths = [folder.optimistic for folder in _trials(run, result)]
    if not all(path.exists() for path in paths):
        return None
    key = "test_ua_of_best_test_epoch"
    found = [files.read_object(path, RunError, key)[key] for path in paths]
    return float(np.mean(found, dtype=np.float64))


def make_report(run: Path, page: Path | None = None, audio: Path | None = None) -> Section:
    """Make the report of a finished run.

    Parameters
    ----------
    page : folder of the report, to which links are relative; by default that in the run.
    audio : folder of the corpus, whose files are linked beside what is said of them.

    Raises
    ------
    RunError, RecipeError, GenotypeError
        If the run is not finished or one of its files is broken.
    """
    result = load_result(run)
    recipe = load_recipe(RunFolder(run).recipe)
    predictions, classes = read_predictions(RunFolder(run).predictions)
    page = page or RunFolder(run).report
    sections = (
        verdict([result], {}),
        Section("Result", tables.result_blocks([result])),
        size_section([result]),
        _fold_section(result),
        _class_section(result),
        answers.group_section(run, predictions, classes),
        answers.calibration_section(predictions, classes, result.get("calibration")),
        answers.mistake_section(run, predictions, classes, audio, page),
        _cells_section(run, result, recipe),
        _search_section(run, result, recipe),
        _halving_section(run, result),
        _cost_section([result]),
        _training_section(run, result),
        _setup_section(run, result, recipe, page),
    )
    title = f"{result['name']} on {result['corpus']}"
    return Section(title, tuple(section for section in sections if section))


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
    report = make_report(run)
    folder = RunFolder(run).report
    for figure in report.figures():
        files.write_bytes(folder / figure.file, _png(figure.draw()))
    path = folder / "report.md"
    files.write_text(path, to_markdown(report) + "\n")
    return path


def relative(path: Path, page: Path) -> str:
    """An address of a file for a document in the folder ``page``."""
    return Path(os.path.relpath(path.resolve(), page.resolve())).as_posix()


def draw_cells(trial: TrialFolder) -> None:
    """Draw the cells in a trial's folder, where its genotype has some, as ``cells.png`` beside it.

    Raises
    ------
    GenotypeError
        If ``genotype.json`` is missing or broken.
    """
    genotype = Genotype.load(trial.genotype)
    if genotype.cells:
        files.write_bytes(trial.cells, _png(cells.draw_genotype(genotype)))


def _png(drawing: Drawing) -> bytes:
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


# Sections


def _fold_section(result: Mapping[str, Any]) -> Section:
    return Section("Folds", (tables.fold_table(result),))


def _class_section(result: Mapping[str, Any]) -> Section:
    confusion, classes = result["confusion"], result["classes"]
    figure = Figure(
        "confusion.png",
        plots.describe_confusion(confusion, classes),
        partial(plots.confusion_figure, confusion, classes),
    )
    numbered = [
        f"{drawn} is {name}"
        for name, drawn in zip(classes, plots.drawable(classes)[0], strict=True)
        if drawn != name
    ]
    legend = [f"No font here draws these names: {', '.join(numbered)}."] if numbered else []
    return Section("Classes", (tables.class_table(result), figure, *legend))


def _setup_section(run: Path, result: Mapping[str, Any], recipe: Recipe, page: Path) -> Section:
    data = files.read_object(RunFolder(run).data, RunError, "n_utterances", "n_speakers", "digest")
    environment = files.read_object(RunFolder(run).environment, RunError)
    merged = [entry for entry in result.get("labels") or () if "=" in entry]
    facts = {
        "corpus": result["corpus"],
        "utterances": f"{data['n_utterances']:,} from {data['n_speakers']} speakers",
        "classes": ", ".join(result["classes"]),
        **({"merged": "; ".join(merged)} if merged else {}),
        "test utterances": f"{result['n_test']:,}",
        "folds": f"{len(result['folds'])} ({result['split']})",
        "protocol": result["protocol"],
        "seeds": ", ".join(map(str, result["seeds"])),
        **_recipe_facts(recipe),
        **({"genotypes": _origin(result, recipe)} if result["genotypes"] else {}),
        "data digest": data["digest"],
    }
    folder = RunFolder(run)
    parts: list[str | Link] = []
    for text, path in (
        ("All settings: ", folder.recipe),
        (". Folds: ", folder.folds),
        (". Every prediction: ", folder.predictions),
    ):
        parts += [text, Link(path.name, relative(path, page))]
    hardware = tables.fact_table("item", _flat(environment))
    blocks: tuple[Block, ...] = (
        protocol_in_words(result, recipe),
        *repeating(result),
        tables.fact_table("setting", facts),
        *_left_out(data),
        Paragraph((*parts, ".")),
        Section("Hardware and software", (hardware,)),
    )
    return Section("Setup", blocks)


def _recipe_facts(recipe: Recipe) -> dict[str, str]:
    used = recipe.system.sections
    facts = {"system": recipe.system.kind}
    for name, spec in recipe.inputs.items():
        facts[name] = (
            f"{spec.kind}, {spec.n_features} x {spec.n_frames} (frequency x time), "
            f"{spec.duration:g} s at {spec.sample_rate:,} Hz"
        )
    if "network" in used:
        facts["SeqNN"] = recipe.network.seqnn.mode
    if "training" in used:
        chosen_by = {"ua": "UA", "loss": "loss"}.get(recipe.training.select)
        tested = f"best epoch by validation {chosen_by}" if chosen_by else "last epoch"
        most = recipe.training.max_steps
        bounded = "" if most is None else f", at most {most:,} steps"
        facts["training"] = f"{recipe.training.epochs} epochs{bounded}; the {tested} is tested"
    return facts


def _origin(result: Mapping[str, Any], recipe: Recipe) -> str:
    """Where the genotypes come from: a run can be given one, whatever its recipe searches."""
    search = recipe.search
    if result["genotypes"] == "searched":
        facts = [search.strategy]
        facts += [f"{search.epochs} epochs"] if isinstance(search, OneShotSpec) else []
        if isinstance(search, HalvingSpec):
            facts += [f"{candidates} x {seeds}" for candidates, seeds in search.rounds]
        facts += [f"order {search.order}"] if isinstance(search, DartsSpec) else []
        return f"searched ({', '.join(facts)})"
    return "drawn at random" if result["genotypes"] == "random" else "given, not searched"


def _left_out(data: Mapping[str, Any]) -> list[str]:
    """Utterances that the run did not use, counted by reason."""
    lines = []
    for key, what in (("skipped", "Left out of the corpus"), ("bad", "Unusable and left out")):
        reasons = Counter(reason for _, reason in data.get(key, ()))
        if reasons:
            listed = list_some([f"{reason} ({n:,})" for reason, n in reasons.most_common()], 8)
            lines.append(f"{what}: {listed}.")
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


def _cells_section(run: Path, result: Mapping[str, Any], recipe: Recipe) -> Section | None:
    """The genotypes of each fold's first seed; the cells of equal ones are drawn once.

    The strength of an edge and the way to the cells are those of the first fold that found them.
    """
    found = {
        (fold["fold"], seed["seed"]): Genotype.from_dict(seed["genotype"])
        for fold in result["folds"]
        for seed in fold["seeds"]
        if seed.get("genotype") is not None and Genotype.from_dict(seed["genotype"]).cells
    }
    found = {trial: g for trial, g in found.items() if g.cells or g.macro}
    if not found:
        return None
    first_seed = result["seeds"][0]
    drawn: dict[Genotype, list[int]] = {}
    for (fold, seed), genotype in found.items():
        if seed == first_seed:
            drawn.setdefault(genotype, []).append(fold)
    blocks: list[Block] = [f"Genotypes: {_origin(result, recipe)}."]
    if with_cells := [genotype for genotype in found.values() if genotype.cells]:
        blocks += [
            "The number of edges with each operation, in the genotypes of all folds and seeds "
            f"({len(with_cells)}):",
            tables.operation_table(with_cells),
        ]
    if len(with_cells) > 1 and result["genotypes"] == "searched":
        blocks += _agreement({t: g for t, g in found.items() if g.cells}, recipe)
    if len(result["seeds"]) > 1 and with_cells:
        blocks.append(f"The drawings show the cells of seed {first_seed}.")
    for genotype, folds in drawn.items():
        title = f"{'Folds' if len(folds) > 1 else 'Fold'} {', '.join(map(str, folds))}"
        shown: list[Block] = []
        if genotype.macro:
            shown.append(tables.fact_table("choice", _flat(genotype.macro)))
        if genotype.cells:
            trial = RunFolder(run).trial(folds[0], first_seed)
            paths = [folder.alphas for folder in _searches(trial, recipe).values()]
            searches = [_read_alphas(path) for path in paths if path.exists()]
            shown += _cell_figures(genotype, folds[0], searches, recipe)
        blocks.append(Section(f"{title}, seed {first_seed}", tuple(shown)))
    return Section("Cells", tuple(blocks))


def _cell_figures(
    genotype: Genotype, fold: int, searches: Sequence[list[dict[str, Any]]], recipe: Recipe
) -> Iterator[Block]:
    """The cells, with the strength of their edges, and how they formed, if searches say so."""
    strengths: cells.Strengths | None = {} if searches else None
    for records in searches:
        part = _part(genotype, records[0]["alphas"])
        found = formation.strengths_of(part, records, recipe.network.operations)
        strengths = None if strengths is None or found is None else {**strengths, **found}
    if strengths is not None:
        yield (
            "The number beside an operation, and the width of its line, is its softmax weight on "
            "the edge in the epoch that the cells come from."
        )
    yield Figure(
        f"cells-fold-{fold}.png",
        cells.describe_genotype(genotype, strengths),
        partial(cells.draw_genotype, genotype, strengths),
    )
    searches = [records for records in searches if len(records) > 1]
    if not searches:
        return
    yield "How they formed: the cells that the alphas named at some epochs of the search."
    for records in searches:
        inner = "" if len(searches) == 1 else f"-{next(iter(records[0]['alphas']))}"
        yield Figure(
            f"formation-fold-{fold}{inner}.png",
            formation.describe_formation(records),
            partial(formation.formation_figure, records),
        )
    yield (
        "Squares are the inputs of a cell and dots its nodes, from left to right; arcs are the "
        "two edges of each node."
    )


def _part(genotype: Genotype, searched: Collection[str]) -> Genotype:
    """A genotype with those of its cells that one search found."""
    left_out: dict[str, Any] = {name: None for name in genotype.cells if name not in searched}
    return replace(genotype, **left_out)


def _agreement(
    genotypes: Mapping[tuple[int | None, int], Genotype], recipe: Recipe
) -> tuple[Block, ...]:
    """Edges that genotypes have in common: in the mean against random ones, and each pair's."""
    found = agreement(list(genotypes.values()), recipe.network)
    text = (
        f"Two of these genotypes have {tables.percent(found.found)} % of their edges in common, "
        f"random ones {tables.percent(found.expected)} % (p = {found.p:.3f})"
    )
    text = f"{text}: indistinguishable from a random choice." if found.is_random else f"{text}."
    shares = pairwise(list(genotypes.values()))
    figure = Figure(
        "agreement.png",
        plots.describe_agreement(list(genotypes), shares),
        partial(plots.agreement_figure, list(genotypes), shares),
    )
    return text, figure


def _training_section(run: Path, result: Mapping[str, Any]) -> Section | None:
    curves = [
        read_curve(folder.training_history, epoch)
        for folder, epoch in _trials(run, result).items()
        if folder.training_history.exists()
    ]
    if not curves:
        return None
    figure = Figure(
        "training.png", plots.describe_training(curves), partial(plots.training_figure, curves)
    )
    return Section("Training", (figure, *_legend(curves)))


def _search_section(run: Path, result: Mapping[str, Any], recipe: Recipe) -> Section | None:
    """The searches; a system with several inputs has one search for each."""
    folders: dict[str, list[TrialFolder]] = {}
    for trial in _trials(run, result):
        for name, folder in _searches(trial, recipe).items():
            folders.setdefault(name, []).append(folder)
    sections = [
        Section(f"Stream {name}" if name else "", tuple(_search_blocks(name, found, recipe)))
        for name, found in folders.items()
    ]
    if len(sections) == 1:
        return Section("Search", sections[0].blocks)
    return Section("Search", tuple(sections)) if sections else None


def _searches(trial: TrialFolder, recipe: Recipe) -> dict[str, TrialFolder]:
    """Folders of the searches of a trial: by input, or its own folder under an empty name."""
    places = {"": trial, **{name: trial.stream(name) for name in recipe.inputs}}
    return {name: folder for name, folder in places.items() if folder.search_history.exists()}


def _search_blocks(name: str, searched: Sequence[TrialFolder], recipe: Recipe) -> Iterator[Block]:
    prefix = f"{name}-" if name else ""
    curves = [read_curve(folder.search_history) for folder in searched]
    yield Figure(
        f"{prefix}search.png", plots.describe_search(curves), partial(plots.search_figure, curves)
    )
    yield from _legend(curves)
    paths = [folder.alphas for folder in searched]
    alphas = [_read_alphas(path) for path in paths if path.exists()]
    if alphas:
        weights = plots.mean_weights(alphas, recipe.network.operations)
        yield Figure(
            f"{prefix}alphas.png",
            plots.describe_alphas(weights),
            partial(plots.alpha_figure, weights),
        )
        yield from (_edge_figure(alphas, recipe, cell) for cell in weights)
    if any(np.isfinite(c.columns.get("eigenvalue", np.empty(0))).any() for c in curves):
        yield Figure(
            f"{prefix}eigenvalue.png",
            plots.describe_eigenvalues(curves),
            partial(plots.eigenvalue_figure, curves),
        )
    yield from _noise(curves)


def _edge_figure(alphas: Sequence[list[dict[str, Any]]], recipe: Recipe, cell: str) -> Figure:
    operations = recipe.network.operations
    epochs, weights = formation.edge_weights(alphas, operations, cell)
    return Figure(
        f"edges-{cell}.png",
        formation.describe_edges(cell, epochs, weights, operations[cell]),
        partial(formation.edge_figure, cell, epochs, weights, operations[cell]),
    )


def _halving_section(run: Path, result: Mapping[str, Any]) -> Section | None:
    """The finalists of successive halving in every fold and seed."""
    rows = []
    for fold in result["folds"]:
        for seed in fold["seeds"]:
            path = RunFolder(run).trial(fold["fold"], seed["seed"]).halving
            if not path.is_file():
                continue
            found = files.read_object(path, RunError, "candidates", "rounds")
            for finalist in found["rounds"][-1]:
                genotype = Genotype.from_dict(found["candidates"][finalist["candidate"]])
                scores = finalist["ua"]
                sd = tables.percent(float(np.std(scores, ddof=1))) if len(scores) > 1 else ""
                rows.append(
                    (
                        *(str(fold["fold"]), str(seed["seed"]), str(finalist["candidate"])),
                        *(tables.percent(finalist["mean"]), sd, str(len(scores))),
                        ", ".join(f"{k} {v}" for k, v in _flat(genotype.macro).items())
                        or "as in the recipe",
                    )
                )
    if not rows:
        return None
    columns = numbers("fold", "seed", "candidate", "UA %", "sd over seeds", "seeds")
    text = (
        "Finalists of successive halving, the best first, judged on inner folds of the development "
        "speakers. The mean of a winner is optimistic, as it was chosen by it."
    )
    return Section("Finalists", (text, Table((*columns, *words("network")), tuple(rows))))


def _cost_section(results: Sequence[Mapping[str, Any]]) -> Section | None:
    if not any(result["cost"] for result in results):
        return None
    return Section("Time and memory", (tables.cost_table(results),))


def _noise(curves: Sequence[plots.Curve]) -> tuple[str, ...]:
    """Signal-to-noise ratio of the gradient of alphas, by cell, mean over epochs and searches."""
    prefix = "alpha_snr_"
    ratios: dict[str, list[float]] = {}
    for curve in curves:
        for name, values in curve.columns.items():
            if name.startswith(prefix):
                ratios.setdefault(name.removeprefix(prefix), []).extend(
                    values[np.isfinite(values)].tolist()
                )
    listed = ", ".join(f"{cell} {np.mean(r):.2f}" for cell, r in ratios.items() if r)
    if not listed:
        return ()
    return (
        "Signal-to-noise ratio of the gradient of the alphas in an epoch, mean over epochs (noise "
        f"alone has about 1): {listed}.",
    )


def _legend(curves: Sequence[plots.Curve]) -> tuple[str, ...]:
    if len(curves) < 2:
        return ()
    return ("Each faint line is one fold and seed; bold lines are their means.",)


# Files of a run


def _trials(run: Path, result: Mapping[str, Any]) -> dict[TrialFolder, int | None]:
    """Folder and chosen epoch of every fold and seed."""
    return {
        RunFolder(run).trial(fold["fold"], seed["seed"]): seed.get("epoch")
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
        if not isinstance(record, dict) or not {"epoch", "alphas", "genotype"} <= set(record):
            raise RunError(f"{path}: each epoch needs 'epoch', 'alphas' and 'genotype'")
    return records


# Several runs


def compare(runs: Sequence[Path]) -> Section:
    """Compare finished runs: their scores and costs, and paired tests on the same utterances.

    Of three runs or more, each is tested against the best network that was designed by hand and
    the best of random search among them; if there is neither, all pairs are tested. The document
    names where runs differ in corpus, classes, split, protocol and other settings, and says which
    pairs have no test and why.

    Raises
    ------
    RunError
        If a run is not finished or one of its files is broken.
    """
    results = name_apart(runs, [load_result(run) for run in runs])
    names = [result["name"] for result in results]
    predictions = [read_predictions(RunFolder(run).predictions) for run in runs]
    recipes = [load_recipe(RunFolder(run).recipe) for run in runs]
    tests, untested = {}, []
    for i, j in _pairs(results, recipes):
        (a, classes), (b, other_classes) = predictions[i], predictions[j]
        try:
            if set(classes) != set(other_classes):
                raise RunError("the systems have different classes")
            tests[names[i], names[j]] = paired_test(a, b, classes)
        except RunError as error:
            untested.append(f"{names[i]} and {names[j]}: no paired test: {error}")
    blocks: tuple[Block, ...] = (
        verdict(results, tests),
        *_differences(results),
        Section("Result", tables.result_blocks(results)),
        *_other_settings(names, recipes),
    )
    if len(results) > 1 and len({frozenset(result["classes"]) for result in results}) == 1:
        blocks += (Section("Classes", (tables.recall_table(results),)),)
    if costs := _cost_section(results):
        blocks += (costs,)
    if tests:
        blocks += (Section("Paired tests", (tables.paired_table(tests), *untested)),)
        untested = []
    return Section("", (*blocks, *untested))


def _pairs(
    results: Sequence[Mapping[str, Any]], recipes: Sequence[Recipe]
) -> list[tuple[int, int]]:
    """Which runs are tested against which."""
    everyone = range(len(results))
    by_hand = [k for k in everyone if _by_hand(results[k], recipes[k])]
    drawn = [k for k in everyone if results[k]["genotypes"] == "random"]
    opponents = [max(group, key=lambda k: results[k]["ua"]) for group in (by_hand, drawn) if group]
    if len(results) < 3 or not opponents:
        return list(combinations(everyone, 2))
    found = [(k, other) for other in opponents for k in everyone if k != other]
    return [pair for n, pair in enumerate(found) if pair[::-1] not in found[:n]]


def _by_hand(result: Mapping[str, Any], recipe: Recipe) -> bool:
    """Whether a run trained a whole network whose layers nobody searched or drew."""
    kinds = {spec.kind for spec in recipe.inputs.values()}
    return (
        result["genotypes"] is None
        and "training" in recipe.system.sections
        and "embedding" not in kinds
    )


def name_apart(runs: Sequence[Path], results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add the directory to names that more than one run has."""
    counts = Counter(result["name"] for result in results)
    return [
        {**result, "name": f"{result['name']} ({run})"} if counts[result["name"]] > 1 else result
        for run, result in zip(runs, results, strict=True)
    ]


def _differences(results: Sequence[Mapping[str, Any]]) -> list[Remark]:
    remarks = []
    for key in ("corpus", "classes", "split", "protocol"):
        found: dict[str, list[str]] = {}
        for result in results:
            value = result[key]
            text = ", ".join(value) if isinstance(value, list) else str(value)
            found.setdefault(text, []).append(result["name"])
        if len(found) > 1:
            listed = "; ".join(f"{list_some(names)}: {value}" for value, names in found.items())
            remarks.append(Remark(f"The runs differ in {key}", f"{listed}."))
    return remarks


def _other_settings(names: Sequence[str], recipes: Sequence[Recipe]) -> list[Remark]:
    """Keys of the recipes that differ, but for those that have remarks of their own.

    Of few runs with their values.
    """
    differing = differing_keys(recipes)
    for key in ("labels", "evaluation.split", "evaluation.protocol"):
        differing.pop(key, None)
    if not differing:
        return []
    if len(names) > _VALUES:
        return [Remark("The runs differ in settings", f"{list_some(differing, 20)}.")]
    order = f"{list_some(names)}, in this order"
    listed = [f"{key} ({', '.join(map(_shown, found))})" for key, found in differing.items()]
    return [Remark("The runs differ in settings", f"{list_some(listed, 20)} ({order}).")]


def _shown(value: Any) -> str:
    """A value of a recipe in a line of text."""
    if isinstance(value, Mapping):
        return "{...}"
    return json.dumps(value) if not isinstance(value, str) else value
