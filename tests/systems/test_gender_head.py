"""The second task beside emotion: a head that learns the speaker's gender while training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from emodarts import files
from emodarts.corpora import load_corpus
from emodarts.cost import MEASURED
from emodarts.dataset import Dataset
from emodarts.errors import RunError
from emodarts.experiments.plan import Options, make_plan
from emodarts.genotype import Genotype
from emodarts.layout import TrialFolder
from emodarts.progress import Progress, Silent
from emodarts.recipe import Recipe, TrainingSpec, load_recipe
from emodarts.systems.count import count_multiply_adds, count_parameters
from emodarts.systems.discrete import DiscreteNetwork
from emodarts.systems.searched import Searched
from emodarts.systems.system import FitTask
from emodarts.training.batches import UNKNOWN, Part, gender_indices
from emodarts.training.fit import Trained, train_network
from killing import Kill, Killed

#: The network of ``liu-cnn-bilstm``, smaller; without dropout, which would be drawn again.
NETWORK = {
    "stem": {"channels": [4, 4], "frequency_strides": [2, 2], "time_strides": [2, 1]},
    "cnn": {"cells": 0},
    "seqnn": {"mode": "fixed", "recurrent": "lstm", "width": 6, "bidirectional": True},
    "pooling": "attention",
    "dropout": 0.0,
}
SPEC = Recipe.from_dict({"network": NETWORK, "search": {"strategy": "random"}}).network
#: One step of plain gradient descent with all utterances.
STEP = TrainingSpec(
    epochs=1,
    batch_size=24,
    learning_rate=0.1,
    momentum=0.0,
    weight_decay=0.0,
    gradient_clip=1e6,
    schedule="constant",
    class_weights=False,
)
LEARNING = TrainingSpec(epochs=16, batch_size=12, optimiser="adamw", learning_rate=0.01)


def part(known: int = 24) -> Part:
    """Emotion is in how loud the upper bands are, gender in the lower ones; some are unknown."""
    generator = torch.Generator().manual_seed(0)
    targets, genders = torch.arange(24) % 3, torch.arange(24) // 3 % 2
    features = 0.3 * torch.randn(24, 1, 8, 10, generator=generator)
    features[:, :, 4:] += targets.view(-1, 1, 1, 1)
    features[:, :, :4] += 2.0 * genders.view(-1, 1, 1, 1)
    genders[known:] = UNKNOWN
    return Part(features, targets, genders=genders)


def build(weight: float) -> DiscreteNetwork:
    torch.manual_seed(0)
    return DiscreteNetwork(Genotype(), SPEC, 8, 3, gender_weight=weight)


def train(
    folder: Path,
    weight: float,
    training: Part,
    spec: TrainingSpec = STEP,
    progress: Progress | None = None,
) -> tuple[DiscreteNetwork, Trained]:
    network = build(weight)
    where = {"folder": TrialFolder(folder), "progress": progress or Silent(), "title": "train"}
    return network, train_network(network, training, None, spec, 3, seed=0, **where)  # type: ignore[arg-type]


def gradients(loss: Tensor, network: DiscreteNetwork) -> list[Tensor]:
    parameters = list(network.parameters())
    return list(torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True))


@pytest.mark.parametrize(("weight", "known"), [(0.5, 24), (2.0, 9)])
def test_the_step_is_along_the_weighted_sum_of_two_gradients(
    weight: float, known: int, tmp_path: Path
) -> None:
    """Where a gender is unknown, the utterance adds nothing to the second mean."""
    training = part(known)
    network, trained = train(tmp_path, weight, training)
    before = build(weight).train()
    maps = before.cnn_maps(training.features)
    pooled = before.pooled(maps[-2:])
    emotion = functional.cross_entropy(before.classifier(pooled), training.targets)
    assert before.gender is not None
    assert training.genders is not None
    each = functional.cross_entropy(
        before.gender(pooled)[:known], training.genders[:known], reduction="none"
    )
    gender = each.sum() / 24
    [row] = trained.history
    assert row["objective"] == pytest.approx((emotion + weight * gender).item(), rel=1e-5)
    assert row["gender_loss"] == pytest.approx(each.mean().item(), rel=1e-5)
    both = zip(gradients(emotion, before), gradients(gender, before), strict=True)
    for after, start, (one, other) in zip(
        network.parameters(), before.parameters(), both, strict=True
    ):
        torch.testing.assert_close(
            (start - after) / 0.1, one + weight * other, rtol=1e-3, atol=1e-5
        )


def test_a_gender_that_can_be_learned_is_learned_beside_the_emotion(tmp_path: Path) -> None:
    _, trained = train(tmp_path, 1.0, part(), LEARNING)
    first, last = trained.history[0], trained.history[-1]
    assert last["gender_loss"] < 0.5 * first["gender_loss"]
    assert last["train_loss"] < first["train_loss"]


def test_without_a_weight_or_without_genders_it_is_the_training_of_emotion_alone(
    tmp_path: Path,
) -> None:
    plain, alone = train(tmp_path / "plain", 0.0, part(), LEARNING)
    unknown, trained = train(tmp_path / "unknown", 1.0, part(known=0), LEARNING)
    assert plain.gender is None
    for name, tensor in plain.model_state().items():
        assert torch.equal(unknown.model_state()[name], tensor), name
    both = [
        [{k: v for k, v in row.items() if k not in MEASURED} for row in found.history]
        for found in (alone, trained)
    ]
    assert both[0] == both[1]  # no gender_loss among them


def test_a_killed_training_of_both_tasks_goes_on_as_it_was(tmp_path: Path) -> None:
    spec = LEARNING.model_copy(update={"epochs": 4, "mixup": 0.4})
    whole, expected = train(tmp_path / "whole", 1.0, part(20), spec)
    with pytest.raises(Killed):
        train(tmp_path / "killed", 1.0, part(20), spec, Kill(3))
    again, trained = train(tmp_path / "killed", 1.0, part(20), spec)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert [r["gender_loss"] for r in trained.history] == [
        r["gender_loss"] for r in expected.history
    ]


def test_the_head_is_no_part_of_the_model() -> None:
    recipe = load_recipe("liu-cnn-bilstm")
    shape = recipe.features.n_features, recipe.features.n_frames
    plain, both = (
        DiscreteNetwork(Genotype(), recipe.trained_network, shape[0], 4, gender_weight=weight)
        for weight in (0.0, 1.0)
    )
    # Two logits from the 256 units of the bidirectional LSTM.
    assert sum(p.numel() for p in both.parameters()) == count_parameters(plain) + 2 * (256 + 1)
    assert count_parameters(both) == count_parameters(plain)
    assert count_multiply_adds(both, (1, *shape)) == count_multiply_adds(plain, (1, *shape))
    assert both.model_state().keys() == plain.state_dict().keys()


def test_genders_of_a_corpus_reach_the_training_and_no_further(
    recipe_of: Callable[..., Recipe], task_of: Callable[..., FitTask], data: Dataset
) -> None:
    value = {**recipe_of().to_dict(), "network": NETWORK, "search": {"strategy": "random"}}
    recipe = Recipe.from_dict({**value, "system": {"gender_weight": 1.0}})
    indices = (5, 0, 30)
    expected = gender_indices([data.utterances[i].gender for i in indices])
    assert set(expected.tolist()) == {0, 1}
    task = task_of(recipe)
    found = task.data.part(indices, data.normalisation(indices), task.device).genders
    assert found is not None
    assert found.tolist() == expected.tolist()
    outcome = Searched(recipe.system).fit(task)
    rows = files.read_csv(task.folder.training_history, RunError)
    assert all(float(row["gender_loss"]) > 0 for row in rows)
    assert outcome.fitted.network.gender is None
    assert not any("gender" in name for name in outcome.fitted.state()[0])


@pytest.mark.parametrize(("known", "said"), [(72, None), (40, "32 of 72"), (0, "all")])
def test_unknown_genders_are_warned_of(
    known: int, said: str | None, tiny_recipe: Recipe, tiny_emodb: Path, cache: Path, tmp_path: Path
) -> None:
    value: dict[str, Any] = {**tiny_recipe.to_dict(), "system": {"gender_weight": 0.5}}
    corpus = load_corpus("emodb", tiny_emodb)
    utterances = tuple(
        u if k < known else dataclasses.replace(u, gender=None)
        for k, u in enumerate(corpus.utterances)
    )
    corpus = dataclasses.replace(corpus, utterances=utterances)
    make_plan(Recipe.from_dict(value), corpus, tmp_path / "run", Options(cache=cache), Silent())
    header = files.read_object(tmp_path / "run" / "data.json", RunError, "warnings")
    found = [w for w in header["warnings"] if "gender" in w]
    if said is None:
        assert found == []
    else:
        assert found == [
            f"{said} utterances lack the speaker's gender, and train emotion alone in spite of "
            "system.gender_weight 0.5"
        ]
