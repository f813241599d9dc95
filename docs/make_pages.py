"""Write ``docs/recipes.md`` from :mod:`emodarts.recipe`, and the files of ``docs/architecture.md``.

Run ``python docs/make_pages.py`` after any change of a key, and of a file or its first line; a test
compares pages and source.
"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from pathlib import Path
from typing import Any, get_origin

from pydantic import BaseModel

import emodarts
from emodarts.recipe import FeatureSpec, FixedSeqNN, NoSeqNN, Recipe, SearchedSeqNN
from emodarts.recipe.section import KindSection, is_family, section_of

DOCS = Path(__file__).parent
SOURCE = Path(emodarts.__file__).parent

INTRODUCTION = """\
# Recipes

<!-- Written by docs/make_pages.py from src/emodarts/recipe: edit that, not this. -->

A recipe is a YAML file that decides everything a run computes. Every key has a default, so a
recipe lists only what differs from it; an unknown key, a wrong type or an impossible value is
an error that names the key and what is allowed. Defaults are the settings of emoDARTS
([arXiv 2403.14083](https://arxiv.org/abs/2403.14083)) where that paper gives them; the recipe
`emodarts` also has the published search, where the default departs from it ([method](method.md)).

```yaml
labels: [anger, happiness, neutral, sadness]
features: {sample_rate: 16000, duration: 3.0}
search: {epochs: 50, order: 1, weights: {learning_rate: 1e-2}}
evaluation: {split: speaker, seeds: [0, 1, 2]}
```

`emodarts run RECIPE` takes a file or the name of a recipe that comes with the package, and
`--set KEY=VALUE` overrides a key by its dotted name, e.g. `--set search.epochs=20` or
`--set network.seqnn.mode=none`; the value is YAML. In Python, `emodarts.load_recipe` reads a
file and `emodarts.Recipe.from_dict` a dictionary.

A recipe may begin with another one: `extends: default`, the name of a recipe or a file beside it.
Its own keys join those of the same section and replace values; a section with another `kind`,
`strategy` or `mode` replaces the whole section, and sections that the system does not use are left
out. A run writes the recipe with every key into its folder.

```yaml
extends: default
features: {n_mels: 40}
training: {ensemble: 1, epochs: 200}
```

`null` stands for "not given". Trials of recipes with the same digest compute the same: the digest
covers every key but `name`, those of `compute`, and which folds and seeds are run.

The keys of `features`, `search` and `system` depend on `kind`, `strategy` and `kind`. To change it,
give the whole section: `--set 'search={strategy: random}'`. A system refuses the sections that it
does not use."""

MODES: dict[str, type[BaseModel]] = {
    "searched": SearchedSeqNN,
    "fixed": FixedSeqNN,
    "none": NoSeqNN,
}


def render() -> str:
    """The page as Markdown text."""
    parts = [INTRODUCTION, *_sections("", Recipe, "## Top level")]
    return "\n\n".join(parts) + "\n"


def _sections(
    prefix: str, model: type[BaseModel], title: str, base: type[BaseModel] | None = None
) -> list[str]:
    """Heading, description and table of a section, then the sections below it.

    Keys that are as in ``base`` are left out, and the kind, which the heading names.
    """
    kind_key = base.kind_key if base and issubclass(base, KindSection) else None
    meanings = meanings_of(model)
    schema = model.model_json_schema()["properties"]
    rows = []
    below: list[str] = []
    for name, field in model.model_fields.items():
        key = prefix + name
        known = base.model_fields.get(name) if base else None
        if known and (field.default == known.default or (kind_key and name == kind_key)):
            continue
        inner = section_of(field.annotation)
        if inner is FeatureSpec and prefix:
            rows.append(f"| `{key}` | keys of `features` or `null` | `null` | {meanings[name]} |")
            continue
        if inner is not None and field.default is None:
            rows.append(f"| `{key}` | keys below or `null` | `null` | {meanings[name]} |")
        if inner is not None and get_origin(field.annotation) is tuple:
            rows.append(f"| `{key}` | list of the keys below | `[]` | {meanings[name]} |")
        if name == "seqnn":
            for mode, choice in MODES.items():
                heading = f"## `{key}` with `mode: {mode}`"
                below += _sections(f"{key}.", choice, heading)
        elif inner is not None:
            if issubclass(inner, KindSection) and not is_family(inner):
                # A kind as a section of another: its keys stand below their own heading.
                kind = inner.model_fields[inner.kind_key].default
                rows.append(f"| `{key}` | keys of `{kind}` | | {meanings[name]} |")
                continue
            below += _sections(f"{key}.", inner, f"## `{key}`")
            if issubclass(inner, KindSection):
                for kind, entry in inner.kinds().items():
                    heading = f"## `{key}` with `{inner.kind_key}: {kind}`"
                    below += _sections(f"{key}.", entry.spec, heading, inner)
        else:
            default = "required" if field.is_required() else f"`{json.dumps(field.default)}`"
            rows.append(f"| `{key}` | {_type(schema[name])} | {default} | {meanings[name]} |")
    table = ["| key | type | default | meaning |", "|---|---|---|---|", *rows] if rows else []
    description = "" if model is Recipe else _markdown(inspect.getdoc(model) or "")
    return ["\n\n".join(filter(None, (title, description, "\n".join(table)))), *below]


def meanings_of(model: type[BaseModel]) -> dict[str, str]:
    """The string below each field of a model, by field; a base class has those it leaves out."""
    body = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    if not isinstance(body, ast.ClassDef):
        raise TypeError(f"{model} is not written as a class")
    base = model.__base__
    written = isinstance(base, type) and issubclass(base, BaseModel) and base is not BaseModel
    meanings = meanings_of(base) if written else {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        match field, text:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(meaning))),
            ):
                meanings[name] = _markdown(inspect.cleandoc(meaning))
    return meanings


def _markdown(text: str) -> str:
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|")


def _type(schema: dict[str, Any]) -> str:
    """Words for the JSON schema of a value."""
    if "anyOf" in schema:
        return " or ".join(_type(choice) for choice in schema["anyOf"])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(choice)}`" for choice in schema["enum"])
    if schema["type"] == "array":
        least = f" (at least {schema['minItems']})" if "minItems" in schema else ""
        return f"list{least} of {_type(schema['items'])}"
    bounds = [
        f"{sign} {schema[bound]:g}" if schema[bound] < 1e6 else f"{sign} {schema[bound]}"
        for bound, sign in (
            ("exclusiveMinimum", ">"),
            ("minimum", "≥"),
            ("exclusiveMaximum", "<"),
            ("maximum", "≤"),
        )
        if bound in schema
    ]
    name = {"null": "`null`", "string": "text", "boolean": "true or false"}.get(
        schema["type"], str(schema["type"])
    )
    return " ".join([name, " and ".join(bounds)]).strip()


def render_files(page: str) -> str:
    """The architecture page with the list of files and the first line of each anew."""
    before, _, rest = page.partition("\n## Files\n")
    _, _, after = rest.partition("\n## ")
    lines = []
    for path in sorted(SOURCE.rglob("*.py")):
        summary = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        if summary is not None:
            name = path.relative_to(SOURCE).as_posix()
            lines.append(f"{name:<34} {summary.splitlines()[0].rstrip('.')}")
    listing = "\n".join(lines)
    return f"{before}\n## Files\n\nBelow `src/emodarts`:\n\n```\n{listing}\n```\n\n## {after}"


if __name__ == "__main__":
    (DOCS / "recipes.md").write_text(render(), encoding="utf-8")
    ARCHITECTURE = DOCS / "architecture.md"
    ARCHITECTURE.write_text(render_files(ARCHITECTURE.read_text("utf-8")), encoding="utf-8")
