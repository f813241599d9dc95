"""Settings of the documentation site, which ``make docs`` builds from the Markdown of this project.

Sources are read from the root of the repository, so that a link leads to the same file in the site
and in the repository. A page that is not in ``NAVIGATION``, or a link to nothing, is a warning, and
warnings are errors.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

import emodarts

NAVIGATION = {
    "Begin": ("docs/quickstart", "docs/own-data", "docs/limits"),
    "Use": (
        "docs/corpora",
        "docs/protocols",
        "docs/features",
        "docs/recipes",
        "docs/reports",
        "docs/files",
        "docs/deploying",
        "docs/scaling",
        "src/emodarts/models/emodb/README",
    ),
    "Understand": ("docs/method", "docs/results", "docs/fidelity", "docs/performance"),
    "Extend": (
        "docs/extending",
        "docs/api",
        "docs/architecture",
        "CONTRIBUTING",
        "CHANGELOG",
    ),
}

project = author = copyright = html_title = "emodarts"
release = emodarts.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "src/emodarts/models/*/README.md"]
exclude_patterns = [".*", "build", "runs", "demo", "tests"]
highlight_language = "none"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False


def add_navigation(app: Sphinx, page: str, source: list[str]) -> None:
    """Give the first page the lists of all others."""
    if page == root_doc:
        for caption, pages in NAVIGATION.items():
            listed = "\n".join(f"/{name}" for name in pages)
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{listed}\n```\n"


def show_math(translator: Any, node: nodes.math | nodes.math_block) -> None:
    """Write MathML, which browsers show without a script."""
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    translator.body.append(convert(node.astext(), display=display))
    raise nodes.SkipNode


def show_sections(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Turn the sections of a docstring into bold titles, and their entries into definitions."""
    text = re.sub(r"^(\w+)\n-{3,}$", r"**\1**\n", "\n".join(lines), flags=re.MULTILINE)
    entry = re.compile(r"^(\w[\w*]*(?:, \w[\w*]*)*) : (.*)$", flags=re.MULTILINE)
    lines[:] = entry.sub(r"``\1``\n    \2", text).splitlines()


def add_index(app: Sphinx, error: Exception | None) -> None:
    """Let a web server find the first page."""
    if error is None and app.builder.name == "html":
        shutil.copyfile(Path(app.outdir) / f"{root_doc}.html", Path(app.outdir) / "index.html")


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("mathml", (show_math, None), (show_math, None))
    app.connect("source-read", add_navigation)
    app.connect("autodoc-process-docstring", show_sections)
    app.connect("build-finished", add_index)
