"""Where a model is: in a folder, among those that come with the package, or on the Hub."""

from __future__ import annotations

from pathlib import Path

from emodarts.bundle import DESCRIPTION
from emodarts.errors import BundleError, did_you_mean

CARD = "README.md"
"""The card of a model, in its folder."""

HUB = "hub:"
"""Begins the name of a model on the Hugging Face Hub."""

_FOLDER = Path(__file__).resolve().parents[1] / "models"


def shipped_models() -> dict[str, Path]:
    """Folders of the models that come with the package, by name."""
    return {path.parent.name: path.parent for path in sorted(_FOLDER.glob(f"*/{DESCRIPTION}"))}


def find_model(name: str | Path) -> Path:
    """The folder of a model that is named by a folder, by a shipped name, or as ``hub:USER/NAME``.

    A folder with a model in it goes before a shipped model of that name.

    Raises
    ------
    BundleError
        If there is no such model, or the Hub cannot be reached.
    """
    text = str(name)
    if text.startswith(HUB):
        from emodarts.serving.hub import fetch

        return fetch(text.removeprefix(HUB))
    shipped = shipped_models()
    folder = Path(name)
    if text in shipped and not (folder / DESCRIPTION).is_file():
        return shipped[text]
    if not folder.exists() and len(folder.parts) == 1:
        raise BundleError(
            f"no such model: {text}{did_you_mean(text, shipped)}; a model is a folder, or one of: "
            f"{', '.join(shipped) or 'none'}"
        )
    return folder


def card_summary(folder: Path) -> str:
    """The first paragraph of a model's card, on one line, or ``""``."""
    try:
        text = (folder / CARD).read_text(encoding="utf-8")
    except OSError:
        return ""
    if text.startswith("---\n"):
        text = text.split("\n---\n", 1)[-1]
    paragraphs = [p for p in text.split("\n\n") if p.strip() and not p.lstrip().startswith("#")]
    return " ".join(paragraphs[0].split()) if paragraphs else ""
