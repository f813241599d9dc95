"""Documents as Markdown (GitHub's tables) that also reads well as plain text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote

from emodarts.reports.document import Block, Code, Figure, Link, Paragraph, Remark, Section, Table
from emodarts.reports.plain import pad

#: Characters that mean something to Markdown anywhere in a line. An underscore within a word,
#: a ``#`` within one, and an ``&`` that begins no entity are only themselves.
_MARKS = re.compile(r"[\\`*~<|]|(?<![^\W_])_|_(?![^\W_])|(?<!\S)#|&(?=#?\w+;)")
#: The end of brackets that a target could follow, which makes a link of them.
_LINKING = re.compile(rf"{_MARKS.pattern}|\](?=[(\[:])")
#: The same for text that stands in brackets itself, or just before a link.
_BRACKETS = re.compile(rf"{_MARKS.pattern}|[\[\]]")
#: Beginnings of a line that would be a quotation or a list.
_BEGINNING = re.compile(r"^(\d+(?=[.)](?:\s|$))|(?=[-+>]))")


def to_markdown(*blocks: Block, level: int = 1) -> str:
    """Render blocks as Markdown.

    Parameters
    ----------
    level : of the headings of sections among the blocks; sections within those are one deeper.
    """
    return "\n\n".join(part for block in blocks for part in _render(block, level))


def _render(block: Block, level: int) -> Iterator[str]:
    match block:
        case Section(title, blocks):
            if title:
                yield f"{'#' * level} {_line(title)}"
            yield to_markdown(*blocks, level=level + 1)
        case Table():
            yield _table(block)
            yield from map(_paragraph, block.caption)
        case Figure(file, alternative):
            yield f"![{_line(alternative, _BRACKETS)}]({quote(file)})"
        case Remark(label, text):
            yield f"**{_line(label)}:** {_line(text)}"
        case Code(text):
            yield f"    {' '.join(text.split())}"
        case Paragraph(parts):
            yield "".join(map(_part, parts))
        case str():
            yield _paragraph(block)


def _table(table: Table) -> str:
    header, *rows = pad(table, _cell, least=3)
    rules = [
        "-" * (len(title) - 1) + (":" if column.numeric else "-")
        for title, column in zip(header, table.columns, strict=True)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rules, *rows))


def _cell(cell: str | Link) -> str:
    return _line(cell) if isinstance(cell, str) else _part(cell)


def _paragraph(text: str) -> str:
    return _BEGINNING.sub(r"\1\\", _line(text))


def _part(part: str | Link) -> str:
    if isinstance(part, str):
        return _escape(part, _BRACKETS)
    return f"[{_line(part.text, _BRACKETS)}]({quote(part.target)})"


def _line(text: str, marks: re.Pattern[str] = _LINKING) -> str:
    return _escape(text, marks).strip()


def _escape(text: str, marks: re.Pattern[str]) -> str:
    """Text without line breaks, which Markdown shows as it is."""
    return marks.sub(r"\\\g<0>", re.sub(r"\s+", " ", text))
