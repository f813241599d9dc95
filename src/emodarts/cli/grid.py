"""The command ``grid``: many runs from one file, on any machine, and how far they are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from emodarts.cli.options import CacheOption, JsonOption, SkipBadOption
from emodarts.cli.printing import explained_stop, print_error, print_json, print_notice
from emodarts.errors import EmodartsError

_UNITS = {"MB": 1, "GB": 1000}


def grid(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Grid file; with --status, also a grid's folder.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder of the grid. [default: runs/FILE]"),
    ] = None,
    runner: Annotated[
        Literal["local", "ray", "slurm"],
        typer.Option(help="What carries out the trials."),
    ] = "local",
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            metavar="N",
            min=1,
            help="Trials side by side. [default: 1 locally, otherwise what the cluster has room "
            "for]",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the runs and about how long they take.")
    ] = False,
    status: Annotated[
        bool, typer.Option("--status", help="Show what is done, running, failed and waiting.")
    ] = False,
    only: Annotated[
        int | None,
        typer.Option("--only", metavar="N", help="Carry out only run N in the list of --dry-run."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--address", metavar="ADDRESS", help="Ray cluster. [default: one on this machine]"
        ),
    ] = None,
    gpus: Annotated[
        float,
        typer.Option(
            "--gpus", metavar="N", min=0, help="GPUs of each trial; with ray also a part of one."
        ),
    ] = 0.0,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory", metavar="SIZE", help="Memory of each trial on a cluster, e.g. 8GB."
        ),
    ] = None,
    retries: Annotated[
        int,
        typer.Option(
            "--retries", metavar="N", min=0, help="How often ray retries a trial that was killed."
        ),
    ] = 2,
    sbatch: Annotated[
        str,
        typer.Option(
            "--sbatch", metavar="OPTIONS", help='Options of sbatch, e.g. "-p gpu -t 4:00:00".'
        ),
    ] = "",
    cache: CacheOption = None,
    skip_bad: SkipBadOption = False,
    as_json: JsonOption = False,
) -> None:
    """Carry out every recipe of a grid file on every corpus, and compare the runs.

    The same command goes on with a grid that was stopped, and runs what was added to the file or
    changed in it. A failure does not stop the rest; the exit code is then 2.
    """
    where = _folder(file, out, status)
    if status:
        from emodarts.experiments.grid_plan import asked_runs
        from emodarts.reports.grid import grid_facts, status_page
        from emodarts.reports.markdown import to_markdown

        runs = asked_runs(where)
        if as_json:
            print_json(grid_facts(runs))
        else:
            typer.echo(to_markdown(status_page(runs)))
        return
    from emodarts.experiments.grid import GridFile

    asked = GridFile.load(file)
    asked.runs()  # refuse what is wrong before torch is loaded
    size = None if memory is None else _megabytes(memory)
    from emodarts.experiments.grid_plan import count_states, lay_out
    from emodarts.experiments.grid_run import run_grid, store_of
    from emodarts.experiments.runners import Means
    from emodarts.layout import GridFolder
    from emodarts.progress import for_terminal
    from emodarts.reports.grid import grid_facts, plan_page, write_comparison
    from emodarts.reports.markdown import to_markdown

    if dry_run:
        laid_out = lay_out(asked, where, store_of(cache), skip_bad=skip_bad)
        runs = tuple(each.asked for each in laid_out)
        if as_json:
            print_json(grid_facts(runs))
        else:
            typer.echo(to_markdown(plan_page(runs, jobs or 1)))
        return
    means = Means(
        jobs=jobs,
        gpus=gpus,
        memory=size,
        retries=retries,
        address=address,
        sbatch=tuple(shlex.split(sbatch)),
    )
    progress = for_terminal()
    print_notice(
        f"To follow it, from another terminal:  {shlex.join(['emodarts', 'watch', str(where)])}"
    )
    with explained_stop(progress, lambda: _describe(where), option=""):
        runs = run_grid(
            asked, where, runner, means, progress, cache=cache, skip_bad=skip_bad, only=only
        )
    page = to_markdown(write_comparison(where))
    if as_json:
        print_json(grid_facts(runs))
    else:
        typer.echo(f"{page}\n\nComparison: {GridFolder(where).comparison}")
    failed = count_states(runs)["failed"]
    if failed:
        for run in runs:
            for reason in run.reasons():
                print_error(f"{run.title}: {reason}")
        print_error(f"{failed} trials failed; the same command tries them again.")
        raise typer.Exit(2)


def _folder(file: Path, out: Path | None, status: bool) -> Path:
    """Folder of the grid."""
    if not file.is_dir():
        return out or Path("runs") / file.stem
    if not status:
        raise EmodartsError(f"{file} is a folder; a grid file is needed, except with --status")
    return file


def _megabytes(text: str) -> int:
    found = re.fullmatch(r"([1-9][0-9]*) ?(MB|GB)", text)
    if found is None:
        raise EmodartsError(f"--memory {text!r}; allowed: a size such as 4GB or 500MB")
    return int(found[1]) * _UNITS[found[2]]


def _describe(out: Path) -> str:
    """How far a grid that was stopped has come, after the word "stopped"."""
    from emodarts.experiments.grid_plan import asked_runs, count_states, is_grid

    if not is_grid(out):
        return "before the first trial; features that were computed are kept"
    counts = count_states(asked_runs(out))
    failed = f", {counts['failed']} failed" if counts["failed"] else ""
    return (
        f"with {counts['done']} of {sum(counts.values())} trials finished{failed}; others continue "
        "after their last whole epoch"
    )
