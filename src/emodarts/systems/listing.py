"""Built-in recipes as rows: what each is, whose it is, and how large its model is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from emodarts.recipe import SYSTEMS, builtin_recipes, load_recipe, read_header
from emodarts.systems.system import Sized

#: Classes of the papers, for recipes that keep all of a corpus.
_CLASSES = 4


@dataclass(frozen=True)
class Listed:
    """A built-in recipe.

    Attributes
    ----------
    title, paper : see :class:`emodarts.recipe.Header`.
    system : its kind.
    strategy : of the search; None where nothing is searched.
    parameters : trained numbers of the model; None where a search or the data decides.
    classes : for which those are counted: those of the recipe, or 4 where it names none.
    """

    title: str
    paper: str | None
    system: str
    strategy: str | None
    parameters: int | None
    classes: int

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def list_recipes() -> dict[str, Listed]:
    """Every built-in recipe, by name."""
    return {name: _listed(name) for name in builtin_recipes()}


def _listed(name: str) -> Listed:
    recipe, header = load_recipe(name), read_header(name)
    kind = recipe.system.kind
    system = SYSTEMS[kind].build(recipe.system)
    classes = _CLASSES if recipe.labels is None else len(recipe.labels)
    parameters = None
    if isinstance(system, Sized):
        with torch.device("meta"):  # shapes are enough
            parameters = system.parameters(recipe, classes)
    strategy = recipe.search.strategy if recipe.searches else None
    return Listed(header.title, header.paper, kind, strategy, parameters, classes)
