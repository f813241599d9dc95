"""The page of ``emodarts evaluate``: the scores of a model on a corpus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from emodarts.reports.document import Block, Remark, Section, Table, numbers, words
from emodarts.reports.tables import DEFINITIONS, NO_INTERVAL, class_table, percent
from emodarts.scoring.metrics import METRICS

_TITLES = {"ua": "UA", "wa": "WA", "macro_f1": "macro F1"}


def evaluation_page(result: Mapping[str, Any]) -> Section:
    """Scores, confusion and classes of :attr:`emodarts.serving.evaluation.Evaluation.result`."""
    origin, classes = result["origin"], result["classes"]
    left_out = [f"{reason} ({n:,})" for reason, n in result["left_out"].items()]
    table = class_table({**result, "seeds": [origin["seed"]]})
    blocks: tuple[Block, ...] = (
        f"{result['n_test']:,} utterances; the model is of recipe {origin['recipe']} on corpus "
        f"{origin['corpus']}. Uniform answers have a UA of {percent(1 / len(classes))} %.",
        _score_table(result),
        *(Remark("Notice", text) for text in result["notices"]),
        *(Remark("Warning", text) for text in result["warnings"]),
        *([f"Left out: {'; '.join(left_out)}."] if left_out else []),
        Section("Labels", (_label_table(result),)),
        Section("Confusion", (_confusion_table(result),)),
        Section("Classes", (replace(table, caption=()),)),
    )
    return Section(f"Evaluation on {result['corpus']}", blocks)


def _score_table(result: Mapping[str, Any]) -> Table:
    pooled = result["pooled"]
    rows = []
    for metric in METRICS:
        interval = pooled[f"{metric}_interval"] or (None, None)
        rows.append((_TITLES[metric], percent(pooled[metric]), *map(percent, interval)))
    caption = (
        f"Intervals of 95 % by a bootstrap that resamples {pooled['bootstrap_unit']}s "
        f"({pooled['bootstrap_samples']} times).",
        *([NO_INTERVAL] if pooled["ua_interval"] is None else []),
        DEFINITIONS,
    )
    return Table((*words("score"), *numbers("%", "from %", "to %")), tuple(rows), caption)


def _label_table(result: Mapping[str, Any]) -> Table:
    rows = tuple(
        (label, entry["class"], f"{entry['utterances']:,}")
        for label, entry in result["mapping"].items()
    )
    return Table((*words("label of the corpus", "class"), *numbers("utterances")), rows)


def _confusion_table(result: Mapping[str, Any]) -> Table:
    classes = result["classes"]
    rows = tuple(
        (name, *(f"{n:,}" for n in row))
        for name, row in zip(classes, result["confusion"], strict=True)
    )
    caption = ("Rows are true classes, columns predicted ones.",)
    return Table((*words("true"), *numbers(*classes)), rows, caption)
