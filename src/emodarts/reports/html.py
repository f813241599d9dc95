"""Documents as one HTML file that needs nothing else: no network, no fonts, no other files."""

from __future__ import annotations

import base64
import hashlib
import re
import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from emodarts.errors import RunError
from emodarts.reports.document import Figure, Link, Recording, Section
from emodarts.reports.svg import to_svg

if TYPE_CHECKING:
    from markupsafe import Markup

LIMIT = 2_000_000
"""Bytes of a page, at most."""
ROWS = 300
"""Rows of a table on a page, at most."""

#: Bytes of a page around a drawing.
_AROUND = 200
#: Characters that turn the order of the text around them round; a page shows their code instead.
_TURNING = {*"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"}


def to_html(document: Section) -> str:
    """Render a document as an HTML page of at most :data:`LIMIT` bytes.

    Everything is in the page but recordings, which stay links. It loads nothing: a content security
    policy forbids all but its own style, its own script and sound from files. Names in the document
    may come from anyone; all are escaped, and control characters are shown as their codes.

    If the page would become too large, the largest figures are given in words alone, and tables
    lose the rows after the :data:`ROWS` first ones; it says so.

    Parameters
    ----------
    document : a section with a title; the sections within it make the table of contents.

    Raises
    ------
    RunError
        If the page is too large even without a figure.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("emodarts.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalise,
    )
    style, script = (
        environment.loader.get_source(environment, f"report.{suffix}")[0]  # type: ignore[union-attr]
        for suffix in ("css", "js")
    )
    template = environment.get_template("report.html")

    def render(drawings: Mapping[int, Markup]) -> str:
        return template.render(
            document=document,
            style=style,
            script=script,
            script_hash=_hash(script),
            kind=lambda block: type(block).__name__,
            address=_address,
            rows=ROWS,
            n_figures=n_figures,
            n_drawn=len(drawings),
            drawing=lambda figure: drawings.get(id(figure)),
        )

    drawings = {
        id(figure): _drawing(figure, f"f{number}")
        for number, figure in enumerate(document.figures(), 1)
    }
    n_figures = len(drawings)
    room = LIMIT - len(render({}).encode())
    if room < 0:
        raise RunError(
            f"the page would have {(LIMIT - room) / 1e6:.1f} MB without a figure; allowed: "
            f"{LIMIT / 1e6:g} MB: report fewer runs"
        )
    sizes = sorted((len(drawing.encode()), name) for name, drawing in drawings.items())
    for size, name in sizes:
        room -= size + _AROUND
        if room < 0:
            del drawings[name]
    return render(drawings)


def _finalise(value: Any) -> Any:
    """What a page shows of a text; markup, which is a subclass, stays as it is."""
    if type(value) is not str:
        return value
    # A number keeps its unit in its line.
    return re.sub(r"(?<=\d) %", "\u00a0%", "".join(map(_visible, value)))


def _visible(character: str) -> str:
    control = unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t"
    return f"\\u{ord(character):04x}" if control or character in _TURNING else character


def _address(link: Link) -> str:
    """A relative address: not even a file called ``javascript:`` is a scheme."""
    fragment = f"#t={link.stretch}" if isinstance(link, Recording) and link.stretch else ""
    return quote(link.target) + fragment


def _drawing(figure: Figure, name: str) -> Markup:
    from markupsafe import Markup, escape

    svg = to_svg(figure.draw(), name)
    described = f'<svg role="img" aria-label="{escape(_finalise(figure.alternative))}" '
    # Safe: an element that was parsed as XML and written anew.
    return Markup(re.sub(r"^<svg ", lambda _: described, svg, count=1))


def _hash(text: str) -> str:
    """A source of a content security policy that allows this inline script alone."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
