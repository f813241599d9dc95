"""The page about any runs and grids: what is compared, then each run; as HTML, or its tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from emodarts import files
from emodarts.experiments.grid_plan import asked_runs, is_grid
from emodarts.layout import RunFolder
from emodarts.reports.document import Block, Link, Paragraph, Remark, Section
from emodarts.reports.grid import compared_runs, shortfalls
from emodarts.reports.html import to_html
from emodarts.reports.latex import to_latex
from emodarts.reports.published import size_section
from emodarts.reports.report import (
    compare,
    load_result,
    make_report,
    name_apart,
    relative,
)

#: Runs that a page shows in full beside their comparison.
_DETAILED = 4


def runs_in(paths: Sequence[Path]) -> list[Path]:
    """The run folders that were asked for: for a grid, those of its runs that have a result."""
    found = []
    for path in paths:
        asked = [run.path for run in asked_runs(path)] if is_grid(path) else [path]
        found += [run for run in asked if run == path or RunFolder(run).result.is_file()]
    return list(dict.fromkeys(found))


def make_comparison(paths: Sequence[Path], *, drawn: bool = False) -> Section:
    """Compare runs and grids; those of a grid by corpus and group, other ones with all the rest.

    Where grids and runs are of several corpora, those of each corpus are compared.

    Parameters
    ----------
    drawn : with figures.

    Raises
    ------
    RunError, RecipeError, GenotypeError
        If a run is not finished or one of its files is broken.
    """
    sections = []
    for title, runs in _groups(paths):
        blocks = [*compare(runs).blocks]
        if drawn:
            sizes = size_section(name_apart(runs, [load_result(run) for run in runs]))
            blocks += [sizes] if sizes else []
        sections.append(Section(title, tuple(blocks)))
    remarks = [remark for path in paths if is_grid(path) for remark in shortfalls(path)]
    if len(sections) == 1:
        first, *others = sections[0].blocks  # the verdict
        return Section("Comparison", (first, *remarks, *others))
    return Section("Comparison", (*remarks, *sections))


def _groups(paths: Sequence[Path]) -> Iterator[tuple[str, list[Path]]]:
    """Title and runs of each comparison."""
    if len(paths) == 1 and is_grid(paths[0]):
        for title, asked in compared_runs(paths[0]):
            yield title, [run.path for run in asked]
        return
    runs = runs_in(paths)
    if not any(map(is_grid, paths)):
        yield "", runs
        return
    corpora: dict[str, list[Path]] = {}
    for run in runs:
        corpora.setdefault(load_result(run)["corpus"], []).append(run)
    yield from corpora.items()


def make_page(
    paths: Sequence[Path], page: Path, audio: Path | None = None, *, only_compared: bool = False
) -> Section:
    """Make one document of runs and grids: their comparison first, then each of up to four runs.

    Parameters
    ----------
    page : folder of the document, to which links are relative.
    audio : as of :func:`emodarts.reports.report.make_report`.
    only_compared : leave out the reports of single runs.

    Raises
    ------
    RunError, RecipeError, GenotypeError
        If a run is not finished or one of its files is broken.
    """
    if len(paths) == 1 and not is_grid(paths[0]):
        return make_report(paths[0], page, audio)
    runs = runs_in(paths)
    results = name_apart(runs, [load_result(run) for run in runs])
    blocks: list[Block] = [*make_comparison(paths, drawn=True).blocks]
    if not only_compared and len(runs) <= _DETAILED:
        for run, result in zip(runs, results, strict=True):
            report = make_report(run, page, audio)
            parts = [b for b in report.blocks if not _is_of_comparison(b)]
            blocks.append(Section(_title(result, results), tuple(parts)))
    elif not only_compared:
        links: list[str | Link] = []
        for run, result in zip(runs, results, strict=True):
            links += [", "] if links else []
            links.append(Link(_title(result, results), relative(run, page)))
        blocks.append(Section("Runs", (Paragraph(tuple(links)),)))
    corpora = " and ".join(dict.fromkeys(result["corpus"] for result in results))
    asked = sum(len(asked_runs(path)) if is_grid(path) else 1 for path in paths)
    some = f"{len(runs)} of {asked}" if len(runs) < asked else str(asked)
    return Section(f"{some} runs" + (f" on {corpora}" if runs else ""), tuple(blocks))


def _title(result: dict[str, Any], results: Sequence[dict[str, Any]]) -> str:
    several = len({each["corpus"] for each in results}) > 1
    return f"{result['name']} on {result['corpus']}" if several else str(result["name"])


def _is_of_comparison(block: Block) -> bool:
    """Whether a block of a report says what a comparison of runs has said."""
    return isinstance(block, Remark) or (
        isinstance(block, Section) and block.title in ("Result", "UA against parameters")
    )


def write_page(
    paths: Sequence[Path], path: Path, audio: Path | None = None, *, only_compared: bool = False
) -> None:
    """Write one HTML file about runs and grids; see :func:`make_page` for what is raised.

    Raises
    ------
    RunError
        If even without figures the page is too large.
    WriteError
        If the file cannot be written.
    """
    document = make_page(paths, path.parent, audio, only_compared=only_compared)
    files.write_text(path, to_html(document))


def write_latex(paths: Sequence[Path], path: Path) -> None:
    """Write the tables of numbers about runs and grids as LaTeX.

    Raises
    ------
    RunError, RecipeError, GenotypeError
        If a run is not finished or one of its files is broken.
    WriteError
        If the file cannot be written.
    """
    single = len(paths) == 1 and not is_grid(paths[0])
    files.write_text(path, to_latex(make_report(paths[0]) if single else make_comparison(paths)))
