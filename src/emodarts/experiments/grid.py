"""A grid file: recipes on corpora, with folds, seeds and changed keys, as one checked value."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator, model_validator

from emodarts.corpora import Corpus, load_corpus
from emodarts.errors import RecipeError
from emodarts.recipe import Recipe, load_recipe
from emodarts.recipe.explain import explain
from emodarts.recipe.loading import parse_yaml
from emodarts.recipe.section import Section

Changes = dict[str, Any]
"""Values by dotted keys of a recipe."""
Condition = dict[str, Any]
"""What a run must be: ``recipe``, ``corpus``, ``group``, or a dotted key of its recipe; the value
is one that is allowed, or a list of them; names may have ``*``."""

_ABSENT = object()


class CorpusSource(Section):
    """A corpus of a grid, and the keys of every recipe that it decides."""

    corpus: str | None = None
    """Reader; by default the name of the entry."""
    root: str | None = None
    """Folder of the corpus or the file that lists it, relative to the grid file."""
    options: dict[str, str] = Field(default_factory=dict)
    """Options of the reader."""
    labels: Any = None
    """Key ``labels`` of the recipes."""
    styles: list[str] | None = None
    """Key ``styles`` of the recipes."""
    split: str | None = None
    """Key ``evaluation.split`` of the recipes."""
    set: Changes = Field(default_factory=dict)
    """Other keys of the recipes, for this corpus only."""

    def changes(self, beside: Path) -> Changes:
        """Keys of the recipes that the corpus decides."""
        split = self.split
        if split is not None and split.endswith(".json"):
            split = str(beside / split)
        given = {"labels": self.labels, "styles": self.styles, "evaluation.split": split}
        return {**{k: v for k, v in given.items() if v is not None}, **self.set}

    def load(self, name: str, beside: Path) -> Corpus:
        """List its utterances. Raises :class:`CorpusError`."""
        root = None if self.root is None else beside / Path(self.root).expanduser()
        return load_corpus(self.corpus or name, root, **self.options)


class Grid(Section):
    """Runs to compare: each recipe on each corpus with each choice of ``axes``."""

    recipes: Annotated[list[str] | dict[str, list[str]], Field(min_length=1)]
    """Names or files of recipes, relative to the grid file; or lists of them by the name of a
    group, whose runs are compared among each other. A recipe may be in several groups."""
    corpora: Annotated[dict[str, CorpusSource], Field(min_length=1)]
    """Corpora by a name of your own."""
    folds: list[Annotated[int, Field(ge=0)]] | None = None
    """Folds of every run; by default all."""
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = Field((0,), min_length=1)
    """Seeds of every run."""
    set: Changes = Field(default_factory=dict)
    """Keys of every recipe, e.g. ``search.epochs: 20``."""
    axes: tuple[Annotated[tuple[Changes, ...], Field(min_length=1)], ...] = ()
    """Each axis is a list of choices, each choice the keys that it sets; runs are made for every
    combination."""
    only: tuple[Condition, ...] = ()
    """Keep only runs that meet one of these conditions."""
    exclude: tuple[Condition, ...] = ()
    """Leave out runs that meet one of these conditions."""

    @field_validator("corpora", mode="before")
    @classmethod
    def _roots(cls, value: Any) -> Any:
        """A text alone is the root of a corpus."""
        if not isinstance(value, dict):
            return value
        return {k: {"root": v} if isinstance(v, str) else v for k, v in value.items()}

    @model_validator(mode="after")
    def _folds_and_seeds(self) -> Grid:
        everywhere = [self.set, *(source.set for source in self.corpora.values())]
        everywhere += [choice for axis in self.axes for choice in axis]
        for key in ("folds", "seeds"):
            if any(f"evaluation.{key}" in changes for changes in everywhere):
                raise ValueError(f"evaluation.{key} is the same for all runs; give `{key}`")
        return self

    @property
    def groups(self) -> dict[str, list[str]]:
        """Recipes by group; without groups, all are in one without a name."""
        return self.recipes if isinstance(self.recipes, dict) else {"": self.recipes}


@dataclass(frozen=True)
class GridRun:
    """A recipe on a corpus, as a grid asks for it.

    Attributes
    ----------
    name : of the recipe and what the axes change, for tables.
    corpus : name in the grid.
    groups : that the recipe is in.
    recipe : with every change, the folds and the seeds.
    """

    name: str
    corpus: str
    groups: tuple[str, ...]
    recipe: Recipe

    @property
    def title(self) -> str:
        """For messages."""
        return f"{self.name} on {self.corpus}"


@dataclass(frozen=True)
class GridFile:
    """A grid and the folder that its relative paths begin at."""

    grid: Grid
    beside: Path
    text: str

    @classmethod
    def load(cls, path: Path) -> GridFile:
        """Read and check a grid file.

        Raises
        ------
        RecipeError
            For a missing file, bad YAML, an unknown key, or a wrong value.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise RecipeError(f"cannot read grid {path}: {reason}") from error
        value = parse_yaml(text, str(path))
        if not isinstance(value, dict):
            raise RecipeError(f"{path}: a grid is a mapping of keys; it needs recipes and corpora")
        try:
            grid = Grid.model_validate(value, strict=False)
        except ValidationError as error:
            raise RecipeError(explain(Grid, error, str(path), value)) from error
        return cls(grid, path.parent, text)

    def corpora(self, names: Iterable[str]) -> dict[str, Corpus]:
        """List the utterances of some of its corpora. Raises :class:`CorpusError`."""
        return {name: self.grid.corpora[name].load(name, self.beside) for name in names}

    def runs(self) -> list[GridRun]:
        """Every run that it asks for.

        Raises
        ------
        RecipeError
            If a recipe cannot be used with its changes, a condition is about nothing, two runs
            are the same, or none is left.
        """
        found: list[GridRun] = []
        sources = list(dict.fromkeys(r for group in self.grid.groups.values() for r in group))
        choices = list(itertools.product(*self.grid.axes))
        for corpus, source, choice in itertools.product(self.grid.corpora, sources, choices):
            run = self._run(corpus, source, choice)
            if self._is_asked_for(run, Path(source).stem):
                found.append(run)
        if not found:
            raise RecipeError("the grid has no runs: only and exclude leave none")
        same = [run.title for run in found if sum(r.title == run.title for r in found) > 1]
        if same:
            raise RecipeError(
                f"the grid has more than one run {same[0]!r}: two recipes have one "
                "name, or an axis has two equal choices"
            )
        return found

    def _run(self, corpus: str, source: str, choice: Sequence[Changes]) -> GridRun:
        beside = self.beside / source
        varied: Changes = {key: value for part in choice for key, value in part.items()}
        changes = {
            **self.grid.set,
            **self.grid.corpora[corpus].changes(self.beside),
            **varied,
            "evaluation.folds": self.grid.folds,
            "evaluation.seeds": self.grid.seeds,
        }
        overrides = [f"{key}={_as_text(value)}" for key, value in changes.items()]
        recipe = load_recipe(beside if beside.is_file() else source, overrides)
        stem = Path(source).stem
        name = ", ".join([stem, *(f"{key}={_shown(value)}" for key, value in varied.items())])
        groups = tuple(g for g, sources in self.grid.groups.items() if source in sources)
        return GridRun(name, corpus, groups, recipe.model_copy(update={"name": name}))

    def _is_asked_for(self, run: GridRun, stem: str) -> bool:
        only, exclude = self.grid.only, self.grid.exclude
        met = [_meets(run, stem, condition) for condition in only]
        return (not only or any(met)) and not any(_meets(run, stem, c) for c in exclude)


def _meets(run: GridRun, stem: str, condition: Condition) -> bool:
    names = {"recipe": [stem], "corpus": [run.corpus], "group": list(run.groups)}
    keys = run.recipe.to_dict()
    for key, allowed in condition.items():
        wanted = allowed if isinstance(allowed, list) else [allowed]
        if key in names:
            if not any(fnmatchcase(n, str(w)) for n in names[key] for w in wanted):
                return False
            continue
        *parents, last = key.split(".")
        if [*parents, last][0] not in Recipe.model_fields:
            raise RecipeError(
                f"condition {key!r}; allowed: {', '.join(names)}, or a key of a recipe such as "
                "search.strategy"
            )
        section: Any = keys
        for parent in parents:
            section = section.get(parent) if isinstance(section, Mapping) else None
        if not isinstance(section, Mapping) or section.get(last, _ABSENT) not in wanted:
            return False
    return True


def _as_text(value: Any) -> str:
    try:
        return json.dumps(value)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{value!r} is no plain YAML value: {error}") from error


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
