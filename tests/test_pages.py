"""Pages that are written from the source are up to date."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from emodarts import recipe
from emodarts.recipe.section import KindSection, is_family, section_of

DOCS = Path(__file__).parents[1] / "docs"
KINDS = {"features": recipe.FEATURES, "search": recipe.STRATEGIES, "system": recipe.SYSTEMS}


def keys_without_sections(model: type[BaseModel]) -> set[str]:
    """Names of the keys but those of sections, which have a heading of their own."""

    def is_section(field: FieldInfo) -> bool:
        inner = section_of(field.annotation)
        if inner is None or field.default is None or field.default == ():
            return False
        return not issubclass(inner, KindSection) or is_family(inner)

    return {name for name, field in model.model_fields.items() if not is_section(field)}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_pages", DOCS / "make_pages.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(DOCS / "make_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_is_up_to_date(script: ModuleType) -> None:
    assert (DOCS / "recipes.md").read_text(encoding="utf-8") == script.render(), (
        "run: python docs/make_pages.py"
    )


def test_every_file_of_the_house_is_listed_with_its_purpose(script: ModuleType) -> None:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    assert page == script.render_files(page), "run: python docs/make_pages.py"


def test_every_key_has_a_row(script: ModuleType) -> None:
    page = script.render()
    rows = set(re.findall(r"^\| `([a-z0-9_.]+)` \|", page, flags=re.MULTILINE))

    def keys(value: dict[str, object], prefix: str) -> set[str]:
        found: set[str] = set()
        for key, inner in value.items():
            name = prefix + key
            found |= keys(inner, f"{name}.") if isinstance(inner, dict) else {name}
        return found

    for section, kinds in KINDS.items():
        for kind in kinds.values():
            assert {f"{section}.{key}" for key in keys_without_sections(kind.spec)} <= rows
    for mode in ("searched", "fixed", "none"):
        full = recipe.Recipe.from_dict({"network": {"seqnn": {"mode": mode}}})
        assert keys(full.to_dict(), "") <= rows


MODELS = [
    *(m for m in vars(recipe).values() if isinstance(m, type) and issubclass(m, BaseModel)),
    *(kind.spec for kinds in KINDS.values() for kind in kinds.values()),
]


@pytest.mark.parametrize("model", dict.fromkeys(MODELS), ids=lambda m: m.__name__)
def test_every_key_has_a_meaning(script: ModuleType, model: type[BaseModel]) -> None:
    assert keys_without_sections(model) <= set(script.meanings_of(model))


def test_examples_of_the_page_are_recipes(script: ModuleType, tmp_path: Path) -> None:
    examples = re.findall(r"```yaml\n(.*?)```", script.render(), flags=re.DOTALL)
    found = []
    for example in examples:
        (tmp_path / "r.yaml").write_text(example, encoding="utf-8")
        found.append(recipe.load_recipe(tmp_path / "r.yaml"))
    first, extended = found
    assert first.search.weights.learning_rate == 0.01
    assert (extended.features.n_mels, extended.training.ensemble) == (40, 1)
