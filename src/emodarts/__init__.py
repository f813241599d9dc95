"""emodarts: find, train, judge and deploy compact speech emotion recognition networks.

The names below load what they need on first use, so that importing the package is quick.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emodarts.corpora import load_corpus
    from emodarts.errors import EmodartsError
    from emodarts.experiments.plan import Options
    from emodarts.experiments.run import run, search, train
    from emodarts.genotype import Genotype
    from emodarts.recipe import Recipe, load_recipe
    from emodarts.serving.model import Model

__all__ = [
    "EmodartsError",
    "Genotype",
    "Model",
    "Options",
    "Recipe",
    "load",
    "load_corpus",
    "load_recipe",
    "run",
    "search",
    "train",
]

_HOMES = {
    "EmodartsError": "emodarts.errors",
    "Genotype": "emodarts.genotype",
    "Model": "emodarts.serving.model",
    "Options": "emodarts.experiments.plan",
    "Recipe": "emodarts.recipe",
    "load_corpus": "emodarts.corpora",
    "load_recipe": "emodarts.recipe",
    "run": "emodarts.experiments.run",
    "search": "emodarts.experiments.run",
    "train": "emodarts.experiments.run",
}


def load(name: str) -> Model:
    """Load a trained model: its folder, the name of a shipped one, or ``hub:USER/NAME``.

    Raises :class:`BundleError`.
    """
    from emodarts.serving.model import Model

    return Model.load(name)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("emodarts")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'emodarts' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
