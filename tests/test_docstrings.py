"""Examples in docstrings are true; those marked +SKIP need what their docstring names."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import emodarts

SOURCE = Path(emodarts.__file__).parent
MODULES = [
    ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(SOURCE.rglob("*.py"))
    if ">>>" in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_scores_have_examples() -> None:
    assert doctest.testmod(importlib.import_module("emodarts.scoring.metrics")).attempted >= 4
