"""Recipes from YAML files, by name, and with keys overridden."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from emodarts.errors import RecipeError, did_you_mean
from emodarts.recipe.recipe import OPTIONAL_SECTIONS, Recipe
from emodarts.recipe.system import SYSTEMS, SystemSpec

#: Keys that say which keys a section has.
_KINDS = ("kind", "strategy", "mode")

#: What a recipe is from, in the first line of a file.
_PAPER = re.compile(r" ?\((arXiv \d{4}\.\d{4,5}|doi 10\.\S+?|[A-Z]\w+ \d{4})\)")


def builtin_recipes() -> dict[str, Path]:
    """Recipes that come with the package, by name."""
    folder = Path(__file__).parents[1] / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


@dataclass(frozen=True)
class Header:
    """What the first line of a built-in recipe says.

    Attributes
    ----------
    title : what it trains and tests.
    paper : ``arXiv NUMBER``, ``doi NUMBER`` or a conference and its year; None: from no paper.
    """

    title: str
    paper: str | None


def read_header(name: str) -> Header:
    """Read the title of a built-in recipe: ``# TITLE (PAPER)``, perhaps with ``: MORE`` behind it.

    Raises
    ------
    RecipeError
        If there is no such recipe, or its first line is no title.
    """
    known = builtin_recipes()
    if name not in known:
        raise RecipeError(f"no recipe {name!r}{did_you_mean(name, known)}")
    first = known[name].read_text(encoding="utf-8").partition("\n")[0]
    found = _PAPER.search(first)
    title = " ".join(_PAPER.sub("", first.removeprefix("#")).replace(" :", ":").split())
    if not first.startswith("# ") or not title:
        raise RecipeError(f"{known[name]}, line 1: {first!r}; allowed: # TITLE (PAPER)")
    return Header(title.rstrip(".:"), found[1] if found else None)


def load_recipe(source: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe from a YAML file or by the name of a built-in one.

    Parameters
    ----------
    source : path of a YAML file, or a name from :func:`builtin_recipes`.
    overrides : texts like ``"search.epochs=20"``; values are YAML.

    Raises
    ------
    RecipeError
        For a missing file, bad YAML, an unknown key, a wrong type or an impossible value.
    """
    path, value = _read(source)
    value.setdefault("name", path.stem)
    for override in overrides:
        _override(value, override)
    return Recipe.from_dict(value, str(source))


def _read(source: str | Path, extended_by: tuple[Path, ...] = ()) -> tuple[Path, dict[str, Any]]:
    """Path and keys of a recipe, with those of the recipe that it extends."""
    path = Path(source)
    known = builtin_recipes()
    if not path.is_file() and str(source) in known:
        path = known[str(source)]
    if path in extended_by:
        raise RecipeError(f"{path} extends itself, by way of {extended_by[-1]}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise RecipeError(
            f"cannot read recipe {source}{did_you_mean(str(source), known)}: {reason}; give a YAML "
            f"file or one of {', '.join(known)}"
        ) from error
    value = parse_yaml(text, str(source))
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise RecipeError(f"{source}: a recipe is a mapping of keys, not {type(value).__name__}")
    base = value.pop("extends", None)
    if base is None:
        return path, value
    if not isinstance(base, str):
        raise RecipeError(f"{source}: extends {base!r}; allowed: the name or file of a recipe")
    beside = path.parent / base
    _, inherited = _read(beside if beside.is_file() else base, (*extended_by, path))
    inherited.pop("name", None)
    return path, _extended(inherited, value)


def _extended(base: dict[str, Any], keys: dict[str, Any]) -> dict[str, Any]:
    """Keys of a recipe that extends ``base``: sections join, other values replace.

    A section of another kind replaces that of ``base`` as a whole. What the system does not use is
    not inherited.
    """
    joined = _joined(base, keys)
    system = joined.get("system")
    kind = system.get("kind", SystemSpec.default_kind) if isinstance(system, dict) else None
    if isinstance(kind, str) and kind in SYSTEMS:
        unused = set(OPTIONAL_SECTIONS) - SYSTEMS[kind].spec.sections - keys.keys()
        joined = {key: value for key, value in joined.items() if key not in unused}
    return joined


def _joined(base: dict[str, Any], keys: dict[str, Any]) -> dict[str, Any]:
    joined = dict(base)
    for key, value in keys.items():
        before = base.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            other = any(k in value and value[k] != before.get(k) for k in _KINDS)
            joined[key] = value if other else _joined(before, value)
        else:
            joined[key] = value
    return joined


def _override(value: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set {override!r}; allowed: KEY=VALUE, e.g. search.epochs=20")
    *parents, last = key.split(".")
    for parent in parents:
        inner = value.get(parent, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"--set {override!r}: {parent!r} has no keys below it")
        # A copy, as a YAML alias can make two keys share one mapping.
        value[parent] = dict(inner)
        value = value[parent]
    value[last] = parse_yaml(text, f"--set {key}")


class _Loader(yaml.SafeLoader):
    """YAML as people write it: ``3e-4`` is a number (YAML 1.2) and a key occurs once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str | int | float) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} occurs twice", key_node.start_mark
                )
            if isinstance(key, str | int | float):
                seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


def parse_yaml(text: str, where: str) -> Any:
    """Values of YAML text; raises :class:`RecipeError` with ``where`` and the line."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or error
        raise RecipeError(f"{where}{line}: not valid YAML: {problem}") from error
    except RecursionError as error:
        raise RecipeError(f"{where}: not valid YAML: nested too deeply") from error
