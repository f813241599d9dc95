"""Compact reference networks: their size, and what their answers depend on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from emodarts.bundle import Bundle, load_bundle, save_bundle
from emodarts.corpora import load_corpus
from emodarts.errors import RecipeError
from emodarts.experiments.plan import Options
from emodarts.experiments.run import run
from emodarts.recipe import SYSTEMS, FeatureSpec, Recipe, load_recipe
from emodarts.recipe.features import EmbeddingSpec
from emodarts.scoring.predictions import read_predictions
from emodarts.serving.model import Model
from emodarts.systems.count import count_multiply_adds, count_parameters
from emodarts.systems.frozen_encoder import FrozenEncoderHead
from emodarts.systems.light_sernet import LightSERNet
from emodarts.systems.present import average_pool, normed
from emodarts.systems.reslstm_sa import ResLSTMSA
from emodarts.systems.system import Saved
from emodarts.systems.tim_net import TemporalAwareBlock, TIMNet
from emodarts.training.classifier import Classifier

NETWORKS = {"light_sernet": LightSERNet, "reslstm_sa": ResLSTMSA, "tim_net": TIMNet}


def build(kind: str, n_classes: int = 4, n_mels: int = 12, **keys: Any) -> Classifier:
    features = FeatureSpec(kind="log_mel", n_mels=n_mels, deltas=keys.pop("deltas", 0))
    torch.manual_seed(0)
    return NETWORKS[kind](SYSTEMS[kind].spec(**keys), features, n_classes)


def warm(network: nn.Module, features: Tensor) -> nn.Module:
    """Give batch norms statistics and weights that are not trivial."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias)
    network(features)
    return network.eval()


def ending_early(features: Tensor) -> Tensor:
    """Maps of different lengths, NaN behind their ends."""
    features = features.clone()
    for row in range(len(features)):
        features[row, ..., 9 + 5 * row :] = torch.nan
    return features


# --- sizes, counted by hand ---


def test_light_sernet_has_the_published_size() -> None:
    """About 0.46 M parameters (arXiv 2110.03435); maps of 40 x 184 become 20 x 92, 10 x 46, ..."""
    paths = [(9 * 1, 32), (1 * 11, 32), (3 * 3, 32)]
    blocks = [(96, 64, 9), (64, 96, 9), (96, 128, 9), (128, 160, 9), (160, 320, 1)]
    norms = 2 * (3 * 32 + 64 + 96 + 128 + 160 + 320)
    weights = sum(k * c for k, c in paths) + sum(i * o * k for i, o, k in blocks)
    network = build("light_sernet")
    assert count_parameters(network) == weights + 3 * 32 + norms + 320 * 4 + 4 == 460_740
    sizes = [20 * 92, 10 * 46, 5 * 23, 5 * 12, 5 * 6]
    multiply_adds = 40 * 184 * sum(k * c for k, c in paths) + 320 * 4
    multiply_adds += sum(s * i * o * k for s, (i, o, k) in zip(sizes, blocks, strict=True))
    assert count_multiply_adds(network, (1, 40, 184)) == multiply_adds


@pytest.mark.parametrize(("classes", "published"), [(8, 46_772), (4, 46_512)])
def test_reslstm_sa_has_the_published_size(classes: int, published: int) -> None:
    """46,772 parameters with 46 features and eight classes (arXiv 2606.03359)."""

    def lstm(inputs: int, units: int) -> int:
        return 4 * units * (inputs + units)

    network = build("reslstm_sa", classes, n_mels=46)
    biases = 8 * 46 + 8 * 64
    norms = 2 * 46 + 2 * 64
    weights = lstm(46, 46) + lstm(46, 64)
    assert count_parameters(network) == weights + biases + norms + 64 + 65 * classes == published
    multiply_adds = 10 * (weights + 3 * 46 + 3 * 64 + 64) + 64 * classes
    assert count_multiply_adds(network, (1, 46, 10)) == multiply_adds


def test_tim_net_has_the_size_of_its_layers() -> None:
    convolution, entry = 2 * 39 * 39, 39 * 39
    block = 2 * (convolution + 39 + 2 * 39)
    network = build("tim_net", n_mels=39)
    assert count_parameters(network) == 2 * (entry + 39 + 8 * block) + 8 + 40 * 4 == 104_376
    multiply_adds = 2 * 10 * (entry + 8 * 2 * convolution) + 8 * 39 + 39 * 4
    assert count_multiply_adds(network, (1, 39, 10)) == multiply_adds


@pytest.mark.parametrize("name", ["light-sernet", "reslstm-sa", "tim-net"])
def test_recipes_differ_from_default_in_bands_and_network_alone(name: str) -> None:
    recipe, default = load_recipe(name), load_recipe("default")
    assert recipe.training == default.training
    assert recipe.evaluation == default.evaluation
    changed = recipe.features.model_copy(update={"n_mels": default.features.n_mels})
    assert changed == default.features


# --- what an answer depends on ---


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("training", [True, False])
def test_missing_frames_count_for_nothing(kind: str, training: bool) -> None:
    """A map that ends early is the map cut off there, and batch norms learn from sound alone."""
    network = build(kind, deltas=1, dropout=0.0).double()
    features = torch.randn(3, 2, 12, 19, dtype=torch.float64)
    warm(network, features)
    padded = ending_early(torch.randn(2, 2, 12, 19, dtype=torch.float64))
    if training:
        network.train()
        longer = torch.cat([padded, torch.full((2, 2, 12, 4), torch.nan, dtype=torch.float64)], 3)
        before = {k: v.clone() for k, v in network.state_dict().items()}
        found = network(padded)
        learned = {k: v.clone() for k, v in network.state_dict().items()}
        network.load_state_dict(before)
        torch.testing.assert_close(network(longer), found)
        torch.testing.assert_close(dict(network.state_dict()), learned)
    else:
        found = network(padded)
        for row, length in enumerate((9, 14)):
            alone = network(padded[row : row + 1, ..., :length])
            torch.testing.assert_close(found[row : row + 1], alone)
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("kind", NETWORKS)
def test_utterances_are_apart_and_the_order_of_frames_matters(kind: str) -> None:
    network = build(kind).double()
    features = torch.randn(5, 1, 12, 33, dtype=torch.float64)
    warm(network, features)
    found = network(features)
    torch.testing.assert_close(torch.cat([network(x) for x in features.split(1)]), found)
    assert not torch.allclose(network(features.flip(3)), found, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (40, 65)])
@pytest.mark.parametrize("kind", NETWORKS)
def test_maps_of_any_size(kind: str, shape: tuple[int, int]) -> None:
    network = build(kind, n_classes=3, n_mels=shape[0]).eval()
    assert torch.isfinite(network(torch.randn(2, 1, *shape))).all()


def test_a_block_of_tim_net_sees_the_past_alone_and_gates() -> None:
    block = TemporalAwareBlock(6, dilation=4, dropout=0.1).eval()
    x = torch.randn(1, 6, 30)
    y = block(x, None)
    changed = x.clone()
    changed[..., 20:] += 1
    assert torch.equal(block(changed, None)[..., :20], y[..., :20])
    assert ((y / x > 0) & (y / x < 1)).all()
    earlier = x.clone()
    earlier[..., 11] += 1  # 4 and 8 frames before 15 and 19 is where two convolutions of 2 look
    changed = (block(earlier, None) != y).any(dim=1)[0]
    assert set(torch.nonzero(changed)[:, 0].tolist()) <= {11, 15, 19}
    assert changed[11]


def test_tim_net_answers_for_reversed_speech_with_its_directions_exchanged() -> None:
    network = build("tim_net").eval()
    features = torch.randn(2, 1, 12, 20)
    found = network(features)
    network.forwards, network.backwards = network.backwards, network.forwards
    torch.testing.assert_close(network(features.flip(3)), found)


def test_batch_norm_and_pooling_of_what_is_present() -> None:
    x = torch.randn(2, 3, 4, 5)
    present = torch.tensor([[True] * 5, [True, True, True, False, False]])
    norm = nn.BatchNorm2d(3)
    y = normed(norm, x, present)
    kept = torch.cat([x[0], x[1, ..., :3]], dim=2)  # (3, 4, 8)
    mean, sd = kept.mean(dim=(1, 2)), kept.std(dim=(1, 2), correction=0)
    expected = (x - mean[:, None, None]) / sd[:, None, None]
    torch.testing.assert_close(y[0], expected[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(y[1, ..., :3], expected[1, ..., :3], atol=1e-4, rtol=1e-4)
    assert not y[1, ..., 3:].any()
    pooled, still = average_pool(y, (2, 2), present)
    assert still is not None
    assert still.tolist() == [[True, True, True], [True, True, False]]
    torch.testing.assert_close(pooled[1, :, 0, 0], y[1, :, :2, :2].mean(dim=(1, 2)))
    torch.testing.assert_close(pooled[1, :, 0, 1], y[1, :, :2, 2].mean(dim=1))
    torch.testing.assert_close(pooled[0, :, 1, 2], y[0, :, 2:, 4].mean(dim=1))


# --- a frozen encoder ---


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny wav2vec 2.0 model with random weights, as ``save_pretrained`` writes it."""
    transformers = pytest.importorskip("transformers", reason="the extra ssl is not installed")
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(8, 8),
        conv_kernel=(10, 3),
        conv_stride=(10, 8),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
    )
    transformers.Wav2Vec2Model(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(sampling_rate=8000).save_pretrained(folder)
    return folder


def embedding(checkpoint: Path, **keys: Any) -> dict[str, Any]:
    common = {"sample_rate": 8000, "duration": 1.0, "layer": "all"}
    return {"kind": "embedding", "checkpoint": str(checkpoint), **common, **keys}


def test_layers_are_mixed_by_a_softmax_and_averaged_over_frames(checkpoint: Path) -> None:
    spec = EmbeddingSpec(**embedding(checkpoint))
    assert (spec.n_layers, spec.n_features) == (3, 48)
    network = FrozenEncoderHead(SYSTEMS["frozen_encoder"].spec(), spec, 4).eval()
    nn.init.normal_(network.layer_scores)
    assert count_parameters(network) == 3 + 16 * 4 + 4
    assert count_multiply_adds(network, (1, 48, 7)) == 16 * 4
    features = torch.randn(2, 1, 48, 7)
    layers = features[:, 0].unflatten(1, (3, 16))  # (B, L, H, T)
    weights = torch.softmax(network.layer_scores, dim=0)
    mixed = torch.einsum("l,blht->bht", weights, layers)
    torch.testing.assert_close(network(features), network.classifier(mixed.mean(dim=2)))
    padded = torch.cat([features, torch.full((2, 1, 48, 3), torch.nan)], dim=3)
    torch.testing.assert_close(network(padded), network(features))


def test_a_frozen_encoder_runs_from_audio_to_a_bundle(
    checkpoint: Path, tiny_emodb: Path, cache: Path, tmp_path: Path
) -> None:
    value = {
        "features": embedding(checkpoint, pool=5, pool_by="mean"),
        "system": {"kind": "frozen_encoder"},
        "training": {"epochs": 2, "batch_size": 16, "optimiser": "adamw", "learning_rate": 0.01},
        "evaluation": {"split": "groups:3", "folds": [0]},
        "compute": {"device": "cpu", "threads": 1},
    }
    recipe = Recipe.from_dict(value)
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    corpus = load_corpus("emodb", tiny_emodb)
    result = run(recipe, corpus, tmp_path / "run", Options(cache=cache))
    assert result["parameters"] == 3 + 16 * 4 + 4
    trial = tmp_path / "run" / "fold-0" / "seed-0"
    model = Model.load(trial / "model")
    paths = {u.name: u.path for u in corpus}
    for p in read_predictions(trial / "predictions.csv")[0][:6]:
        [answer] = model.predict(paths[p.name])
        assert tuple(answer.probabilities.values()) == p.probabilities


def test_an_encoder_is_asked_for() -> None:
    with pytest.raises(RecipeError, match=r"allowed: features of kind 'embedding' with layer: all"):
        Recipe.from_dict({"system": {"kind": "frozen_encoder"}})
    recipe = load_recipe("frozen-encoder")
    with pytest.raises(RecipeError, match=r"features\.checkpoint is required"):
        recipe.features.n_features  # noqa: B018


# --- bundles ---


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_network_of_a_bundle_answers_as_the_one_that_was_fitted(
    kind: str,
    recipe_of: Callable[..., Recipe],
    task_of: Callable[..., Any],
    tmp_path: Path,
) -> None:
    recipe = recipe_of(kind, features={"padding": "masked"}, training={"epochs": 1})
    task = task_of(recipe)
    system = SYSTEMS[kind].build(recipe.system)
    outcome = system.fit(task)
    inputs = {"features": ending_early(task.data.inputs((0, 1, 2))["features"])}
    found = outcome.fitted.probabilities(inputs)
    assert torch.isfinite(found).all()
    tensors, settings = outcome.fitted.state()
    saved = Saved(tensors, json.loads(json.dumps(settings)), recipe.inputs, task.data.classes)
    assert torch.equal(system.restore(saved).probabilities(inputs), found)
    bundle = Bundle(
        recipe.system, outcome.fitted, recipe.inputs, task.data.classes, {"features": ""}
    )
    save_bundle(tmp_path / "model", bundle)
    assert torch.equal(load_bundle(tmp_path / "model").probabilities(inputs), found)
