"""Drawings as SVG that takes part in a page: its text, its colours by day and night, its ids."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

_POINTS_PER_INCH = 72
_NAMESPACE = re.compile(r"\{[^}]*\}")
_NUMBER = re.compile(r"-?\d+\.\d{3,}")
#: In a drawing, pure black is the ink and pure white the paper, whatever a page makes of them.
_COLOURS = ((re.compile(r"#000000\b"), "currentColor"), (re.compile(r"#ffffff\b"), "var(--paper)"))
_LEFT_OUT = {"metadata", "style"}


def to_svg(drawing: Drawing, name: str) -> str:
    """Return an ``svg`` element for an HTML page.

    Text stays text, in the fonts of the page. Black becomes the colour of the text around the
    drawing and white that of the page (``--paper``), so that both can turn round in the dark. What
    a drawing is called by strangers is text in an element or an attribute, and escaped.

    Parameters
    ----------
    name : unique in the page; it begins every id within the drawing.
    """
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        drawing.savefig(
            buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    root = ElementTree.fromstring(buffer.getvalue())
    width, height = (_POINTS_PER_INCH * inches for inches in drawing.get_size_inches())
    root.attrib = {"viewBox": f"0 0 {width:g} {height:g}", "style": f"--width: {width:.0f}pt"}
    for parent in list(root.iter()):
        for child in list(parent):
            if _plain(child.tag) in _LEFT_OUT:
                parent.remove(child)
    used = {
        reference
        for element in root.iter()
        for value in element.attrib.values()
        for reference in re.findall(r"#([\w-]+)", value)
    }
    for element in root.iter():
        element.tag = _plain(element.tag)
        element.attrib = {
            _plain(key): _value(_plain(key), value, name)
            for key, value in element.attrib.items()
            if _plain(key) != "id" or value in used
        }
        if element.tag != "text":
            element.text = element.text if (element.text or "").strip() else None
        element.tail = element.tail if (element.tail or "").strip() else None
    return ElementTree.tostring(root, encoding="unicode")


def _plain(tag: str) -> str:
    """A name without its namespace, which HTML does not have."""
    return _NAMESPACE.sub("", tag)


def _value(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        return value.replace("#", f"#{name}-")
    value = re.sub(r"url\(#", f"url(#{name}-", value)
    if key in ("style", "fill", "stroke"):
        for pattern, variable in _COLOURS:
            value = pattern.sub(variable, value)
    if key == "style" and "font:" in value:
        # The page's own fonts have more characters than those of the drawing.
        value = re.sub(r"(font: [^']*?[\d.]+px) [^;]*", r"\1 var(--font)", value)
    return _NUMBER.sub(lambda match: f"{float(match[0]):.2f}", value)
