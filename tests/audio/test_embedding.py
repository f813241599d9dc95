"""Hidden states of checkpoints on disk: equal to transformers', safe to load, nothing fetched."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from emodarts.audio.features import FeatureExtractor
from emodarts.errors import RecipeError
from emodarts.recipe import Recipe
from emodarts.recipe.features import EmbeddingSpec

transformers = pytest.importorskip("transformers", reason="the extra ssl is not installed")

FAMILIES = {"wav2vec2": "Wav2Vec2", "hubert": "Hubert", "wavlm": "WavLM"}
TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": (8, 8, 8),
    "conv_kernel": (10, 3, 2),
    "conv_stride": (5, 4, 2),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny model of each family with random weights, as ``save_pretrained`` writes it."""
    made = {}
    for family, name in FAMILIES.items():
        folder = made[family] = tmp_path_factory.mktemp(family)
        torch.manual_seed(0)
        config = getattr(transformers, f"{name}Config")(**TINY)
        getattr(transformers, f"{name}Model")(config).save_pretrained(folder)
        transformers.Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return made


@pytest.fixture
def checkpoint(checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the wav2vec 2.0 model that a test may damage."""
    return Path(shutil.copytree(checkpoints["wav2vec2"], tmp_path / "checkpoint"))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def change(path: Path, **keys: Any) -> None:
    value = json.loads(path.read_text()) | keys
    path.write_text(json.dumps({k: v for k, v in value.items() if v is not None}))


def waveforms(rows: int, samples: int) -> torch.Tensor:
    """Noise of different loudness and offset, each with silence at its end."""
    sound = torch.randn(rows, samples, generator=torch.Generator().manual_seed(0))
    sound = (sound + 0.5) * 10.0 ** torch.linspace(-2, 1, rows)[:, None]
    sound[:, samples * 3 // 4 :] = 0
    return sound


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layer", [0, 1, -1])
def test_equals_transformers(checkpoints: dict[str, Path], family: str, layer: int) -> None:
    folder = checkpoints[family]
    spec = EmbeddingSpec(checkpoint=str(folder), duration=0.5, layer=layer)
    batch = waveforms(3, spec.n_samples)
    with torch.inference_mode():
        ours = FeatureExtractor(spec)(batch)
    assert ours.shape == (3, 1, spec.n_features, spec.n_frames) == (3, 1, 16, 200)
    network = transformers.AutoModel.from_pretrained(folder).eval()
    prepare = transformers.AutoFeatureExtractor.from_pretrained(folder)
    for row, sound in zip(ours, batch, strict=True):
        inputs = prepare(sound.numpy(), sampling_rate=16000, return_tensors="pt").input_values
        with torch.inference_mode():
            states = network(inputs, output_hidden_states=True).hidden_states[layer]
        torch.testing.assert_close(row[0], states[0].T, atol=1e-4, rtol=1e-4)


def test_all_layers_stand_behind_one_another(checkpoint: Path) -> None:
    keys = {"checkpoint": str(checkpoint), "duration": 0.3}
    spec = EmbeddingSpec(layer="all", **keys)
    assert (spec.n_layers, spec.n_features) == (3, 48)
    batch = waveforms(2, spec.n_samples)
    each = [FeatureExtractor(EmbeddingSpec(layer=k, **keys))(batch) for k in range(3)]
    assert torch.equal(FeatureExtractor(spec)(batch), torch.cat(each, dim=2))


def test_rows_are_alone_in_a_batch(checkpoint: Path) -> None:
    spec = EmbeddingSpec(checkpoint=str(checkpoint), duration=0.3, pool=2, deltas=2)
    extractor = FeatureExtractor(spec)
    batch = waveforms(5, spec.n_samples)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            alone = torch.cat([extractor(row) for row in batch.split(1)])
            assert torch.equal(extractor(batch), alone)
    finally:
        torch.set_num_threads(threads)
    assert alone.shape == (5, 3, 16, spec.n_frames)


@pytest.mark.parametrize("n_samples", [79, 80, 119, 1000, 5000, 8001])
def test_frames_are_as_the_model_counts(checkpoint: Path, n_samples: int) -> None:
    spec = EmbeddingSpec(checkpoint=str(checkpoint), duration=n_samples / 16000)
    assert FeatureExtractor(spec)(waveforms(1, n_samples)).shape == (1, 1, 16, spec.n_frames)


def test_it_stays_in_eval_mode_and_is_not_trained(checkpoint: Path) -> None:
    spec = EmbeddingSpec(checkpoint=str(checkpoint), duration=0.3)
    extractor = FeatureExtractor(spec).train()
    batch = waveforms(2, spec.n_samples).requires_grad_()
    first = extractor(batch)
    assert torch.equal(first, extractor(batch))
    assert not any(p.requires_grad for p in extractor.parameters())
    first.sum().backward()
    assert batch.grad is not None
    assert batch.grad.any()


def test_checkpoint_that_asks_for_no_normalisation(checkpoint: Path) -> None:
    spec = EmbeddingSpec(checkpoint=str(checkpoint), duration=0.3)
    sound = waveforms(1, spec.n_samples)
    louder = 3 * sound + 0.1
    extractor = FeatureExtractor(spec)
    torch.testing.assert_close(extractor(louder), extractor(sound), atol=1e-3, rtol=1e-3)
    change(checkpoint / "preprocessor_config.json", do_normalize=False)
    plain = FeatureExtractor(spec)
    assert (plain(louder) - plain(sound)).abs().max() > 0.01
    normal = (sound - sound.mean()) / (sound.var(correction=0) + 1e-7).sqrt()
    torch.testing.assert_close(plain(normal), extractor(sound), atol=1e-4, rtol=1e-4)


def test_half_precision_weights_are_computed_in_single(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    save_file({k: v.half() for k, v in load_file(path).items()}, path, {"format": "pt"})
    change(checkpoint / "config.json", dtype="float16", torch_dtype="float16")
    spec = EmbeddingSpec(checkpoint=str(checkpoint), duration=0.3)
    assert FeatureExtractor(spec)(waveforms(1, spec.n_samples)).dtype == torch.float32


def test_fingerprint_is_the_content(checkpoint: Path) -> None:
    def fingerprint() -> str:
        return FeatureExtractor(EmbeddingSpec(checkpoint=str(checkpoint))).fingerprint

    first = fingerprint()
    (checkpoint / "README.md").write_text("about")
    assert fingerprint() == first
    moved = checkpoint.rename(checkpoint.with_name("moved"))
    assert FeatureExtractor(EmbeddingSpec(checkpoint=str(moved))).fingerprint == first
    moved.rename(checkpoint)
    path = checkpoint / "model.safetensors"
    weights = load_file(path)
    weights["feature_projection.projection.bias"][0] += 1
    save_file(weights, path, {"format": "pt"})
    second = fingerprint()
    change(checkpoint / "preprocessor_config.json", do_normalize=False)
    assert len({first, second, fingerprint()}) == 3


def pickled_only(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def without_a_tensor(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layers.1.attention.k_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def cut_off(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def of_another_size(folder: Path) -> None:
    change(folder / "config.json", hidden_size=32)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (pickled_only, r"only pickled weights \(pytorch_model.bin\); it needs model.safetensors"),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights"),
        (without_a_tensor, r"lacks weights: encoder\.layers\.1\.attention\.k_proj\.weight"),
        (cut_off, "cannot load"),
        (of_another_size, "cannot load"),
    ],
)
def test_weights_that_cannot_be_used(
    checkpoint: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(checkpoint)
    with pytest.raises(RecipeError, match=message):
        FeatureExtractor(EmbeddingSpec(checkpoint=str(checkpoint)))


def test_no_code_of_the_folder_runs(checkpoint: Path) -> None:
    (checkpoint / "evil.py").write_text(f"open({str(checkpoint / 'ran')!r}, 'w')\n")
    change(checkpoint / "config.json", auto_map={"AutoModel": "evil.Evil"})
    FeatureExtractor(EmbeddingSpec(checkpoint=str(checkpoint)))
    assert not (checkpoint / "ran").exists()


@pytest.mark.parametrize(
    ("file", "keys", "spec", "message"),
    [
        ("config.json", {}, {"layer": 3}, "features: layer 3; allowed: -3 to 2"),
        ("config.json", {}, {"layer": -4}, "features: layer -4; allowed: -3 to 2"),
        ("config.json", {}, {"sample_rate": 8000}, "sample_rate 8000; allowed: 16000 Hz"),
        ("config.json", {}, {"duration": 0.001}, "0.001 s is too short for one frame"),
        ("config.json", {"model_type": "bert"}, {}, "model_type: Input should be 'wav2vec2', 'hu"),
        ("config.json", {"hidden_size": None}, {}, "config.json: hidden_size: Field required"),
        ("config.json", {"conv_stride": [5, 2]}, {}, "3 conv_kernel and 2 conv_stride"),
        ("config.json", {"conv_kernel": "x"}, {}, "conv_kernel: Input should be a valid"),
        ("preprocessor_config.json", {"sampling_rate": 8000}, {}, "allowed: 8000 Hz"),
        ("preprocessor_config.json", {"sampling_rate": None}, {}, "sampling_rate: Field required"),
    ],
)
def test_recipe_that_does_not_fit_the_checkpoint(
    checkpoint: Path, file: str, keys: dict[str, Any], spec: dict[str, Any], message: str
) -> None:
    change(checkpoint / file, **keys)
    with pytest.raises(RecipeError) as caught:
        Recipe.from_dict({"features": {"kind": "embedding", "checkpoint": str(checkpoint), **spec}})
    assert message in str(caught.value)


def test_recipe_whose_checkpoint_lacks_a_file(checkpoint: Path) -> None:
    value = {"features": {"kind": "embedding", "checkpoint": str(checkpoint)}}
    assert Recipe.from_dict(Recipe.from_dict(value).to_dict()).features.n_features == 16
    (checkpoint / "config.json").write_text("{")
    with pytest.raises(RecipeError, match=r"config.json is not JSON: line 1"):
        Recipe.from_dict(value)
    (checkpoint / "preprocessor_config.json").unlink()
    (checkpoint / "config.json").unlink()
    with pytest.raises(RecipeError, match=r"no such file: .*config.json"):
        Recipe.from_dict(value)


def test_without_the_package(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(RecipeError, match=r"pip install transformers"):
        FeatureExtractor(EmbeddingSpec(checkpoint=str(checkpoint)))
