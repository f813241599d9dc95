"""The documentation as a site: built without a warning, complete, and read without a network."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[1]


class Page(HTMLParser):
    """Places, links, and what a browser loads with the page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.places: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.places.add(given.get("id", ""))
        if tag == "a":
            self.links.append(given.get("href", ""))
        elif tag == "link" and given["rel"] in ("stylesheet", "icon", "preload"):
            self.loaded.append(given["href"])
        self.loaded += [given[key] for key in ("src", "srcset", "data", "poster") if key in given]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as ``make docs`` does."""
    out = tmp_path_factory.mktemp("site")
    options = ("--builder", "html", "--conf-dir", "docs", "--fail-on-warning", "--keep-going")
    command = [sys.executable, "-m", "sphinx", *options, "--quiet", "--fresh-env", ".", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


@pytest.mark.slow
def test_every_page_is_there_and_every_link_leads_somewhere(
    site: Path, pages: dict[Path, Page]
) -> None:
    written = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    assert {site / p.relative_to(ROOT).with_suffix(".html") for p in written} <= set(pages)
    for path, page in pages.items():
        for link in page.links:
            target = urlsplit(link)
            if target.scheme or not link:
                continue
            file = (path.parent / unquote(target.path)).resolve() if target.path else path
            assert file.exists(), (path, link)
            if target.fragment and file.suffix == ".html":
                assert unquote(target.fragment) in pages[file].places, (path, link)


def test_a_page_loads_nothing_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    loaded = [url for page in pages.values() for url in page.loaded]
    assert loaded
    assert not [url for url in loaded if urlsplit(url).scheme not in ("", "data")]
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", sheet.read_text("utf-8"))


def test_equations_need_no_script(site: Path) -> None:
    written = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    equations = re.findall(r"\$\$.+?\$\$|\$.+?\$", written, flags=re.DOTALL)
    shown = (site / "docs" / "method.html").read_text(encoding="utf-8")
    assert shown.count("<math ") == len(equations) > 20


def test_docstrings_are_in_the_site(site: Path) -> None:
    page = (site / "docs" / "api.html").read_text(encoding="utf-8")
    assert 'id="emodarts.run"' in page
    assert "Nothing but a lock is written" in page
    assert "----" not in page
    assert ":class:" not in page
