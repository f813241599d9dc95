"""Settings and inner folds of networks in lockstep, and that they learn."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from emodarts.audio.features import band_frequencies
from emodarts.corpora.utterance import Utterance
from emodarts.dataset import Dataset, Listing, Maps
from emodarts.errors import RecipeError, SplitError
from emodarts.training.batches import predict_logits
from emodarts.training.classifier import Ensemble
from emodarts.training.views import Hearing

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from lockstep import Training, in_groups, make_trials, parse_setting, scores
from stacked import build

SMALL = (
    "features.n_mels=16",
    "network.stem={channels: [4, 8], frequency_strides: [2, 2], time_strides: [2, 2]}",
    "network.projection=8",
    "network.seqnn.width=8",
    "training={epochs: 15, batch_size: 4, optimiser: adamw, learning_rate: 0.02, crop: 0.2}",
)


def corpus() -> Dataset:
    """Four groups of four utterances: class ``b`` is louder in the upper bands."""
    rows = [Utterance(f"{g}{k}", Path(), "ab"[k % 2], f"s{g}") for g in range(4) for k in range(4)]
    features = 0.5 * torch.randn(16, 1, 16, 20, generator=torch.Generator().manual_seed(0))
    features[1::2, :, 8:] += 2.0
    features[::3, ..., 15:] = torch.nan
    listing = Listing("made", "", ("a", "b"), tuple(rows), ("",) * 16, ("",) * 16, {})
    return Dataset(listing, {"features": Maps(features)})


GROUPS = [tuple(range(4 * g, 4 * g + 4)) for g in range(4)]


def test_a_setting_changes_its_keys_alone() -> None:
    _, base = parse_setting("base", "default", SMALL)
    name, changed = parse_setting("x:dropout=0.3,speed=[0.9,1.1],time_masks=2", "default", SMALL)
    assert name == "x"
    assert changed.network.dropout == 0.3
    assert changed.training.perturbation.speed == (0.9, 1.1)
    assert changed.training.masks.time_masks == 2
    assert changed.network.model_copy(update={"dropout": base.network.dropout}) == base.network
    assert changed.features == base.features


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x:weight_decy=1", "did you mean 'weight_decay'"),
        ("x:epochs=3", "allowed: KEY=VALUE with dropout, .*, or SECTION.KEY=VALUE"),
        ("x:training.epoch=3", "did you mean 'epochs'"),
        ("x:dropout", "allowed: KEY=VALUE"),
        ("x:speed=[2,1]", "training.perturbation.speed"),
    ],
)
def test_a_wrong_setting_is_refused(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message.replace("[", r"\[")):
        parse_setting(text, "default", SMALL)


def test_settings_train_together_unless_more_than_their_keys_differ() -> None:
    texts = (
        "base",
        "long:training.epochs=30",
        "speed:speed=[0.9,1.1]",
        "none:network.seqnn={mode: none}",
        "longer:training.epochs=30,dropout=0.2,equaliser=0.1",
        "smooth:label_smoothing=0.2",
    )
    settings = [parse_setting(text, "default", SMALL) for text in texts]
    groups = [[name for name, _ in group] for group in in_groups(settings, 2)]
    assert groups == [["base", "speed"], ["smooth"], ["long", "longer"], ["none"]]


def test_answers_are_those_of_a_run_at_several_speeds() -> None:
    setting = parse_setting("x:training.test_speeds=[0.8,1.0,1.1]", "default", SMALL)
    data = corpus()
    trials = make_trials(data, [setting], GROUPS, 2)
    training = Training(data, trials, torch.device("cpu"))
    training.run()
    for k, (trial, answer) in enumerate(zip(trials, training.answers(), strict=True)):
        network = build(trial.recipe, 2, 0)
        network.load_state_dict(
            {
                name: tensor[k]
                for name, tensor in (training.stack.parameters | training.stack.buffers).items()
            }
        )
        bands = band_frequencies(trial.recipe.features)
        assert bands is not None
        together = Ensemble([network], Hearing(trial.recipe.training.test_speeds, bands))
        maps = data.maps["features"].features[list(trial.judged)]
        normalised = data.normalisation(trial.train).apply(maps)
        expected = torch.cat([predict_logits(together, row[None]) for row in normalised])
        torch.testing.assert_close(answer, expected.log_softmax(1), atol=1e-5, rtol=0)


def test_the_test_group_neither_trains_nor_judges() -> None:
    settings = [parse_setting(text, "default", SMALL) for text in ("base", "x:dropout=0")]
    trials = make_trials(corpus(), settings, GROUPS, 3)
    assert len({(t.setting, t.seed, t.fold) for t in trials}) == len(trials) == 2 * 3 * 4
    for trial in trials:
        test, judged = set(GROUPS[trial.fold]), set(trial.judged)
        assert judged in [set(g) for g in GROUPS]
        assert set(trial.train) == set(range(16)) - test - judged
        assert not test & judged


def test_two_groups_leave_none_to_train() -> None:
    settings = [parse_setting("base", "default", SMALL)]
    with pytest.raises(SplitError, match="training in inner fold 0 has no utterance of class a, b"):
        make_trials(corpus(), settings, GROUPS[:2], 1)


class NoReading(TorchDispatchMode):
    """Refuses what waits for a number of the device, which a CUDA graph cannot record."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in (
            torch.ops.aten._local_scalar_dense.default,
            torch.ops.aten.nonzero.default,
        )
        return func(*args, **(kwargs or {}))


def test_steps_can_be_a_graph() -> None:
    changes = "speed=[0.9,1.1],mix_statistics=0.5,dropout=0.2,time_masks=1,time_width=3"
    texts = ("base", f"x:{changes},equaliser=0.3")
    settings = [parse_setting(text, "default", SMALL) for text in texts]
    training = Training(corpus(), make_trials(corpus(), settings, GROUPS, 1), torch.device("cpu"))
    with NoReading():
        training.run()
    with NoReading(), pytest.raises(AssertionError):
        training.right.sum().item()


def test_networks_learn() -> None:
    """Both classes are told apart at a rate, and at hardly any rate they are not."""
    texts = ("base", "slow:learning_rate=1e-9,speed=[0.9,1.1],mix_statistics=0.5,dropout=0.2")
    settings = [parse_setting(text, "default", SMALL) for text in texts]
    training = Training(corpus(), make_trials(corpus(), settings, GROUPS, 2), torch.device("cpu"))
    before = {k: p.clone() for k, p in training.stack.parameters.items()}
    training.run()
    found = scores(training)
    assert found["base"]["ua"] > 0.9
    assert found["base"]["training_accuracy"] > 0.9
    slow = torch.tensor([t.setting == "slow" for t in training.trials])
    for name, p in training.stack.parameters.items():
        moved = (p - before[name]).abs().flatten(1).amax(1)
        assert moved[slow].max() < 1e-5
        assert moved[~slow].min() > 1e-4
