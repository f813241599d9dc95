"""Every option that commands share, declared once with its help and the recipe key that it sets."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer
from typer.core import TyperCommand

from emodarts.errors import list_some

if TYPE_CHECKING:
    from emodarts.recipe import Recipe


@dataclass(frozen=True)
class Sets:
    """Marks an option that sets a key of the recipe, and is named after its field.

    Attributes
    ----------
    key : of the recipe, with dots.
    parse : from the text of the option to the value of the key; None for flags and choices,
        which need no further check.
    """

    key: str
    parse: Callable[[Any], Any] | None = None


def names(text: str) -> list[str]:
    """``"a,b"`` -> ``["a", "b"]``."""
    return text.split(",")


def numbers(text: str) -> list[int | str]:
    """``"0,1"`` -> ``[0, 1]``; what is no number stays text, which the recipe refuses."""
    return [int(part) if part.strip().isdecimal() else part for part in text.split(",")]


def number_or_auto(value: int | str) -> int | Literal["auto"]:
    """``"2"`` -> 2. Raises typer's error for text that is neither."""
    if value == "auto":
        return "auto"
    try:
        return int(value)
    except ValueError:
        raise typer.BadParameter(f"{value!r}; allowed: a number, or auto") from None


class RecipeCommand(TyperCommand):
    """A command with ``--set``: an unknown option that is a key of the recipe gets a hint."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse arguments."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            # By name, as typer has its own copy of click's errors since 0.20 or so.
            if type(error).__name__ == "NoSuchOption":
                error.message += hint_for_key(error.option_name, given)  # type: ignore[attr-defined]
            raise


def hint_for_key(option: str, given: Sequence[str]) -> str:
    """How to set the keys of a recipe that an unknown option names, e.g. ``--epochs 3``, or ``""``.

    Parameters
    ----------
    given : all words of the command, among them the value of the option.
    """
    from emodarts.recipe import Recipe
    from emodarts.recipe.explain import key_names

    name = option.lstrip("-").replace("-", "_")
    keys = [key for key in key_names(Recipe) if f".{key}".endswith(f".{name}")]
    value = "VALUE"
    for word, following in pairwise([*given, value]):
        if word == option:
            value = following
        elif word.startswith(f"{option}="):
            value = word.partition("=")[2]
    hints = [f"--set {key}={value}" for key in keys]
    return f"; keys of the recipe are set by {list_some(hints, 4)}" if hints else ""


def complete_recipe(incomplete: str) -> list[str]:
    """Names of built-in recipes that begin so."""
    from emodarts.recipe import builtin_recipes

    return [name for name in builtin_recipes() if name.startswith(incomplete)]


def complete_corpus(incomplete: str) -> list[str]:
    """Names of readers that begin so."""
    from emodarts.corpora import READERS

    return [name for name in READERS if name.startswith(incomplete)]


def complete_model(incomplete: str) -> list[str]:
    """Names of shipped models that begin so."""
    from emodarts.serving.shipped import shipped_models

    return [name for name in shipped_models() if name.startswith(incomplete)]


ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Folder of a trained model, the name of one that `emodarts models` lists, or "
        "hub:USER/NAME.",
        autocompletion=complete_model,
    ),
]
HopOption = Annotated[
    float | None,
    typer.Option(
        "--hop", metavar="SECONDS", help="From the start of a window to the next. [default: window]"
    ),
]
RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="YAML file, or the name of a built-in recipe.",
        autocompletion=complete_recipe,
    ),
]
CorpusOption = Annotated[
    str,
    typer.Option(
        "--corpus",
        metavar="NAME",
        help="Reader of the corpus; `emodarts corpora` lists them.",
        autocompletion=complete_corpus,
    ),
]
RootOption = Annotated[
    Path | None,
    typer.Option("--root", metavar="PATH", help="Folder of the corpus, or the file that lists it."),
]
ReaderOption = Annotated[
    list[str] | None,
    typer.Option(
        "--corpus-option",
        metavar="KEY=VALUE",
        help="Option of the reader; emotion=label, for example, names a column of a table.",
    ),
]
LabelsOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CLASSES",
        help="Classes in order: a,b, or NAME=a,b to merge labels (may be repeated), or own, four, "
        "four-merged, five. [default: own, unless a recipe names them]",
    ),
    Sets("labels", list),
]
StylesOption = Annotated[
    str | None,
    typer.Option(
        metavar="STYLE,...",
        help="Styles of speech to keep, e.g. improvised. [default: all, unless a recipe names "
        "them]",
    ),
    Sets("styles", names),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a key of the recipe, e.g. search.epochs=20 (may be repeated).",
    ),
]
DeviceOption = Annotated[
    Literal["auto", "cpu", "cuda", "mps"] | None,
    typer.Option(help="Where to compute. [default: the recipe's]"),
    Sets("compute.device"),
]
CacheOption = Annotated[
    Path | None,
    typer.Option(
        "--cache", metavar="DIR", help="Folder of stored features. [default: the user's cache]"
    ),
]
SkipBadOption = Annotated[
    bool,
    typer.Option(
        "--skip-bad", help="Leave out utterances with unusable audio and name them in the result."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
SplitOption = Annotated[
    str | None,
    typer.Option(
        metavar="SPLIT",
        help="How to make folds: speaker, session, groups:K, official[:PART], column, emobox, "
        "speaker-dependent[:K], or a folds.json. [default: the recipe's]",
    ),
    Sets("evaluation.split", str),
]
OverlapOption = Annotated[
    bool,
    typer.Option(
        "--allow-speaker-overlap",
        help="Accept given folds that test on training speakers; results carry a warning.",
    ),
    Sets("evaluation.allow_speaker_overlap"),
]
DuplicatesOption = Annotated[
    bool,
    typer.Option(
        "--allow-duplicates",
        help="Accept folds that test on sound that is also trained on; results carry a warning.",
    ),
    Sets("evaluation.allow_duplicates"),
]
ProtocolOption = Annotated[
    Literal["paper", "full"] | None,
    typer.Option(help="Use of each training fold. [default: the recipe's]"),
    Sets("evaluation.protocol"),
]
FoldsOption = Annotated[
    str | None,
    typer.Option(
        metavar="K,...",
        help="Run only these folds, e.g. 0,1. [default: the recipe's, or all]",
    ),
    Sets("evaluation.folds", numbers),
]
SeedsOption = Annotated[
    str | None,
    typer.Option(
        metavar="S,...",
        help="Run every fold with each of these seeds, e.g. 0,1,2. [default: the recipe's]",
    ),
    Sets("evaluation.seeds", numbers),
]
PrecisionOption = Annotated[
    Literal["fp32", "bf16"] | None,
    typer.Option(
        help="Precision of search and training; bf16 is for GPUs. [default: the recipe's]",
    ),
    Sets("compute.precision"),
]
JobsOption = Annotated[
    Any,
    typer.Option(
        "--jobs",
        metavar="N|auto",
        parser=number_or_auto,
        help="Trials that run side by side, or auto: one for each core.",
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Run folder. [default: runs/RECIPE-CORPUS]"),
]
HeadroomOutOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Run folder. [default: runs/headroom-RECIPE-CORPUS]"),
]
ResumeOption = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Continue the run in --out where it stopped, and add folds and seeds it did not have.",
    ),
]
AllDataOption = Annotated[
    bool,
    typer.Option(
        "--all-data", help="Hold out no test fold; train the model to deploy on all data."
    ),
]


@dataclass(frozen=True, kw_only=True)
class PrepareRequest:
    """A recipe, and the corpus to use it on."""

    recipe: RecipeArgument = "default"
    corpus: CorpusOption
    root: RootOption = None
    reader: ReaderOption = None
    labels: LabelsOption = None
    styles: StylesOption = None
    changes: SetOption = None
    device: DeviceOption = None
    cache: CacheOption = None
    skip_bad: SkipBadOption = False
    as_json: JsonOption = False


@dataclass(frozen=True, kw_only=True)
class RunRequest(PrepareRequest):
    """What run, search and train need besides."""

    split: SplitOption = None
    allow_speaker_overlap: OverlapOption = False
    allow_duplicates: DuplicatesOption = False
    protocol: ProtocolOption = None
    folds: FoldsOption = None
    seeds: SeedsOption = None
    precision: PrecisionOption = None
    jobs: JobsOption = 1
    out: OutOption = None
    resume: ResumeOption = False


@dataclass(frozen=True, kw_only=True)
class SearchRequest(RunRequest):
    """A recipe that searches, to search by."""

    recipe: RecipeArgument = "cells"


@dataclass(frozen=True, kw_only=True)
class HeadroomRequest(SearchRequest):
    """A recipe whose genotypes are compared, in a folder of their own."""

    out: HeadroomOutOption = None


def with_request(
    request_type: type[PrepareRequest],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command every field of a request as an option in place of ``request``."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        hints |= get_type_hints(request_type, include_extras=True)
        shared = list(inspect.signature(request_type).parameters.values())
        own = [p for p in inspect.signature(command).parameters.values() if p.name != "request"]

        def carry_out(**given: Any) -> None:
            request = request_type(**{p.name: given.pop(p.name) for p in shared})
            command(request, **given)

        parameters = [
            p.replace(kind=p.KEYWORD_ONLY, annotation=hints[p.name]) for p in (*shared, *own)
        ]
        carry_out.__name__, carry_out.__doc__ = command.__name__, command.__doc__
        carry_out.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        carry_out.__annotations__ = {p.name: p.annotation for p in parameters}
        return carry_out

    return decorate


def recipe_options(request_type: type[PrepareRequest]) -> dict[str, Sets]:
    """Fields of a request that set a key of the recipe."""
    return {
        field: mark
        for field, hint in get_type_hints(request_type, include_extras=True).items()
        for mark in getattr(hint, "__metadata__", ())
        if isinstance(mark, Sets)
    }


def load_requested_recipe(request: PrepareRequest) -> Recipe:
    """Load the recipe of a request with what ``--set`` and the other options change.

    Raises
    ------
    RecipeError
        As :func:`load_recipe`; a wrong value of an option is named with the option.
    """
    from emodarts.recipe import Recipe, load_recipe

    overrides = list(request.changes or ())
    for field, sets in recipe_options(type(request)).items():
        value = getattr(request, field)
        if value is None or value is False:
            continue
        if sets.parse is not None:
            value = sets.parse(value)
            nested = reduce(lambda inner, key: {key: inner}, reversed(sets.key.split(".")), value)
            Recipe.from_dict(nested, f"--{field}")
        overrides.append(f"{sets.key}={json.dumps(value)}")
    return load_recipe(request.recipe, overrides)
