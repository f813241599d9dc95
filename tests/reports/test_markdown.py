"""What a Markdown parser reads back is the document."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from matplotlib.figure import Figure as Drawing

from emodarts.reports.document import (
    Block,
    Figure,
    Link,
    Paragraph,
    Remark,
    Section,
    Table,
    numbers,
    words,
)
from emodarts.reports.markdown import to_markdown

#: Any text, and much of what Markdown takes for marks.
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=("Cs", "Cc"))),
    st.text("ab1 -+*_~#>`|\\[](){}!<&;:.=\n", max_size=12),
)


def parse(*blocks: Block) -> list[Any]:
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    return parser.parse(to_markdown(*blocks))


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def texts(tokens: list[Any]) -> list[str]:
    """Text of every inline token; anything but text in one is shown by its type."""
    return [
        "".join(t.content if t.type.startswith("text") else f"<{t.type}>" for t in token.children)
        for token in tokens
        if token.type == "inline"
    ]


def kinds(tokens: list[Any]) -> list[str]:
    return [token.type for token in tokens if token.type != "inline"]


@given(TEXTS.filter(plain))
@example("1. one")
@example("2)")
@example("- dash")
@example("--- ===")
@example("a &amp; &#35; & b")
@example("snake_case and __init__")
@example("[x]: y")
def test_a_paragraph_is_read_back(text: str) -> None:
    tokens = parse(text)
    assert kinds(tokens) == ["paragraph_open", "paragraph_close"]
    assert texts(tokens) == [plain(text)]


@given(TEXTS.filter(plain))
def test_a_heading_is_read_back(text: str) -> None:
    tokens = parse(Section(text, ()))
    assert kinds(tokens) == ["heading_open", "heading_close"]
    assert texts(tokens) == [plain(text)]


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=3), TEXTS.filter(plain))
def test_a_table_is_read_back(rows: list[tuple[str, str]], caption: str) -> None:
    tokens = parse(Table((*words("name"), *numbers("n")), tuple(rows), (caption,)))
    cells = [plain(text) for row in [("name", "n"), *rows] for text in row]
    assert texts(tokens) == [*cells, plain(caption)]
    aligned = [t.attrs.get("style", "") for t in tokens if t.type in ("th_open", "td_open")]
    assert aligned == ["", "text-align:right"] * (1 + len(rows))


@given(TEXTS.filter(plain), TEXTS)
def test_a_remark_has_its_label_in_bold(label: str, text: str) -> None:
    tokens = parse(Remark(label, text))
    opening, *middle = texts(tokens)[0].split("<strong_close>")
    assert opening == f"<strong_open>{plain(label)}:"
    assert "<strong_close>".join(middle).strip() == plain(text)


@given(TEXTS.filter(plain), TEXTS)
def test_links_and_text_are_read_back(text: str, after: str) -> None:
    (inline,) = (t for t in parse(Paragraph((Link(text, "../a b.csv"), after))) if t.children)
    opening, *_ = inline.children
    assert (opening.type, opening.attrs["href"]) == ("link_open", "../a%20b.csv")
    assert texts([inline])[0] == f"<link_open>{plain(text)}<link_close>{plain('x' + after)[1:]}"


@given(TEXTS.filter(plain))
def test_a_figure_is_an_image_with_alternative_text(alternative: str) -> None:
    (inline,) = (t for t in parse(Figure("a b.png", alternative, Drawing())) if t.children)
    (image,) = inline.children
    assert (image.type, image.attrs["src"]) == ("image", "a%20b.png")
    assert "".join(token.content for token in image.children) == plain(alternative)


def test_sections_nest_and_an_untitled_one_has_no_heading() -> None:
    inner = Section("inner", ("text",))
    assert to_markdown(Section("outer", (inner,))) == "# outer\n\n## inner\n\ntext"
    assert to_markdown(Section("", (inner,))) == "## inner\n\ntext"


def test_figures_are_found_at_every_depth_in_order() -> None:
    first, second = (Figure(name, "", Drawing()) for name in ("1.png", "2.png"))
    document = Section("", (Section("a", ("x", Section("b", (first,)))), second))
    assert list(document.figures()) == [first, second]


def test_tables_are_aligned() -> None:
    table = Table((*words("a"), *numbers("n")), (("x|y", "1"), ("z", "20")))
    assert to_markdown(table).splitlines() == [
        "| a    |   n |",
        "| ---- | --: |",
        "| x\\|y |   1 |",
        "| z    |  20 |",
    ]


def test_brackets_that_make_no_link_are_left_alone() -> None:
    assert to_markdown("rounds=[[8, 1], [2, 1]]") == "rounds=[[8, 1], [2, 1]]"


@pytest.mark.parametrize("row", [("x",), ("x", "y", "z")])
def test_a_row_of_another_length_is_an_error(row: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="zip"):
        to_markdown(Table(words("a", "b"), (row,)))
