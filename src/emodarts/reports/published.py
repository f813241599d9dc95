"""UA against parameters, with the figures of the papers that are known, and where they are from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from emodarts.reports.document import Block, Figure, Section
from emodarts.reports.plots import Point, describe_sizes, size_figure

#: Four classes of the improvised part of IEMOCAP; UA and its deviation over folds, as printed in
#: arXiv 2305.14402 (and for the first EmotionNAS point, in arXiv 2203.13617).
PUBLISHED = (
    Point("CNN by hand (2305.14402)", 35_017, 0.5004, 0.0269),
    Point("CNN-DARTS, 4 cells (2305.14402)", 417_612, 0.6936, 0.0300),
    Point("CNN-DARTS, 8 cells (2305.14402)", 428_812, 0.6225, 0.0674),
    Point("EmotionNAS, CNN (2203.13617)", 130_000, 0.573, None),
    Point("EmotionNAS, CNN + RNN (2203.13617)", 2_370_000, 0.691, None),
)

_CAPTION = (
    "Bars are standard deviations over folds. Hollow points are as published, for four classes of "
    "the improvised part of IEMOCAP, with folds of their own and in part with epochs that were "
    "chosen on the test fold: they show the sizes of such networks and are no comparison."
)


def size_section(results: Sequence[Mapping[str, Any]]) -> Section | None:
    """The figure, if the parameters of a system are known."""
    systems = [
        Point(r["name"], r["parameters"], r["ua"], r["ua_sd_folds"])
        for r in results
        if r.get("parameters")
    ]
    if not systems:
        return None
    figure = Figure(
        "size.png", describe_sizes(systems, PUBLISHED), partial(size_figure, systems, PUBLISHED)
    )
    blocks: tuple[Block, ...] = (figure, _CAPTION)
    return Section("UA against parameters", blocks)
