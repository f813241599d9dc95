"""What commands print: JSON, aligned columns, and the answers of a model in three formats."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import typer

from emodarts.reports.document import Table, numbers, words
from emodarts.reports.plain import plain_table

if TYPE_CHECKING:
    from emodarts.serving.model import Answer

Style = Literal["table", "json", "csv"]
"""How answers are printed."""


def print_json(value: object) -> None:
    """Print one value over several lines."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False))


def print_error(message: object) -> None:
    """Print a message on standard error."""
    typer.echo(f"error: {message}", err=True)


def print_readers(readers: Mapping[str, tuple[str, Sequence[str]]]) -> None:
    """Print what each reader reads, and its options."""
    rows = [(name, what, " ".join(options)) for name, (what, options) in readers.items()]
    typer.echo(plain_table(Table(words("corpus", "what it is", "options"), tuple(rows))))


def print_answers(style: Style, classes: Sequence[str], answers: Iterable[Answer]) -> None:
    """Print answers with a probability for each class: json and csv at once, a table at the end."""
    if style == "json":
        for a in answers:
            typer.echo(json.dumps(a.to_dict(), ensure_ascii=False))
    elif style == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["file", "start", "end", "predicted", *(f"p_{name}" for name in classes)])
        for a in answers:
            writer.writerow([a.file, a.start, a.end, a.label, *a.probabilities.values()])
    else:
        rows = []
        for a in answers:
            shown = [f"{p:.3f}" for p in a.probabilities.values()]
            rows.append((a.file, f"{a.start:.2f}", f"{a.end:.2f}", a.label, *shown))
        if rows:
            columns = (*words("file"), *numbers("start", "end"), *words("label"))
            typer.echo(plain_table(Table((*columns, *numbers(*classes)), tuple(rows))))
