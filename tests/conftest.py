"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, settings

from emodarts.recipe import Recipe, load_recipe

# A busy machine makes neither an example nor the making of examples wrong.
settings.register_profile(
    "any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any-machine")


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def emodb_root() -> Path:
    """Folder of EmoDB's four emotions; tests on real speech are skipped without it."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "emodb"
    root = Path(os.environ.get("EMODARTS_EMODB") or beside)
    if not root.is_dir():
        pytest.skip("no EmoDB here; name its folder in the environment variable EMODARTS_EMODB")
    return root


@pytest.fixture(scope="session")
def tiny_emodb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """72 short generated files named like EmoDB: 6 speakers, 4 emotions, told by their pitch."""
    folder = tmp_path_factory.mktemp("tiny-emodb")
    generator = np.random.default_rng(0)
    time = np.arange(8000) / 8000
    syllables = 0.02 + np.sin(3 * np.pi * time) ** 2  # a steady sound would be none of speech
    for k, speaker in enumerate(("03", "08", "09", "10", "11", "13")):
        for emotion, pitch in zip("WFNT", (200, 400, 800, 1600), strict=True):
            for version in "abc":
                tone = np.sin(2 * np.pi * pitch * (1 + 0.05 * k) * time)
                sound = 0.3 * tone + 0.1 * generator.standard_normal(8000)
                path = folder / f"{speaker}a01{emotion}{version}.wav"
                soundfile.write(path, syllables * sound, 8000)
    return folder


TINY_RECIPE = """
features: {sample_rate: 8000, duration: 1.0, n_fft: 256, hop_length: 128, n_mels: 16}
network:
  cnn: {cells: 3, nodes: 1, channels: 2}
  seqnn: {space: lstm_att, cells: 1, nodes: 1, width: 4}
search: {epochs: 3, warmup_epochs: 1, batch_size: 8}
training: {epochs: 4, batch_size: 16, optimiser: adamw, learning_rate: 0.01}
evaluation: {split: "groups:3"}
compute: {device: cpu, threads: 1}
"""


@pytest.fixture(scope="session")
def tiny_recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe that runs in seconds on ``tiny_emodb``."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(TINY_RECIPE)
    return path


@pytest.fixture(scope="session")
def tiny_recipe(tiny_recipe_file: Path) -> Recipe:
    """The value of ``tiny_recipe_file``."""
    return load_recipe(tiny_recipe_file)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def tiny(tiny_recipe_file: Path, tiny_emodb: Path, cache: Path) -> tuple[str | Path, ...]:
    return (tiny_recipe_file, "--corpus", "emodb", "--root", tiny_emodb, "--cache", cache)
