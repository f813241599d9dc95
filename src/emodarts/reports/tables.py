"""Results as Markdown tables, in percent with one decimal, each with its definitions.

Tables only arrange what a ``result.json`` holds; see :func:`emodarts.scoring.metrics.aggregate`
for the scores and what they mean.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from emodarts.errors import list_some
from emodarts.genotype import Genotype
from emodarts.recipe import SPACES
from emodarts.scoring.metrics import UA_DEFINITION, WA_DEFINITION
from emodarts.space.genotype import Genotype
from emodarts.training.metrics import UA_DEFINITION, WA_DEFINITION

DEFINITIONS = (
    f"{UA_DEFINITION}. {WA_DEFINITION}. Macro F1: the mean of the class F1 scores. "
    "A class without test utterances is left out of UA and macro F1."
)
NOTHING = "–"

_BASELINES = {
    "chance": "baseline: chance",
    "majority": "baseline: majority answer",
    "logistic_regression": "baseline: logistic regression on mean features",
}


def escape(text: object) -> str:
    """Return text as one line that Markdown shows as it is."""
    line = " ".join(str(text).split())
    return re.sub(r"([\\`*<\[\]|])", r"\\\1", line)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a Markdown table that also reads well as plain text; numbers stand to the right."""
    body = [[escape(cell) for cell in row] for row in rows]
    columns = []
    for name, *cells in zip(header, *body, strict=True):
        width = max(3, len(name), *map(len, cells))
        if cells and all(re.match(r"[-+–]?[0-9]|–$", cell) for cell in cells):
            rule = "-" * (width - 1) + ":"
            columns.append([name.rjust(width), rule, *(cell.rjust(width) for cell in cells)])
        else:
            columns.append([name.ljust(width), "-" * width, *(c.ljust(width) for c in cells)])
    return "\n".join(f"| {' | '.join(line)} |" for line in zip(*columns, strict=True))


def percent(value: float | None) -> str:
    """Return a fraction as percent with one decimal, or a dash for None."""
    return NOTHING if value is None else f"{100 * value:.1f}"


def _percent_sd(value: float | None, sd: float | None) -> str:
    return percent(value) if sd is None else f"{percent(value)} ± {percent(sd)}"


def _interval(value: float | None, interval: Sequence[float] | None) -> str:
    if interval is None:
        return percent(value)
    low, high = interval
    return f"{percent(value)} ({percent(low)} to {percent(high)})"


def _count(value: float | None) -> str:
    return NOTHING if value is None else f"{round(value):,}"


def _millions(value: float | None) -> str:
    return NOTHING if value is None else f"{value / 1e6:,.2f} M"


def result_table(results: Sequence[Mapping[str, Any]]) -> str:
    """One row for each system, then the baselines, then definitions, notices and warnings.

    Parameters
    ----------
    results : contents of ``result.json`` of one or more runs. Where baselines of several
        runs differ, their rows name the run.
    """
    with_seeds = any(result["ua_sd_seeds"] is not None for result in results)
    header = ["system", "parameters", "multiply-adds", "UA %"]
    header += ["sd over seeds"] if with_seeds else []
    header += ["WA %", "macro F1 %", "pooled UA % (95 % interval)"]
    rows = [_system_row(result, with_seeds) for result in results]
    rows += _baseline_rows(results, with_seeds)
    parts = [markdown_table(header, rows), _result_caption(results), DEFINITIONS]
    return "\n\n".join([*parts, *remarks(results)])


def _system_row(result: Mapping[str, Any], with_seeds: bool) -> list[str]:
    scores = [
        _percent_sd(result[metric], result[f"{metric}_sd_folds"])
        for metric in ("ua", "wa", "macro_f1")
    ]
    if with_seeds:
        scores.insert(1, percent(result["ua_sd_seeds"]))
    pooled = result["pooled"]
    return [
        result["name"],
        _count(result.get("parameters")),
        _millions(result.get("multiply_adds")),
        *scores,
        _interval(pooled["ua"], pooled["ua_interval"]),
    ]


def _baseline_rows(results: Sequence[Mapping[str, Any]], with_seeds: bool) -> list[list[str]]:
    """Rows of all baselines; those that several runs share come once."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for result in results:
        for name, scores in result.get("baselines", {}).items():
            label = _BASELINES.get(name, f"baseline: {name.replace('_', ' ')}")
            values = [percent(scores.get(metric)) for metric in ("ua", "wa", "macro_f1")]
            if with_seeds:
                values.insert(1, NOTHING)
            row = [NOTHING, NOTHING, *values, NOTHING]
            rows.setdefault((label, *row), []).append(result["name"])
    ambiguous = {label for label, n in Counter(key[0] for key in rows).items() if n > 1}
    return [
        [f"{label} ({', '.join(runs)})" if label in ambiguous else label, *row]
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
    if any(result["ua_sd_seeds"] is not None for result in results):
        text += " Sd over seeds: of each seed's mean UA over folds (ddof 1), in points."
    return text


def remarks(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Notices and warnings that must stand beside the scores; each once, with its runs."""
    found: dict[str, list[str]] = {}
    for result in results:
        notice = [f"**Notice:** {escape(result['notice'])}"] if result.get("notice") else []
        warned = [f"**Warning:** {escape(text)}" for text in result.get("warnings", ())]
        for text in [*notice, *warned]:
            found.setdefault(text, []).append(escape(result["name"]))
    return [
        text if len(results) == 1 else f"{text} ({', '.join(names)})"
        for text, names in found.items()
    ]


def fold_table(result: Mapping[str, Any]) -> str:
    """One row for each fold; several seeds are averaged, and their UA is listed."""
    several = len(result["seeds"]) > 1
    header = ["fold", "test speakers", "utterances", "UA %", "WA %", "macro F1 %"]
    header += ["UA % of each seed"] if several else []
    header += ["parameters", "chosen epoch", "absent classes"]
    rows = []
    for fold in result["folds"]:
        row = [str(fold["fold"]), list_some(fold["test_speakers"], 4) or NOTHING]
        row += [str(fold["n_test"]), *(percent(fold[m]) for m in ("ua", "wa", "macro_f1"))]
        if several:
            row.append(", ".join(percent(seed["ua"]) for seed in fold["seeds"]))
        row.append(", ".join(_count(seed.get("parameters")) for seed in fold["seeds"]))
        row.append(", ".join(str(seed.get("epoch", NOTHING)) for seed in fold["seeds"]))
        row.append(", ".join(fold["absent_classes"]) or "none")
        rows.append(row)
    table = markdown_table(header, rows)
    if several:
        seeds = ", ".join(map(str, result["seeds"]))
        table += f"\n\nSeeds, in order: {seeds}; scores of a fold are means over them."
    return f"{table}\n\n{DEFINITIONS}"


def class_table(result: Mapping[str, Any]) -> str:
    """Recall, precision, F1 and counts of each class, over all folds and seeds."""
    counts = np.array(result["confusion"])
    rows = []
    for index, name in enumerate(result["classes"]):
        hits, true, said = counts[index, index], counts[index].sum(), counts[:, index].sum()
        ratios = [(hits, true), (hits, said), (2 * hits, true + said if true else 0)]
        scores = [percent(a / b) if b else NOTHING for a, b in ratios]
        rows.append([name, *scores, f"{true:,}", f"{said:,}", f"{hits:,}"])
    header = ["class", "recall %", "precision %", "F1 %", "true", "predicted", "right"]
    n_seeds = len(result["seeds"])
    caption = "Counts are summed over folds"
    if n_seeds > 1:
        caption += f" and {n_seeds} seeds, so that each utterance counts {n_seeds} times"
    return f"{markdown_table(header, rows)}\n\n{caption}. {DEFINITIONS}"


def paired_table(tests: Mapping[tuple[str, str], Mapping[str, Any]]) -> str:
    """Differences between pairs of systems on the same utterances, and their p-values.

    Parameters
    ----------
    tests : results of :func:`emodarts.scoring.metrics.paired_test` by the two names.
    """
    rows = []
    for (a, b), test in tests.items():
        row = [f"{a} − {b}", str(test["n_speakers"]), f"{test['n_utterances']:,}"]
        for metric in ("ua", "wa"):
            row += [f"{100 * test[metric]['difference']:+.1f}", f"{test[metric]['p']:.4f}"]
        rows.append(row)
    header = ["difference", "speakers", "utterances", "UA, points", "p (UA)"]
    header += ["WA, points", "p (WA)"]
    caption = (
        "Mean over speakers of the difference between a speaker's scores with the two systems "
        "(means over seeds); p-values are two-sided, from sign flips of the speakers' differences"
    )
    caption += ", and not corrected for the number of pairs." if len(tests) > 1 else "."
    return f"{markdown_table(header, rows)}\n\n{caption}\n\n{DEFINITIONS}"


def operation_table(genotypes: Sequence[Genotype]) -> str:
    """How often the genotypes chose each operation, by cell."""
    chosen = {
        name: Counter(
            e.operation for g in genotypes for node in g.cells.get(name, ()) for e in node
        )
        for name in ("normal", "reduction", "sequence")
    }
    cells = [name for name, counts in chosen.items() if counts]
    order = dict.fromkeys(o for s in SPACES.values() for o in (*s.cnn, *s.sequence))
    rows = [
        [operation, *(str(chosen[cell][operation]) for cell in cells)]
        for operation in order
        if any(chosen[cell][operation] for cell in cells)
    ]
    return markdown_table(["operation", *cells], rows)
