"""What a run records of its environment."""

import importlib.util

import pytest
import torch

from emodarts.runtime import describe_environment

CPU = torch.device("cpu")
find_spec = importlib.util.find_spec


@pytest.fixture
def without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "numba" else find_spec(name)
    )


def test_the_version_of_what_compiles_is_recorded_where_it_is() -> None:
    assert "numba" in describe_environment(CPU)["packages"]


@pytest.mark.usefixtures("without_numba")
def test_no_version_is_recorded_of_what_is_not_there() -> None:
    assert "numba" not in describe_environment(CPU)["packages"]
