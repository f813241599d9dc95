"""The table of features: the class of each kind's keys, and kinds that a user adds."""

from __future__ import annotations

import copy
import importlib
import pickle
import re
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from emodarts.audio.features import FeatureExtractor
from emodarts.corpora import READERS, load_corpus
from emodarts.errors import EmodartsError, RecipeError
from emodarts.recipe import Recipe
from emodarts.recipe.features import (
    FEATURES,
    FeatureKind,
    FeatureSpec,
    LogMelSpec,
    MfccSpec,
    OpensmileSpec,
    StftSpec,
    WaveformSpec,
)

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
SPECS: list[FeatureSpec] = [
    MfccSpec(sample_rate=16000, n_mfcc=40),
    LogMelSpec(n_mels=64, deltas=2),
    StftSpec(window="hann", length="repeat"),
    WaveformSpec(frame_length=128),
    OpensmileSpec(duration=3, pool=2, length="segments"),
]
BY_KIND = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind)


class Holder(BaseModel):
    """A model with features, such as a recipe or the description of a bundle."""

    model_config = ConfigDict(extra="forbid", strict=True)

    features: FeatureSpec


@BY_KIND
def test_keys_give_the_class_of_their_kind(spec: FeatureSpec) -> None:
    keys = spec.model_dump(mode="json")
    for made in (
        FeatureSpec(**keys),
        FeatureSpec.model_validate(keys),
        FeatureSpec.model_validate_json(spec.model_dump_json()),
        Holder.model_validate({"features": keys}, strict=False).features,
        Holder(features=spec).features,
        Recipe.from_dict({"features": keys}).features,
        copy.deepcopy(spec),
        spec.model_copy(),
        pickle.loads(pickle.dumps(spec)),  # as processes hand it to each other
    ):
        assert type(made) is type(spec)
        assert made == spec
        assert hash(made) == hash(spec)
    assert isinstance(spec, FeatureSpec)


def test_kind_is_mfcc_where_none_is_named() -> None:
    assert FeatureSpec(n_mfcc=13) == MfccSpec(n_mfcc=13)
    assert Recipe.from_dict({"features": {"n_mfcc": 13}}).features == MfccSpec(n_mfcc=13)


@BY_KIND
def test_recipe_and_digest_hold_all_keys_of_the_kind(spec: FeatureSpec) -> None:
    recipe = Recipe(features=spec)
    assert recipe.to_dict()["features"] == spec.model_dump(mode="json")
    assert set(recipe.to_dict()["features"]) == set(type(spec).model_fields)
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    others = [other for other in SPECS if other is not spec]
    assert recipe.digest() not in {Recipe(features=other).digest() for other in others}
    changes = {"hop_length": 100, "frame_length": 99, "n_mels": 50, "deltas": 1, "pool": 3}
    for key in changes.keys() & type(spec).model_fields.keys():
        other = Recipe.from_dict({"features": {**recipe.to_dict()["features"], key: changes[key]}})
        assert other.digest() != recipe.digest(), key


def test_a_kind_has_no_keys_of_another() -> None:
    mel = {"n_mels", "win_length", "fmin", "fmax"}
    own = {"mfcc": mel | {"n_mfcc"}, "log_mel": mel}
    own |= {"stft": {"window", "win_length"}, "waveform": {"frame_length"}}
    own |= {
        "opensmile": set(),
        "functionals": {"feature_set"},
        "embedding": {"checkpoint", "layer"},
    }
    common = set(FeatureSpec.model_fields) | {"n_fft", "hop_length"}
    assert {name: set(kind.spec.model_fields) - common for name, kind in FEATURES.items()} == own


@pytest.mark.parametrize("keys", [{"kind": "mfc"}, {"n_mel": 3}, {"kind": "stft", "n_mels": 3}])
def test_mistake_in_python(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"allowed: mfcc, log_mel|[Ee]xtra inputs"):
        FeatureSpec(**keys)


@BY_KIND
def test_spec_is_frozen(spec: FeatureSpec) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        spec.duration = 1.0


# --- kinds that a user adds ---


def example(begin: str) -> str:
    """The block of the page whose docstring begins so."""
    [block] = re.findall(
        rf'```python\n("""{begin}.*?)```', PAGE.read_text(encoding="utf-8"), flags=re.DOTALL
    )
    return str(block)


@pytest.fixture
def autocorrelation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the page, imported as a user would."""
    monkeypatch.setitem(FEATURES, "autocorrelation", FEATURES["mfcc"])  # and away at the end
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(importlib.import_module("sys").modules, "autocorrelation", raising=False)
    (tmp_path / "autocorrelation.py").write_text(example("autocorrelation.py"), encoding="utf-8")
    return importlib.import_module("autocorrelation")


def test_example_of_a_feature(autocorrelation: ModuleType) -> None:
    keys = {"kind": "autocorrelation", "sample_rate": 16000, "duration": 1.0, "deltas": 1}
    recipe = Recipe.from_dict({"features": {**keys, "n_lags": 200}})
    assert recipe.to_dict()["features"]["frame_length"] == 640
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert recipe.digest() != Recipe.from_dict({"features": keys}).digest()
    spec = recipe.features
    assert (spec.n_channels, spec.n_features, spec.n_frames) == (2, 200, 49)
    pitch = torch.arange(16000) % 80 == 0  # a pulse every 80 samples: 200 Hz
    maps = FeatureExtractor(spec)(torch.stack([pitch.float(), torch.zeros(16000)]))
    assert maps.shape == (2, 2, 200, 49)
    assert not maps[1].any()
    found = maps[0, 0, 40:].argmax(dim=0) + 40
    assert found.tolist() == [80] * 49
    assert torch.equal(
        maps[0, 0], autocorrelation.autocorrelation(pitch.float()[None], n_lags=200)[0]
    )


@pytest.mark.usefixtures("autocorrelation")
@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"n_lag": 3}, "'features.n_lag' (did you mean 'n_lags'?); allowed: kind, sample_rate"),
        ({"n_lags": 0}, "features.n_lags: 0: Input should be greater than or equal to 1"),
        ({"n_lags": "9"}, "features.n_lags: '9': Input should be a valid integer"),
        ({"n_lags": 3}, "3 x 399 (frequency x time) are too small"),
        ({"duration": 0.03}, "autocorrelation fails on silence of 0.03 s: "),
        ({"kind": "autocorelation"}, "did you mean 'autocorrelation'?"),
    ],
)
def test_mistake_in_keys_of_a_function(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.from_dict({"features": {"kind": "autocorrelation", **keys}})
    assert message in str(caught.value)


def test_fingerprint_is_the_text_of_the_module(autocorrelation: ModuleType, tmp_path: Path) -> None:
    first = FeatureExtractor(FeatureSpec(kind="autocorrelation")).fingerprint
    again = FeatureExtractor(FeatureSpec(kind="autocorrelation", n_lags=9)).fingerprint
    assert first == again != ""
    path = tmp_path / "autocorrelation.py"
    path.write_text(example("autocorrelation.py").replace("1e-10", "1e-12"), encoding="utf-8")
    importlib.invalidate_caches()
    importlib.import_module("linecache").checkcache()
    importlib.reload(autocorrelation)
    assert FeatureExtractor(FeatureSpec(kind="autocorrelation")).fingerprint != first
    assert {FeatureExtractor(spec).fingerprint for spec in SPECS[:4]} == {""}


def test_example_of_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(READERS, "calls", READERS["emodb"])
    exec(compile(example("Our call centre"), str(PAGE), "exec"), {"__name__": "calls"})
    for name in ("ann/1-calm.wav", "bob/1-cross.wav", "bob/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    corpus = load_corpus("calls", tmp_path)
    assert [(u.name, u.label, u.speaker) for u in corpus] == [
        ("ann/1-calm", "calm", "ann"),
        ("bob/1-cross", "cross", "bob"),
    ]
    assert [name for name, _ in corpus.skipped] == ["bob/notes"]
    assert corpus.select(["anger", "neutral"]).count("label") == {"anger": 1, "neutral": 1}


def loudness(
    waveform: Tensor, *, sample_rate: int = 8000, per_second: Annotated[int, Field(ge=1)] = 10
) -> Tensor:
    frames = waveform.unfold(1, sample_rate // per_second, sample_rate // per_second)
    return frames.abs().amax(-1)[:, None].expand(-1, 4, -1)


def test_common_keys_of_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FEATURES, "loudness", FeatureKind.of(loudness))
    spec = FeatureSpec(kind="loudness", duration=2.0)
    assert (spec.sample_rate, spec.n_frames) == (8000, 20)
    assert FeatureSpec(kind="loudness", duration=2.0, sample_rate=16000).n_frames == 20
    with pytest.raises(ValidationError, match="greater than or equal to 4000"):
        FeatureSpec(kind="loudness", sample_rate=100)


def no_star(waveform: Tensor, width: int = 3) -> Tensor:
    return waveform


def no_type(waveform: Tensor, *, width=3) -> Tensor:  # type: ignore[no-untyped-def]
    return waveform


@pytest.mark.parametrize("function", [no_star, no_type])
def test_function_without_usable_keys(function: Any) -> None:
    with pytest.raises(
        EmodartsError, match=r"\(\): parameter 'width'; allowed: the waveform, a st"
    ):
        FeatureKind.of(function)


def flat(waveform: Tensor) -> Tensor:
    return waveform


def test_function_that_gives_no_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FEATURES, "flat", FeatureKind.of(flat))
    with pytest.raises(RecipeError, match=r"flat fails on silence of 8.0 s: .*\(1, F, frames\)"):
        Recipe.from_dict({"features": {"kind": "flat"}})


class HalvesSpec(FeatureSpec):
    kind: Literal["halves"] = "halves"
    weights: tuple[float, ...] = (1.0,)

    @property
    def n_features(self) -> int:
        return len(self.weights)

    @property
    def n_steps(self) -> int:
        return 2

    def check(self) -> None:
        if self.n_samples % 2:
            raise ValueError(f"{self.n_samples} samples have no halves")


def halves(spec: HalvesSpec) -> Any:
    def transform(waveform: Tensor) -> Tensor:
        means = waveform.reshape(len(waveform), 2, -1).mean(-1)
        return torch.tensor(spec.weights)[:, None] * means[:, None]

    return transform


def test_kind_with_a_class_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FEATURES, "halves", FeatureKind(HalvesSpec, halves))
    keys = {"kind": "halves", "duration": 0.5, "weights": [1.0, 3.0]}
    network = {"cnn": {"cells": 1}}
    with pytest.raises(RecipeError, match="features: 8001 samples have no halves"):
        Recipe.from_dict({"features": {**keys, "duration": 8001 / 16000}, "network": network})
    spec = Holder.model_validate({"features": keys}, strict=False).features
    assert spec == HalvesSpec(duration=0.5, weights=(1.0, 3.0))
    waveform = torch.from_numpy(np.repeat(np.float32([[1, 2], [0, 5]]), 4000, axis=1))
    expected = [[[[1.0, 2.0], [3.0, 6.0]]], [[[0.0, 5.0], [0.0, 15.0]]]]
    assert FeatureExtractor(spec)(waveform).tolist() == expected
