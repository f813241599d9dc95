"""The HTML page: it needs nothing else, is small, and nobody's names are more than text in it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emodarts import files
from emodarts.cli import main
from emodarts.errors import RunError
from emodarts.reports.document import (
    Code,
    Column,
    Figure,
    Link,
    Paragraph,
    Recording,
    Section,
    Table,
)
from emodarts.reports.html import LIMIT, ROWS, to_html
from emodarts.reports.markdown import to_markdown
from emodarts.reports.page import make_page, write_page
from emodarts.reports.plots import new_figure

MakeRun = Callable[..., Path]
SMALL: Any = {"folds": 1, "seeds": (0,), "strategy": "random", "sequence": False}
HOSTILE = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "line\nbreak\u202egnp.exe\u200f",
    "{{ 7 * 7 }}{% raw %}&amp;",
    "long" * 300,
)


class Page(HTMLParser):
    """Elements, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(key, value or "") for key, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, key: str) -> list[str]:
        return [value for k, value in self.attributes if k == key]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no chromium on this machine: apt-get install chromium fonts-dejavu-core")
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=flags)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def pages(make_shared_run: MakeRun) -> dict[str, Path]:
    """A page of a searched run, and one of a run whose every name is hostile."""
    plain = make_shared_run(optimistic=True, folds=1)
    hostile = make_shared_run(
        "hostile",
        name=HOSTILE[0],
        classes=HOSTILE,
        corpus=HOSTILE[1],
        warnings=[HOSTILE[4]],
        strategy="random",
        folds=1,
        seeds=(0,),
    )
    found = {}
    for name, run in (("plain", plain), ("hostile", hostile)):
        found[name] = run.parent / "pages" / f"{name}.html"
        write_page([run], found[name])
    return found


def test_a_page_is_one_small_file_that_loads_nothing(pages: dict[str, Path]) -> None:
    path = pages["plain"]
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert len(text.encode()) < LIMIT
    assert "://" not in text
    assert page.tags.count("script") == 1
    assert not {"link", "iframe", "object", "embed", "base"} & set(page.tags)
    assert all(value.startswith(("data:image/png", "#")) for value in page.values("xlink:href"))
    for link in page.values("href"):
        assert link.startswith(("#", "data:")) or (path.parent / link).is_file(), link
    for part in (
        "Verdict:",
        "optimistic UA % (chosen on the test fold)",
        "Sd over seeds",
        "Expected calibration error",
        "By gender",
        "Surest mistakes",
        "How they formed",
        "UA against parameters",
        "emodarts run recipe.yaml --corpus synthetic --out ../again",
        "0f" * 32,
    ):
        assert part in page.text, part
    before_result = page.text.index("Verdict:"), page.text.index("Warning:")
    assert max(before_result) < page.text.index("baseline: majority class")


def test_every_figure_has_alternative_text(pages: dict[str, Path]) -> None:
    page = Page(pages["plain"].read_text(encoding="utf-8"))
    alternatives = page.values("aria-label")[1:]  # the first is the table of contents
    assert len(alternatives) == page.tags.count("svg") >= 10
    assert all(len(text.split()) > 10 and text in page.text for text in alternatives)
    ids = page.values("id")
    assert len(ids) == len(set(ids))


def test_names_of_strangers_are_text(pages: dict[str, Path]) -> None:
    text = pages["hostile"].read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert not [key for key, _ in page.attributes if key.startswith("on")]
    assert HOSTILE[0] in page.text
    assert HOSTILE[1] in page.text
    assert HOSTILE[3] in page.text
    assert HOSTILE[4] in page.text
    assert "\\u202egnp.exe\\u200f" in page.text
    assert not re.search("[\u202e\u200f]", text)


def test_a_file_called_like_a_script_is_a_relative_address() -> None:
    sound = Recording("a", "javascript:alert(1)#?.wav", "1.5,2")
    document = Section(
        "t",
        (
            Table((Column("sound"),), ((sound,), (Link("b", "a b/ü.csv"),))),
            Paragraph((Link("c", "javascript:alert(1)"),)),
            Code("emodarts run '<b>'"),
        ),
    )
    page = Page(to_html(document))
    assert page.values("src") == ["javascript%3Aalert%281%29%23%3F.wav#t=1.5,2"]
    assert page.values("href") == ["a%20b/%C3%BC.csv", "javascript%3Aalert%281%29"]
    assert "emodarts run '<b>'" in page.text


def test_a_page_that_would_be_too_large_gives_its_largest_figures_in_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("emodarts.reports.html.LIMIT", 120_000)
    generator = np.random.default_rng(0)

    def draw(n_points: int) -> Any:
        figure = new_figure(4, 3, arrange=False)
        figure.add_subplot().fill(*generator.uniform(size=(2, n_points)))
        return figure

    figures = [
        Figure(f"{n}.png", f"A shape of {n} points.", partial(draw, n))
        for n in (2000, 9, 2001, 2002, 2003)
    ]
    rows = tuple((f"row {k}",) for k in range(ROWS + 5))
    text = to_html(Section("t", (*figures, Table((Column("name"),), rows))))
    page = Page(text)
    assert 80_000 < len(text.encode()) <= 120_000
    drawn = page.values("aria-label")
    assert 2 <= len(drawn) < len(figures)
    assert "A shape of 9 points." in drawn
    assert all(figure.alternative in page.text for figure in figures)
    assert f"{5 - len(drawn)} of 5 figures are given in words" in page.text
    assert f"row {ROWS - 1}" in page.text
    assert f"row {ROWS}" not in page.text
    assert f"first {ROWS} of {ROWS + 5} rows" in page.text
    with pytest.raises(RunError, match=r"0\.1 MB without a figure; allowed: 0\.12 MB"):
        to_html(Section("t", ("x" * 120_000,)))


def test_of_many_speakers_the_lowest_and_the_highest_are_listed(
    make_run: MakeRun, tmp_path: Path
) -> None:
    page = make_page([make_run(**{**SMALL, "folds": 30})], tmp_path)
    text = to_markdown(page)
    assert "Of 60, the 20 with the lowest and the highest UA are listed." in text
    assert "UA of each of 60 speakers" in text
    [figure] = [figure for figure in page.figures() if figure.file == "speakers.png"]
    assert figure.draw().get_figheight() < 5


def mistakes(document: Section) -> Section:
    """The section of the surest mistakes, without the figures of others."""
    sections = [block for block in document.blocks if isinstance(block, Section)]
    return next(section for section in sections if section.title == "Surest mistakes")


def test_sound_of_mistakes_is_linked_by_name_and_content(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(**SMALL, errors=1.0)
    rows = files.read_csv(run / "utterances.csv", RunError)
    corpus = tmp_path / "corpus # 1" / "deep"
    for row in rows:
        files.write_bytes(corpus / f"{row['name']}.wav", row["name"].encode())
        row["sha256"] = files.sha256_of(corpus / f"{row['name']}.wav")
    rows[0]["sha256"] = "0" * 64  # another file of the same name
    rows[1] |= {"start": "1.5", "end": "2.25"}
    files.write_csv(run / "utterances.csv", list(rows[0]), rows)
    text = to_html(mistakes(make_page([run], tmp_path / "pages", corpus.parent)))
    found = Page(text).values("src")
    assert len(found) == 14
    assert "../corpus%20%23%201/deep/0-01.wav#t=1.5,2.25" in found
    assert "../corpus%20%23%201/deep/0-02.wav" in found
    assert "for 1 of them" in text
    with pytest.raises(RunError, match="is not a folder; give the folder of the corpus"):
        make_page([run], tmp_path, tmp_path / "nowhere")


def test_a_page_of_several_runs_compares_them_first(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run(f"run{k}", name=f"system {k}", errors=0.2 * k, **SMALL) for k in range(1, 3)]
    text = to_markdown(make_page(runs, tmp_path))
    order = ["2 runs on synthetic", "Verdict:", "system 1 has the highest UA", "Paired tests"]
    order += ["Surest mistakes", "Surest mistakes"]
    place = 0
    for part in order:
        place = text.index(part, place) + len(part)
    assert text.count("Verdict:") == 1
    text = to_markdown(make_page(runs, tmp_path, only_compared=True))
    assert "Paired tests" in text
    assert "Surest mistakes" not in text


def test_the_command_writes_page_and_tables(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, page, tables = make_run(**SMALL), tmp_path / "page.html", tmp_path / "tables.tex"
    with pytest.raises(SystemExit) as ended:
        main(["report", str(run), "--html", str(page), "--latex", str(tables)])
    assert not ended.value.code
    assert str(page) in capsys.readouterr().out
    assert "Verdict" in page.read_text(encoding="utf-8")
    assert r"\begin{tabular}" in tables.read_text(encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        main(["report", str(run), "--audio", str(tmp_path)])
    assert ended.value.code == 2
    assert "--audio needs --html FILE" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["report", str(run), "--compare"])
    assert "--compare needs several runs, or a grid" in capsys.readouterr().err


@pytest.mark.parametrize("which", ["plain", "hostile"])
def test_in_a_browser(browser: Any, pages: dict[str, Path], which: str) -> None:
    path = pages[which]
    for width, scheme in ((390, "dark"), (1280, "light")):
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page = context.new_page()
        said: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message, said=said: said.append(message.text))
        page.on("pageerror", lambda error, said=said: said.append(str(error)))
        page.on("dialog", lambda dialog, said=said: said.append(dialog.message))
        page.on("request", lambda request, asked=asked: asked.append(request.url))
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        wide = page.evaluate(
            "[...document.querySelectorAll('h1, h2, h3, p, aside, .scroll, pre')]"
            ".filter(e => e.getBoundingClientRect().right > innerWidth + 1).length"
        )
        assert wide == 0
        assert said == []
        assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", background))) > 384) == (scheme == "light")
        table = page.locator("table.sortable").first
        title = table.locator("th", has_text="UA %").first
        column = title.evaluate("e => e.cellIndex")
        for order in ("descending", "ascending"):
            title.locator("button").click()
            assert title.get_attribute("aria-sort") == order
            cells = table.locator(f"tbody td:nth-child({column + 1})").all_text_contents()
            shown = [float(re.findall(r"[\d.]+", cell)[0]) for cell in cells]
            assert shown == sorted(shown, reverse=order == "descending")
        context.close()
    if which == "plain":  # the width of a sheet of paper
        page = browser.new_page(viewport={"width": 720, "height": 1000})
        page.emulate_media(media="print")
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 720
        page.close()
