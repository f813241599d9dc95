"""One trial: which utterances do what, and that it can be killed at any file it writes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from emodarts.experiments.dataset import Dataset, load_dataset
from emodarts.systems.baselines import mean_features
from numpy.typing import NDArray

from emodarts import files
from emodarts.bundle import load_bundle
from emodarts.checkpoint import load_tensors
from emodarts.corpora import Corpus, load_corpus
from emodarts.errors import RunError
from emodarts.experiments import run as run_module
from emodarts.experiments import trial as trial_module
from emodarts.experiments.run import Options, run
from emodarts.experiments.trial import Trial, search_trial, train_trial
from emodarts.progress import Silent
from emodarts.recipe import Recipe
from emodarts.searching.derivation import random_genotype
from emodarts.splits import Parts, make_folds, make_parts
from emodarts.training.batches import Part, class_indices
from emodarts.training.loop import Trained, epoch_file

CPU = torch.device("cpu")
TIMED = ("environment.json", "search.safetensors", "training.safetensors")


@pytest.fixture(scope="module")
def corpus(tiny_emodb: Path) -> Corpus:
    return load_corpus("emodb", tiny_emodb)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def data(corpus: Corpus, tiny_recipe: Recipe, cache: Path) -> Dataset:
    return load_dataset(tiny_recipe, corpus, CPU, Silent(), cache=cache)[0]


@pytest.mark.parametrize("protocol", ["paper", "full"])
def test_each_part_is_used_for_what_its_name_says(
    corpus: Corpus,
    data: Dataset,
    tiny_recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    protocol: Any,
) -> None:
    """Normalised by the utterances that train the weights of the network at hand."""
    parts = make_parts(data.utterances, make_folds(corpus, "groups:3").folds[0], protocol, 0)
    used: dict[str, Part] = {}
    search, train = trial_module.search_genotype, trial_module.train_network

    def search_spy(spec: Any, network: Any, halves: Any, **how: Any) -> Any:
        used.update(search_weights=halves.weights, search_alphas=halves.alphas)
        return search(spec, network, halves, **how)

    def train_spy(network: Any, train_part: Part, validation: Part, *rest: Any, **how: Any) -> Any:
        used.update(train=train_part, validation=validation)
        return train(network, train_part, validation, *rest, **how)

    monkeypatch.setattr(trial_module, "search_genotype", search_spy)
    monkeypatch.setattr(trial_module, "train_network", train_spy)
    trial = Trial(tiny_recipe, 0, 0, parts, tmp_path, CPU)
    train_trial(trial, data, search_trial(trial, data, Silent()), Silent())
    for name, fitted_to in (
        ("search_weights", "search_weights"),
        ("search_alphas", "search_weights"),
        ("train", "train"),
        ("validation", "train"),
    ):
        indices = getattr(parts, name)
        fitted = data.features[list(getattr(parts, fitted_to))].double()
        mean, sd = fitted.mean(dim=(0, 3)), fitted.std(dim=(0, 3), correction=0)
        expected = (data.features[list(indices)] - mean[..., None]) / sd[..., None]
        torch.testing.assert_close(used[name].features, expected.float(), msg=name)
        assert torch.equal(used[name].targets, class_indices(data.labels(indices), data.classes)), (
            name
        )
    kept = load_bundle(tmp_path / "model").normalisation
    torch.testing.assert_close(kept.mean, mean.float())
    torch.testing.assert_close(kept.sd, sd.float())


def test_folds_and_seeds_draw_independently(tiny_recipe: Recipe, tmp_path: Path) -> None:
    nobody = Parts((), (), (), (), ())
    trials = [Trial(tiny_recipe, k, s, nobody, tmp_path, CPU) for k in (0, 1) for s in (0, 1)]
    assert len({trial.seed_of_fold for trial in trials}) == 4


def test_protocol_and_seed_make_the_parts(
    corpus: Corpus, data: Dataset, tiny_recipe: Recipe, cache: Path, tmp_path: Path
) -> None:
    value = tiny_recipe.to_dict()
    value["evaluation"] |= {"protocol": "paper", "folds": [1], "seeds": [0, 5]}
    options = Options(cache=cache, train=False)
    run(Recipe.from_dict(value), corpus, tmp_path / "run", options)
    written = files.read_json(tmp_path / "run" / "folds.json", RunError)
    fold = make_folds(corpus, "groups:3").folds[1]
    for entry, seed in zip(written["folds"], (0, 5), strict=True):
        parts = make_parts(data.utterances, fold, "paper", seed)
        assert entry == {"fold": 1, "seed": seed, **parts.names(data.utterances)}


def test_baselines_learn_from_the_training_fold_alone(
    corpus: Corpus, data: Dataset, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    folds = make_folds(corpus, "groups:3").folds
    means = mean_features(data.features, tiny_recipe.features)
    majority: list[list[str]] = []
    linear: list[tuple[NDArray[np.float64], list[str], NDArray[np.float64]]] = []

    def majority_spy(labels: list[str], n: int) -> list[str]:
        majority.append(labels)
        return ["anger"] * n

    def linear_spy(*asked: Any) -> list[str]:
        linear.append(asked)
        return ["anger"] * len(asked[2])

    monkeypatch.setattr(run_module, "majority_answer", majority_spy)
    monkeypatch.setattr(run_module, "logistic_regression", linear_spy)
    scores = run_module._baselines(tiny_recipe, data, folds)
    assert scores["majority"] == scores["logistic_regression"]
    for fold, labels, asked in zip(folds, majority, linear, strict=True):
        assert labels == asked[1] == data.labels(fold.development)
        np.testing.assert_array_equal(asked[0], means[list(fold.development)])
        np.testing.assert_array_equal(asked[2], means[list(fold.test)])


def test_the_optimistic_score_leaves_the_model_at_the_chosen_epoch(
    data: Dataset, tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes through the weights of all epochs; here the first one is chosen."""
    chosen: dict[str, torch.Tensor] = {}
    train = trial_module.train_network

    def choose_the_first(network: Any, *rest: Any, **how: Any) -> Trained:
        trained = train(network, *rest, **how)
        chosen.update(load_tensors(epoch_file(tmp_path, 1))[0])
        network.load_state_dict(chosen, strict=False)
        return Trained(1, trained.history)

    monkeypatch.setattr(trial_module, "train_network", choose_the_first)
    value = tiny_recipe.to_dict()
    value["training"] |= {"epochs": 2, "optimistic": True}
    train_rows, validation, test = (tuple(range(k, 72, 3)) for k in range(3))
    parts = Parts((), (), train_rows, validation, test)
    trial = Trial(Recipe.from_dict(value), 0, 0, parts, tmp_path, CPU)
    genotype = random_genotype(tiny_recipe.network, torch.Generator().manual_seed(0))
    train_trial(trial, data, genotype, Silent())
    saved = load_bundle(tmp_path / "model").network.model_state()
    assert saved.keys() == chosen.keys()
    for name, weights in chosen.items():
        assert torch.equal(saved[name], weights), name


def contents(out: Path) -> dict[Path, Any]:
    """What a run leaves, but for events and what holds times."""
    found: dict[Path, Any] = {}
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        name = path.relative_to(out)
        if name.name in ("search.csv", "training.csv"):
            rows = files.read_csv(path, RunError)
            found[name] = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
        elif "events" not in name.parts and name.name not in TIMED:
            found[name] = path.read_bytes()
    return found


def test_a_run_killed_at_every_file_it_writes_ends_as_one_never_killed(
    corpus: Corpus, tiny_recipe: Recipe, cache: Path, tmp_path: Path
) -> None:
    value = tiny_recipe.to_dict()
    value["search"] |= {"epochs": 2}
    value["training"] |= {"epochs": 2, "optimistic": True}
    value["evaluation"] |= {"folds": [0]}
    recipe = Recipe.from_dict(value)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    expected = run(recipe, corpus, whole, Options(cache=cache))

    class Killed(BaseException):
        pass

    write, stopped_at = files.write_bytes, set[Path]()

    def stop(path: Path, content: bytes) -> None:
        if killed in path.parents and path not in stopped_at:
            stopped_at.add(path)
            raise Killed
        write(path, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "write_bytes", stop)
        for _ in range(100):
            try:
                result = run(recipe, corpus, killed, Options(cache=cache, resume=killed.exists()))
                break
            except Killed:
                continue
    assert result == expected
    assert contents(killed) == contents(whole)
