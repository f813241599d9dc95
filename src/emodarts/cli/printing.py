"""What commands print: JSON, aligned columns, and the answers of a model in three formats."""

from __future__ import annotations

import csv
import json
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from textwrap import fill
from typing import TYPE_CHECKING, Literal

import typer

from emodarts.errors import shown
from emodarts.reports.document import Table, numbers, words
from emodarts.reports.plain import plain_table
from emodarts.stopping import Terminated, sigterm_interrupts

if TYPE_CHECKING:
    from emodarts.progress import Progress
    from emodarts.serving.model import Answer
    from emodarts.systems.listing import Listed

Style = Literal["table", "json", "csv", "audformat", "textgrid"]
"""How answers are printed, or written to a folder."""


class Stopped(Exception):
    """Work was stopped by Ctrl-C or SIGTERM; the message is its state.

    ``option`` is what the same command needs to go on, ``code`` how it exits now.
    """

    def __init__(self, state: str, option: str, code: int) -> None:
        super().__init__(state)
        self.option, self.code = option, code


@contextmanager
def explained_stop(progress: Progress, describe: Callable[[], str], option: str) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into :class:`Stopped`, with the state that ``describe`` gives."""
    try:
        with sigterm_interrupts():
            yield
    except KeyboardInterrupt as stop:
        progress.stop()
        number = signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT
        raise Stopped(describe(), option, 128 + number) from None


def print_json(value: object) -> None:
    """Print one value over several lines."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False))


def print_error(message: object) -> None:
    """Print a message on standard error."""
    typer.echo(f"error: {message}", err=True)


def print_notice(message: object) -> None:
    """Print on standard error what is being done."""
    typer.echo(message, err=True)


def print_warning(message: object) -> None:
    """Print a message on standard error that is no error."""
    typer.echo(f"warning: {message}", err=True)


def print_readers(readers: Mapping[str, tuple[str, Sequence[str]]]) -> None:
    """Print what each reader reads, and its options."""
    rows = [(name, what, " ".join(options)) for name, (what, options) in readers.items()]
    typer.echo(plain_table(Table(words("corpus", "what it is", "options"), tuple(rows))))


def print_models(models: Mapping[str, str]) -> None:
    """Print the name of each model and what it is."""
    for name, summary in models.items():
        typer.echo(f"{name}\n{fill(summary, 96, initial_indent='    ', subsequent_indent='    ')}")


def print_recipes(recipes: Mapping[str, Listed]) -> None:
    """Print what each recipe is, its size and its paper."""
    rows = [
        (
            name,
            r.title,
            r.system,
            r.strategy or "",
            "" if r.parameters is None else f"{r.parameters:,}",
            r.paper or "",
        )
        for name, r in recipes.items()
    ]
    titles = (*words("recipe", "what it is", "system", "search"), *numbers("parameters"))
    typer.echo(plain_table(Table((*titles, *words("paper")), tuple(rows))))


def print_answers(style: Style, classes: Sequence[str], answers: Iterable[Answer]) -> None:
    """Print answers with a probability for each class: json and csv at once, a table at the end."""
    if style == "json":
        for a in answers:
            typer.echo(json.dumps(a.to_dict(), ensure_ascii=False))
    elif style == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        # csv quotes a line feed in a name, but not a carriage return.
        quoting = csv.writer(sys.stdout, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        shares_of = [f"p_{name}" for name in classes]
        writer.writerow(["file", "start", "end", "predicted", "note", *shares_of])
        for a in answers:
            shares = [a.probabilities.get(name, "") for name in classes]
            row_writer = quoting if "\r" in a.file else writer
            row_writer.writerow([a.file, a.start, a.end, a.label, a.note, *shares])
    else:
        table = []
        for a in answers:
            cells = [f"{a.probabilities[c]:.3f}" if a.probabilities else "" for c in classes]
            times = (f"{a.start:.2f}", f"{a.end:.2f}")
            table.append((shown(a.file), *times, a.label, *cells, a.note))
        if table:
            titles = (*words("file"), *numbers("start", "end"), *words("label"), *numbers(*classes))
            # Without notes, their column is left out.
            width = len(titles) + any(row[-1] for row in table)
            head = (*titles, *words("note"))[:width]
            typer.echo(plain_table(Table(head, tuple(row[:width] for row in table))))
