"""The page of ``emodarts headroom``: what a search could gain, in words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from emodarts import files
from emodarts.layout import RunFolder
from emodarts.reports.document import Section, Table, numbers, words
from emodarts.reports.markdown import to_markdown
from emodarts.reports.tables import percent
from emodarts.scoring.variance import LEVEL, POWER


def headroom_page(result: Mapping[str, Any]) -> Section:
    """Say what :func:`emodarts.experiments.headroom.headroom` found."""
    k, s = len(result["genotypes"]), len(result["seeds"])
    facts = (
        f"{k} random genotypes with {s} seeds each, judged by the UA of the pooled predictions of "
        f"{result['inner_folds']} inner folds that leave development speakers out; mean UA "
        f"{percent(result['mean'])} %. Standard deviation between seeds of one genotype "
        f"{_points(result['sd_seeds'])}, between genotypes beyond that "
        f"{_points(result['sd_genotypes'])}."
    )
    rows = tuple(
        (
            str(index),
            percent(float(np.mean(scores))),
            percent(float(np.std(scores, ddof=1))),
            ", ".join(f"{key} {value}" for key, value in genotype["macro"].items()),
        )
        for index, (genotype, scores) in enumerate(
            zip(result["genotypes"], result["ua"], strict=True)
        )
    )
    columns = (*numbers("genotype", "UA %", "sd over seeds"), *words("network"))
    title = f"Headroom of {result['name']} on {result['corpus']}"
    return Section(title, (facts, _verdict(result), _claim(result), Table(columns, rows)))


def _verdict(result: Mapping[str, Any]) -> str:
    f = "without bound" if result["f"] is None else f"{result['f']:.2f}"
    test = f"F = {f}, p = {result['p']:.2g}"
    best = f"the best of {len(result['genotypes'])} would gain {_points(result['gain'])}"
    if result["p"] < LEVEL:
        return f"Genotypes differ by more than seeds do ({test}): {best} over their mean."
    return (
        f"Genotypes cannot be told from seeds ({test}): on this much data, a search over this "
        f"space has little to find. By the best estimate, {best} over their mean."
    )


def _claim(result: Mapping[str, Any]) -> str:
    return (
        f"To claim that one system is {_points(result['difference'])} better than another, train "
        f"each with at least {result['seeds_needed']} seeds ({LEVEL:.0%} level, {POWER:.0%} power)."
    )


def _points(share: float) -> str:
    return f"{percent(share)} points"


def write_headroom(run: Path, result: Mapping[str, Any]) -> Path:
    """Write the page as ``headroom.md`` into the folder of the run; return its path."""
    path = RunFolder(run).headroom_page
    files.write_text(path, to_markdown(headroom_page(result)) + "\n")
    return path
