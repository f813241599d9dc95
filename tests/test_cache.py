"""Where generated corpora and stored features are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from emodarts.cache import default_cache_folder


def test_default_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EMODARTS_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert default_cache_folder() == tmp_path / "own"
    monkeypatch.setenv("EMODARTS_CACHE", "")
    assert default_cache_folder() == tmp_path / "user" / "emodarts"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / ".cache" / "emodarts"
