"""Bundles: what goes in comes out, and what was altered is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from emodarts import files
from emodarts.bundle import Bundle, load_bundle, save_bundle, stretch_of
from emodarts.corpora import Utterance
from emodarts.errors import BundleError
from emodarts.recipe import CNNSpec, FeatureSpec, FixedSeqNN, NetworkSpec, SystemSpec
from emodarts.searching.derivation import random_genotype
from emodarts.systems.discrete import DiscreteNetwork
from emodarts.systems.neural import FittedNetwork
from emodarts.training.batches import Normalisation

FEATURES = FeatureSpec(sample_rate=8000, duration=1.0, n_fft=256, hop_length=128, n_mels=16)


@pytest.fixture
def bundle() -> Bundle:
    torch.manual_seed(0)
    spec = NetworkSpec(
        cnn=CNNSpec(cells=3, nodes=2, channels=2), seqnn=FixedSeqNN(mode="fixed", width=4)
    )
    genotype = random_genotype(spec, torch.Generator().manual_seed(0))
    network = DiscreteNetwork(genotype, spec, 16, 3, auxiliary_weight=0.4)
    network(torch.randn(4, 1, 16, 15))
    normalisation = Normalisation(torch.randn(1, 16), torch.rand(1, 16) + 0.5)
    settings = {"genotype": genotype.to_dict(), "network": spec.model_dump(mode="json")}
    settings["members"] = 1
    return Bundle(
        system=SystemSpec(kind="searched"),
        fitted=FittedNetwork(network, normalisation, settings, genotype),
        inputs={"features": FEATURES},
        classes=("a", "b", "c"),
        fingerprints={"features": ""},
        emotions={"a": ["anger"], "b": ["happiness", "excitement"]},
        trained_on=["0" * 32, f"{'1' * 32} 0.5 2.25", f"{'1' * 32} 3.0 inf"],
        origin={"corpus": "toy"},
    )


def test_round_trip_is_exact(bundle: Bundle, tmp_path: Path) -> None:
    save_bundle(tmp_path / "model", bundle)
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [
        "model.json",
        "model.safetensors",
    ]
    loaded = load_bundle(tmp_path / "model")
    for name in (
        *("system", "inputs", "classes", "fingerprints", "temperature", "emotions", "trained_on"),
        "origin",
    ):
        assert getattr(loaded, name) == getattr(bundle, name), name
    assert loaded.genotype == bundle.genotype is not None
    assert not any("auxiliary" in name for name in loaded.fitted.state()[0])
    inputs = {"features": torch.randn(5, 1, 16, 15)}
    assert torch.equal(loaded.probabilities(inputs), bundle.probabilities(inputs))
    torch.testing.assert_close(loaded.probabilities(inputs).sum(dim=1), torch.ones(5))


def test_probabilities_are_those_of_normalised_features(bundle: Bundle) -> None:
    features = torch.randn(5, 1, 16, 15)
    fitted = bundle.fitted
    assert isinstance(fitted, FittedNetwork)
    mean, sd = fitted.normalisation.mean[..., None], fitted.normalisation.sd[..., None]
    with torch.inference_mode():
        expected = fitted.network((features - mean) / sd).softmax(dim=1)
        assert not torch.allclose(fitted.network(features).softmax(dim=1), expected, atol=1e-4)
    torch.testing.assert_close(bundle.probabilities({"features": features}), expected)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_missing_file_is_named(bundle: Bundle, tmp_path: Path, name: str) -> None:
    save_bundle(tmp_path, bundle)
    (tmp_path / name).unlink()
    with pytest.raises(BundleError, match=name):
        load_bundle(tmp_path)


def test_altered_weights_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    save_bundle(tmp_path, bundle)
    path = tmp_path / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(BundleError, match=r"model\.safetensors was altered"):
        load_bundle(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["b", "a", "c"]}, "was altered"),
        ({"format": "emodarts.model/3"}, "allowed: 'emodarts.model/4'"),
    ],
)
def test_an_altered_description_is_refused(
    bundle: Bundle, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    save_bundle(tmp_path, bundle)
    path = tmp_path / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BundleError, match=message):
        load_bundle(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"surprise": 1}, "surprise"),
        ({"settings": {"genotype": {"format": "emodarts.genotype/1"}}}, "do not fit"),
        ({"settings": {}}, "do not fit"),
        ({"classes": ["a", "b"]}, "do not fit"),
        ({"classes": ["a"]}, "classes"),
        ({"inputs": {}}, "inputs"),
        ({"system": {"kind": "oracle"}}, "unknown kind; allowed: searched"),
        ({"temperature": 0.0}, "temperature"),
        ({"trained_on": ["0123 1 2"]}, "trained_on"),
    ],
)
def test_a_description_with_a_right_digest_is_checked_all_the_same(
    bundle: Bundle, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    save_bundle(tmp_path, bundle)
    path = tmp_path / "model.json"
    value = {k: v for k, v in json.loads(path.read_text()).items() if k != "sha256"} | change
    path.write_text(json.dumps({**value, "sha256": files.digest_of(value)}))
    with pytest.raises(BundleError, match=message):
        load_bundle(tmp_path)


def test_numbers_that_json_has_not_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    save_bundle(tmp_path, bundle)
    path = tmp_path / "model.json"
    path.write_text(path.read_text().replace('"corpus": "toy"', '"corpus": NaN'))
    with pytest.raises(BundleError, match="NaN is not allowed in JSON"):
        load_bundle(tmp_path)


@pytest.mark.parametrize(
    ("trained", "asked", "expected"),
    [
        ((0.0, None), (0.0, None), True),
        ((0.0, None), (3.0, 4.0), True),
        ((1.0, 2.0), (0.0, None), True),
        ((1.0, 2.0), (1.5, 3.0), True),
        ((1.0, 2.0), (2.0, 3.0), False),
        ((2.0, None), (0.5, 2.0), False),
        ((2.0, None), (5.0, 6.0), True),
    ],
)
def test_audio_that_was_trained_on_is_known_by_content_and_stretch(
    bundle: Bundle,
    tmp_path: Path,
    trained: tuple[float, float | None],
    asked: tuple[float, float | None],
    expected: bool,
) -> None:
    content, other = "ab" * 32, "cd" * 32
    first, second = (
        Utterance("x", tmp_path, "a", None, start=start, end=end) for start, end in (trained, asked)
    )
    save_bundle(tmp_path, replace(bundle, trained_on=[stretch_of(content, first)]))
    loaded = load_bundle(tmp_path)
    assert loaded.was_trained_on(content, second) is expected
    assert not loaded.was_trained_on(other, second)


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such model"):
        load_bundle(tmp_path / "nowhere")
    (tmp_path / "model.json").write_text("[1, 2")
    with pytest.raises(BundleError, match="not JSON: line 1"):
        load_bundle(tmp_path)
