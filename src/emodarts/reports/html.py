"""Documents as one HTML file that needs nothing else: no network, no fonts, no other files."""

from __future__ import annotations

import base64
import hashlib
import re
import unicodedata
from itertools import count
from typing import Any
from urllib.parse import quote

from emodarts.reports.document import Figure, Link, Recording, Section
from emodarts.reports.svg import to_svg

#: Characters that turn the order of the text around them round; a page shows their code instead.
_TURNING = {*"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"}


def to_html(document: Section) -> str:
    """Render a document as an HTML page.

    Everything is in the page but recordings, which stay links. It loads nothing: a content security
    policy forbids all but its own style, its own script and sound from files. Names in the document
    may come from anyone; all are escaped, and control characters are shown as their codes.

    Parameters
    ----------
    document : a section with a title; the sections within it make the table of contents.
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
    numbers = count(1)
    return environment.get_template("report.html").render(
        document=document,
        style=style,
        script=script,
        script_hash=_hash(script),
        kind=lambda block: type(block).__name__,
        address=_address,
        drawing=lambda figure: _drawing(figure, f"f{next(numbers)}"),
    )


def _finalise(value: Any) -> Any:
    """What a page shows of a text; markup, which is a subclass, stays as it is."""
    if type(value) is not str:
        return value
    return "".join(map(_visible, value))


def _visible(character: str) -> str:
    control = unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t"
    return f"\\u{ord(character):04x}" if control or character in _TURNING else character


def _address(link: Link) -> str:
    """A relative address: not even a file called ``javascript:`` is a scheme."""
    fragment = f"#t={link.stretch}" if isinstance(link, Recording) and link.stretch else ""
    return quote(link.target) + fragment


def _drawing(figure: Figure, name: str) -> Any:
    from markupsafe import Markup, escape

    svg = to_svg(figure.draw(), name)
    described = f'<svg role="img" aria-label="{escape(_finalise(figure.alternative))}" '
    # Safe: an element that was parsed as XML and written anew.
    return Markup(re.sub(r"^<svg ", lambda _: described, svg, count=1))


def _hash(text: str) -> str:
    """A source of a content security policy that allows this inline script alone."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
