"""Tables as lines of text with aligned columns."""

from __future__ import annotations

from collections.abc import Callable

from emodarts.reports.document import Link, Table


def text_of(cell: str | Link) -> str:
    """What a cell shows."""
    return cell if isinstance(cell, str) else cell.text


def pad(
    table: Table, clean: Callable[[str | Link], str] = text_of, least: int = 0
) -> list[tuple[str, ...]]:
    """Titles and rows of a table as cells that are equally wide in each column.

    Parameters
    ----------
    clean : makes the text of each cell fit for the format, before its width is taken.
    least : width of a column in characters.
    """
    rows = [[clean(text) for text in row] for row in table.rows]
    padded = []
    for column, *cells in zip(table.columns, *rows, strict=True):
        texts = [clean(column.title), *cells]
        width = max(least, *map(len, texts))
        padded.append([t.rjust(width) if column.numeric else t.ljust(width) for t in texts])
    return list(zip(*padded, strict=True))


def plain_table(table: Table) -> str:
    """Lay out a table with two spaces between columns; without its caption."""
    return "\n".join("  ".join(line).rstrip() for line in pad(table))
