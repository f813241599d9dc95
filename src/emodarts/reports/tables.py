"""Tables of results, in percent with one decimal; definitions stand below that of the systems.

Tables only arrange what a ``result.json`` holds; see :func:`emodarts.scoring.metrics.aggregate`
for the scores and what they mean.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from emodarts.errors import list_some
from emodarts.genotype import Genotype
from emodarts.recipe import SPACES
from emodarts.reports.document import Block, Remark, Table, numbers, words
from emodarts.scoring.comparison import holm
from emodarts.scoring.intervals import FEWEST_UNITS
from emodarts.scoring.metrics import METRICS, UA_DEFINITION, WA_DEFINITION, f1, precision, recall

DEFINITIONS = (
    f"{UA_DEFINITION}. {WA_DEFINITION}. Macro F1: the mean of the class F1 scores. "
    "A class without test utterances is left out of UA and macro F1."
)
NO_INTERVAL = f"No interval is given for fewer than {FEWEST_UNITS} speakers."
NOTHING = "–"
#: Column of the time of the search, which is left out where nothing was searched.
_SEARCH = 3
#: Runs that a remark or a row about several names.
_NAMED = 4

_BASELINES = {
    "chance": "baseline: chance",
    "majority": "baseline: majority class",
    "logistic_regression": "baseline: logistic regression on mean features",
}


def percent(value: float | None) -> str:
    """Return a fraction as percent with one decimal, or a dash for None and NaN."""
    return NOTHING if value is None or math.isnan(value) else f"{100 * value:.1f}"


def _percent_sd(value: float | None, sd: float | None) -> str:
    return percent(value) if sd is None else f"{percent(value)} ± {percent(sd)}"


def _interval(value: float | None, interval: Sequence[float] | None) -> str:
    if interval is None:
        return f"{percent(value)} ({NOTHING})"
    low, high = interval
    return f"{percent(value)} ({percent(low)} to {percent(high)})"


def _count(value: float | None) -> str:
    return NOTHING if value is None else f"{round(value):,}"


def _millions(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value / 1e6:,.2f} M" if value >= 1e5 else f"{value / 1e6:.2g} M"


def result_blocks(results: Sequence[Mapping[str, Any]]) -> tuple[Block, ...]:
    """Notices and warnings, then the scores of each system and of the baselines.

    Parameters
    ----------
    results : contents of ``result.json`` of one or more runs. Where baselines of several
        runs differ, their rows name the run. ``optimistic_ua``, where it is known, is what the
        best epochs on the test folds would have scored.
    """
    with_seeds = any(result["ua_sd_seeds"] is not None for result in results)
    titles = ["parameters", "multiply-adds", "search, s", "UA %"]
    titles += ["sd over seeds"] if with_seeds else []
    titles += ["WA %", "macro F1 %", "pooled UA % (95 % interval)"]
    rows = [row for result in results for row in _system_rows(result, with_seeds)]
    rows += _baseline_rows(results, with_seeds)
    if all(row[_SEARCH] == NOTHING for row in rows):
        rows, titles = [row[:_SEARCH] + row[_SEARCH + 1 :] for row in rows], titles[:2] + titles[3:]
    caption: tuple[str, ...] = (_result_caption(results), DEFINITIONS)
    optimistic = {result["name"]: result.get("optimistic_ua") for result in results}
    if any(value is not None for value in optimistic.values()):
        titles.append("optimistic UA % (chosen on the test fold)")
        rows = [[*row, percent(optimistic.get(row[0]))] for row in rows]
        caption += (
            "The optimistic UA is what choosing each epoch on the test fold itself would have "
            "scored. It is no result, and no choice of a run used it.",
        )
    table = Table((*words("system"), *numbers(*titles)), tuple(map(tuple, rows)), caption)
    return (*_remarks(results), table)


def _system_rows(result: Mapping[str, Any], with_seeds: bool) -> list[list[str]]:
    """The row of a system, and for an ensemble that of one of its networks."""
    pooled = result["pooled"]
    parameters, operations = result.get("parameters"), result.get("multiply_adds")
    interval = _interval(pooled["ua"], pooled["ua_interval"])
    scores = _scores(result, with_seeds)
    search = _count(_spent(result, "search").get("seconds"))
    rows = [[result["name"], _count(parameters), _millions(operations), search, *scores, interval]]
    single = result.get("single_network")
    if single is not None:
        share = single["networks"]
        parts = (None if whole is None else whole / share for whole in (parameters, operations))
        size, cost = parts
        rows.append(
            [
                f"{result['name']}: one of its {share} networks",
                *(_count(size), _millions(cost), NOTHING),
                *(*_scores(single, with_seeds), NOTHING),
            ]
        )
    return rows


def cost_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """Time, steps and memory of search and training.

    Parameters
    ----------
    results : with the ``cost`` that :func:`emodarts.reports.report.load_result` adds.
    """
    rows = []
    for result in results:
        row = [result["name"]]
        for stage in ("search", "training"):
            spent = _spent(result, stage)
            keys = ("seconds", "processor_seconds", "steps", "peak_memory")
            row += [_count(spent.get(key)) for key in keys]
        rows.append(tuple(row))
    titles = [
        f"{stage} {what}"
        for stage in ("search", "training")
        for what in ("time, s", "processor time, s", "steps", "memory, MiB")
    ]
    caption = (
        "Time and steps are means over folds and seeds; memory is the highest of all. A search "
        "consists of its epochs, the choice of the genotype and the training of candidates. "
        "Processor time is that of all threads; steps are updates of weights. Memory is all that "
        "the process holds, on a GPU what is allocated there."
    )
    return Table((*words("system"), *numbers(*titles)), tuple(rows), (caption,))


def _spent(result: Mapping[str, Any], stage: str) -> Mapping[str, Any]:
    return result.get("cost", {}).get(stage) or {}


def _scores(result: Mapping[str, Any], with_seeds: bool) -> list[str]:
    scores = [_percent_sd(result[metric], result[f"{metric}_sd_folds"]) for metric in METRICS]
    if with_seeds:
        scores.insert(1, percent(result["ua_sd_seeds"]))
    return scores


def _baseline_rows(results: Sequence[Mapping[str, Any]], with_seeds: bool) -> list[list[str]]:
    """Rows of all baselines; those that several runs share appear once."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for result in results:
        for name, scores in result.get("baselines", {}).items():
            label = _BASELINES.get(name, f"baseline: {name.replace('_', ' ')}")
            values = [percent(scores.get(metric)) for metric in METRICS]
            if with_seeds:
                values.insert(1, NOTHING)
            row = [NOTHING, NOTHING, NOTHING, *values, NOTHING]
            rows.setdefault((label, *row), []).append(result["name"])
    ambiguous = {label for label, n in Counter(key[0] for key in rows).items() if n > 1}
    return [
        [f"{label} ({list_some(runs, _NAMED)})" if label in ambiguous else label, *row]
        for (label, *row), runs in sorted(rows.items(), key=lambda item: _baseline_order(item[0]))
    ]


def _baseline_order(key: tuple[str, ...]) -> int:
    known = list(_BASELINES.values())
    return known.index(key[0]) if key[0] in known else len(known)


def _result_caption(results: Sequence[Mapping[str, Any]]) -> str:
    units = {result["pooled"]["bootstrap_unit"] for result in results}
    resampled = " or ".join(f"{unit}s" for unit in sorted(units))
    samples = ", ".join(str(n) for n in {r["pooled"]["bootstrap_samples"]: None for r in results})
    text = (
        "Scores are means over folds of each fold's mean over seeds; ± is the standard deviation "
        "of the fold means (ddof 1). Pooled: all test utterances as one set, with a percentile "
        f"bootstrap interval that resamples {resampled} ({samples} times)."
    )
    if any(result["pooled"]["ua_interval"] is None for result in results):
        text += f" {NO_INTERVAL}"
    if any(result["ua_sd_seeds"] is not None for result in results):
        text += (
            " Sd over seeds: the standard deviation of each seed's mean UA over folds (ddof 1), "
            "in percentage points."
        )
    return text


def _remarks(results: Sequence[Mapping[str, Any]]) -> list[Remark]:
    """Notices and warnings; each appears once and, among several runs, names its runs."""
    found: dict[tuple[str, str], list[str]] = {}
    for result in results:
        notices = [("Notice", result["notice"])] if result.get("notice") else []
        for key in [*notices, *(("Warning", text) for text in result.get("warnings", ()))]:
            found.setdefault(key, []).append(result["name"])
    return [
        Remark(label, text if len(results) == 1 else f"{text} ({list_some(names, _NAMED)})")
        for (label, text), names in found.items()
    ]


def fold_table(result: Mapping[str, Any]) -> Table:
    """One row for each fold; several seeds are averaged, and their UA is listed."""
    several = len(result["seeds"]) > 1
    titles = ["utterances", "UA %", "WA %", "macro F1 %"]
    titles += ["UA % of each seed"] if several else []
    titles += ["parameters", "chosen epoch"]
    rows = []
    for fold in result["folds"]:
        row = [str(fold["fold"]), list_some(fold["test_speakers"], 4) or NOTHING]
        row += [str(fold["n_test"]), *(percent(fold[metric]) for metric in METRICS)]
        if several:
            row.append(", ".join(percent(seed["ua"]) for seed in fold["seeds"]))
        row.append(", ".join(_count(seed.get("parameters")) for seed in fold["seeds"]))
        row.append(", ".join(str(seed.get("epoch", NOTHING)) for seed in fold["seeds"]))
        row.append(", ".join(fold["absent_classes"]) or "none")
        rows.append(tuple(row))
    columns = (*numbers("fold"), *words("test speakers"), *numbers(*titles))
    seeds = ", ".join(map(str, result["seeds"]))
    order = f"Lists are in the order of the seeds: {seeds}. Scores of a fold are means over seeds."
    caption = (order,) if several else ()
    return Table((*columns, *words("absent classes")), tuple(rows), caption)


def class_table(result: Mapping[str, Any]) -> Table:
    """Recall, precision, F1 and counts of each class, over all folds and seeds."""
    counts = np.array(result["confusion"])
    scores = [score(counts) for score in (recall, precision, f1)]
    numbers_of = [counts.sum(1), counts.sum(0), counts.diagonal()]
    rows = tuple(
        (name, *(percent(s[k]) for s in scores), *(f"{n[k]:,}" for n in numbers_of))
        for k, name in enumerate(result["classes"])
    )
    titles = ("recall %", "precision %", "F1 %", "true", "predicted", "correct")
    n_seeds = len(result["seeds"])
    caption = "Counts are summed over folds"
    if n_seeds > 1:
        caption += f" and {n_seeds} seeds, so that each utterance counts {n_seeds} times"
    return Table((*words("class"), *numbers(*titles)), rows, (f"{caption}.",))


def recall_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """Recall of each class with each system, over folds and seeds; all have the same classes."""
    classes = results[0]["classes"]
    rows = []
    for result in results:
        found = dict(zip(result["classes"], recall(np.array(result["confusion"])), strict=True))
        rows.append((result["name"], *(percent(found[name]) for name in classes)))
    titles = (f"recall of {name} %" for name in classes)
    return Table((*words("system"), *numbers(*titles)), tuple(rows))


def paired_table(tests: Mapping[tuple[str, str], Mapping[str, Any]]) -> Table:
    """Differences between pairs of systems on the same utterances, and their p-values.

    Parameters
    ----------
    tests : results of :func:`emodarts.scoring.comparison.paired_test` by the two names.
    """
    several = len(tests) > 1
    corrected = {
        metric: holm([test[metric]["p"] for test in tests.values()]) for metric in ("ua", "wa")
    }
    rows = []
    for k, ((a, b), test) in enumerate(tests.items()):
        row = [f"{a} − {b}", str(test["n_speakers"]), f"{test['n_utterances']:,}"]
        for metric in ("ua", "wa"):
            row += [f"{100 * test[metric]['difference']:+.1f}", f"{test[metric]['p']:.4f}"]
            row += [f"{corrected[metric][k]:.4f}"] if several else []
        rows.append(tuple(row))
    titles = ["speakers", "utterances"]
    for metric in ("UA", "WA"):
        titles += [f"{metric}, points", f"p ({metric})"]
        titles += [f"Holm p ({metric})"] if several else []
    caption = (
        "The mean over speakers of the difference between a speaker's scores with the two systems "
        "(means over seeds), in percentage points; p-values are two-sided, from sign flips of the "
        "speakers' differences"
    )
    caption += f"; Holm p is corrected for {len(tests)} pairs (Holm)." if several else "."
    columns = (*words("difference"), *numbers(*titles))
    return Table(columns, tuple(rows), (caption,))


def operation_table(genotypes: Sequence[Genotype]) -> Table:
    """How often the genotypes chose each operation, by cell."""
    chosen = {
        name: Counter(
            e.operation for g in genotypes for node in g.cells.get(name, ()) for e in node
        )
        for name in ("normal", "reduction", "sequence")
    }
    cells = [name for name, counts in chosen.items() if counts]
    known = [o for space in SPACES.values() for o in (*space.cnn, *space.sequence)]
    order = dict.fromkeys([*known, *(o for counts in chosen.values() for o in counts)])
    rows = tuple(
        (operation, *(str(chosen[cell][operation]) for cell in cells))
        for operation in order
        if any(chosen[cell][operation] for cell in cells)
    )
    return Table((*words("operation"), *numbers(*cells)), rows)


def fact_table(title: str, facts: Mapping[str, str]) -> Table:
    """Names and values of facts, one a row."""
    return Table(words(title, "value"), tuple(facts.items()))
