"""A report as data: text, tables and figures in sections, whatever format shows them.

All text is plain; a renderer such as :mod:`emodarts.reports.markdown` escapes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, Union

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

Block: TypeAlias = Union[str, "Paragraph", "Remark", "Code", "Table", "Figure", "Section"]
"""What a section consists of; a ``str`` is a paragraph of text."""


@dataclass(frozen=True, slots=True)
class Link:
    """A link to a file.

    Attributes
    ----------
    text : what is shown.
    target : relative path or address.
    """

    text: str
    target: str


@dataclass(frozen=True, slots=True)
class Recording(Link):
    """A link to sound, which a format that can play it shows as a player.

    Attributes
    ----------
    stretch : start and end in seconds of what is to be played, e.g. ``"1.5,3.25"``; empty for all.
    """

    stretch: str = ""


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Text with links in it."""

    parts: tuple[str | Link, ...]


@dataclass(frozen=True, slots=True)
class Remark:
    """A paragraph that must not be overlooked, e.g. a notice or a warning.

    Attributes
    ----------
    label : its kind, shown in bold before the text.
    """

    label: str
    text: str


@dataclass(frozen=True, slots=True)
class Code:
    """A line to copy, such as a command."""

    text: str


@dataclass(frozen=True, slots=True)
class Column:
    """Title of a column; numbers are aligned to the right, words to the left."""

    title: str
    numeric: bool = False


def words(*titles: str) -> tuple[Column, ...]:
    """Columns of words."""
    return tuple(Column(title) for title in titles)


def numbers(*titles: str) -> tuple[Column, ...]:
    """Columns of numbers."""
    return tuple(Column(title, numeric=True) for title in titles)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells, one for each column.

    Attributes
    ----------
    caption : paragraphs that belong to the table, such as definitions of its scores.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[str | Link, ...], ...]
    caption: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing in a file beside the document.

    Attributes
    ----------
    file : its name.
    alternative : what the drawing shows, in words, for readers who do not see it.
    draw : makes the drawing, which takes a while.
    """

    file: str
    alternative: str
    draw: Callable[[], Drawing]


@dataclass(frozen=True, slots=True)
class Section:
    """Blocks under a heading; the outermost section is the document.

    Attributes
    ----------
    title : of the section; empty for a document without a heading.
    """

    title: str
    blocks: tuple[Block, ...]

    def figures(self) -> Iterator[Figure]:
        """All figures of the section and those within it, in order."""
        for block in self.blocks:
            if isinstance(block, Figure):
                yield block
            elif isinstance(block, Section):
                yield from block.figures()

    def tables(self) -> Iterator[tuple[str, Table]]:
        """All tables of the section and those within it, in order, with the title above each."""
        for block in self.blocks:
            if isinstance(block, Table):
                yield self.title, block
            elif isinstance(block, Section):
                yield from block.tables()
