"""The shape of the house, read from the source: floors, and what no module may do."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import emodarts

SOURCE = Path(emodarts.__file__).parent
MODULES = {
    ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(SOURCE.rglob("*.py"))
}

#: From the ground up. A module belongs to the longest name that it begins with, and imports
#: only from floors below and from its own package.
FLOORS = [
    {"errors"},
    {"files", "progress"},
    {"space.genotype", "audio.specs", "events"},
    {"recipe", "corpora.utterance"},
    {"runtime", "checkpoint", "batches"},
    {"audio"},
    {"corpora"},
    {"splits"},
    {"space"},
    {"fast"},
    {"searching", "models"},
    {"training"},
    {"experiments"},
    {"reports"},
    {"serving"},
    {"cli"},
    {"", "__main__"},
]
HEIGHTS = {name: height for height, floor in enumerate(FLOORS) for name in floor}


def home(module: str) -> str:
    """The entry of FLOORS that a module belongs to."""
    parts = module.split(".")[1:]
    for n in range(len(parts), 0, -1):
        if ".".join(parts[:n]) in HEIGHTS:
            return ".".join(parts[:n])
    if parts:
        raise AssertionError(f"{module} has no floor: give it one in FLOORS")
    return ""


def imports(module: str) -> Iterator[tuple[str, int]]:
    """Modules of the package that a module imports anywhere in its text, with the line."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}, line {node.lineno}: a relative import"
            found = [
                name if (name := f"{node.module}.{alias.name}") in MODULES else str(node.module)
                for alias in node.names
            ]
        else:
            continue
        yield from ((n, node.lineno) for n in found if n.split(".")[0] == "emodarts")


def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@pytest.mark.parametrize("module", MODULES)
def test_lower_floors_do_not_import_higher_ones(module: str) -> None:
    own = home(module)
    for imported, line in imports(module):
        other = home(imported)
        assert other == own or HEIGHTS[other] < HEIGHTS[own], (
            f"{module}, line {line}, imports {imported}, which is not below it"
        )


def test_every_floor_is_lived_in() -> None:
    assert {home(module) for module in MODULES} == set(HEIGHTS)


def dotted(node: ast.AST) -> str:
    """``a.b.c`` of names and attributes; an unnamed owner is an empty part."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


#: Modules that unpickle, or that run what they read.
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve"}
UNSAFE_MODULES |= {"joblib", "runpy"}
UNSAFE_CALLS = {
    *("eval", "exec", "compile", "__import__"),
    *("torch.load", "torch.save", "os.system"),
    *("pd.read_pickle", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all"),
}


def faults(text: str) -> list[str]:
    """What no module of the package may do, with the line."""
    found = []
    for node in ast.walk(ast.parse(text)):
        what = None
        match node:
            case ast.Assert():
                what = "assert, which -O removes: raise an error of errors.py"
            case ast.Import(names=names):
                if any(alias.name.split(".")[0] in UNSAFE_MODULES for alias in names):
                    what = "unsafe import"
            case ast.ImportFrom(module=str(module), names=names):
                called = {f"{module}.{alias.name}" for alias in names}
                if module.split(".")[0] in UNSAFE_MODULES or called & UNSAFE_CALLS:
                    what = "unsafe import"
            case ast.Call(func=func, keywords=keywords):
                name = dotted(func)
                if name in UNSAFE_CALLS:
                    what = f"{name}()"
                elif name.endswith(".cuda"):
                    what = "cuda(): a device comes from the recipe"
                elif name == "yaml.load" and not any(
                    k.arg == "Loader" and dotted(k.value).endswith("Loader") for k in keywords
                ):
                    what = "yaml.load without a safe Loader"
                for k in keywords:
                    if k.arg in ("allow_pickle", "shell") and not (
                        isinstance(k.value, ast.Constant) and k.value.value is False
                    ):
                        what = f"{name}({k.arg}=...)"
        if what:
            found.append(f"line {node.lineno}: {what}")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_nothing_unsafe(module: str) -> None:
    assert faults(MODULES[module].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text",
    [
        *("eval('1')", "exec('1')", "import pickle", "from pickle import loads", "import joblib.x"),
        *("torch.load(p)", "from torch import load", "x.cuda()", "self.net.half().cuda(0)"),
        *("assert x", "yaml.load(t)", "yaml.load(t, Loader=None)", "yaml.unsafe_load(t)"),
        *("np.load(p, allow_pickle=True)", "subprocess.run(c, shell=True)"),
    ],
)
def test_the_check_itself_finds(text: str) -> None:
    assert len(faults(text)) == 1


@pytest.mark.parametrize(
    "text",
    ["network.eval()", "self.eval()", "torch.cuda.is_available()", "np.load(p)", "files.load(p)"],
)
def test_the_check_itself_passes(text: str) -> None:
    assert faults(text) == []


@pytest.mark.parametrize("name", emodarts.__all__)
def test_public_name_can_be_imported(name: str) -> None:
    # Importing a module sets it as an attribute of its package, over a function of that name.
    assert f"emodarts.{name}" not in MODULES, f"{name} is a module too; call one otherwise"
    assert getattr(importlib.import_module("emodarts"), name).__doc__
    assert name in dir(emodarts)


def test_unknown_public_name() -> None:
    with pytest.raises(AttributeError, match="'emodarts' has no attribute 'serach'"):
        _ = emodarts.serach


def test_command_line_and_recipes_start_without_torch() -> None:
    """So that ``--help`` and mistakes in a recipe answer at once."""
    code = "import emodarts, emodarts.cli, emodarts.recipe, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr


@pytest.mark.parametrize("module", [m for m in MODULES if not m.endswith("__main__")])
def test_import_neither_parses_arguments_nor_opens_files(
    module: str,
) -> None:
    """Top-level statements only define: no call of what reads arguments, files or the time."""
    for node in tree(module).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        called = {dotted(n.func) for n in ast.walk(node) if isinstance(n, ast.Call)}
        for name in called:
            assert name.rpartition(".")[2] not in {
                *(
                    "parse_args",
                    "open",
                    "read_text",
                    "mkdir",
                    "basicConfig",
                    "manual_seed",
                    "getenv",
                ),
            }, f"{module} calls {name} on import"


def test_tests_named_in_the_documents_exist() -> None:
    root = Path(__file__).parents[1]
    pages = [*root.glob("*.md"), *root.glob("docs/*.md")]
    named = [
        t for p in pages for t in re.findall(r"`(tests/[\w/.]+)::(\w+)`", p.read_text("utf-8"))
    ]
    assert named
    for path, test in named:
        assert f"def {test}(" in (root / path).read_text(encoding="utf-8"), f"{path}::{test}"
