"""Tables in LaTeX: what is in them, and that no name is a command."""

from __future__ import annotations

import re

from emodarts.reports.document import Link, Section, Table, numbers, words
from emodarts.reports.latex import to_latex


def test_tables_of_numbers_with_their_section_and_caption() -> None:
    scores = Table(
        (*words("system"), *numbers("UA %")),
        (("a_1 & b", "88.7 ± 6.4"), (r"\input{x}", "–"), (Link("^", "x"), "1")),
        ("5 % level.",),
    )
    facts = Table(words("item", "value"), (("python", "3.12"),))
    text = to_latex(Section("t", (Section("Result #1", (scores,)), Section("Setup", (facts,)))))
    assert text.splitlines()[0] == r"% \usepackage{booktabs}"
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 1
    assert r"\begin{tabular}{lr}" in text
    assert r"\caption{Result \#1. 5 \% level.}" in text
    assert r"a\_1 \& b & 88.7 $\pm$ 6.4 \\" in text
    assert r"\textbackslash{}input\{x\} & -- \\" in text
    assert r"\textasciicircum{} & 1 \\" in text
    assert not re.search(r"(?<!\\)[#$](?!\\pm)", text.replace("$\\pm$", ""))
