"""Tables of a document in LaTeX, for the package ``booktabs``."""

from __future__ import annotations

import re

from emodarts.reports.document import Link, Section, Table
from emodarts.reports.plain import text_of

_MEANING = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "…": r"\ldots{}",
    "[": "{[}",
    "]": "{]}",
}


def to_latex(document: Section) -> str:
    """All tables of a document with numbers in them, each in an environment ``table``."""
    tables = [
        _table(title, table)
        for title, table in document.tables()
        if any(column.numeric for column in table.columns)
    ]
    return "% \\usepackage{booktabs}\n\n" + "\n\n".join(tables) + "\n"


def _table(title: str, table: Table) -> str:
    columns = "".join("r" if column.numeric else "l" for column in table.columns)
    header = " & ".join(_escape(column.title) for column in table.columns)
    rows = [" & ".join(map(_cell, row)) + r" \\" for row in table.rows]
    caption = " ".join([f"{_escape(title)}.", *map(_escape, table.caption)])
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            rf"{header} \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _cell(cell: str | Link) -> str:
    return _escape(text_of(cell))


def _escape(text: str) -> str:
    """Text in which no character means anything to TeX; control characters are left out."""
    plain = re.sub(r"[\x00-\x1f\x7f]+", " ", text)
    return "".join(_MEANING.get(character, character) for character in plain)
