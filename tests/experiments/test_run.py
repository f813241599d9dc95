"""Whole runs on tiny data: what is written, what leaks, what is refused."""

import csv
import dataclasses
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from emodarts.bundle import load_bundle
from emodarts.corpora import Corpus, load_corpus
from emodarts.dataset import fill_store
from emodarts.errors import (
    AudioError,
    EmodartsError,
    GenotypeError,
    RecipeError,
    RunError,
    SplitError,
    TrainingError,
)
from emodarts.experiments.local import side_by_side
from emodarts.experiments.run import Options, run
from emodarts.experiments.spec import TrialSpec
from emodarts.genotype import Edge, Genotype
from emodarts.progress import Silent
from emodarts.recipe import Recipe, load_recipe
from emodarts.serving.model import Model

CPU = torch.device("cpu")


def only_fold(recipe: Recipe, folds: tuple[int, ...] = (0,)) -> Recipe:
    evaluation = recipe.evaluation.model_copy(update={"folds": folds})
    return recipe.model_copy(update={"evaluation": evaluation})


def start(recipe: Recipe, corpus: Corpus, out: Path, cache: Path, **options: Any) -> dict[str, Any]:
    return run(recipe, corpus, out, Options(cache=cache, **options))


@pytest.fixture(scope="session")
def corpus(tiny_emodb: Path) -> Corpus:
    return load_corpus("emodb", tiny_emodb)


@pytest.fixture(scope="session")
def finished(
    corpus: Corpus, tiny_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("finished")
    recipe = tiny_recipe.model_copy(
        update={"training": tiny_recipe.training.model_copy(update={"optimistic": True})}
    )
    return folder / "run", start(recipe, corpus, folder / "run", folder / "cache")


def test_result_holds_every_promised_field(finished: tuple[Path, dict[str, Any]]) -> None:
    out, result = finished
    assert json.loads((out / "result.json").read_text()) == result
    promised = "ua wa macro_f1 confusion classes n_test parameters multiply_adds protocol folds"
    assert set(promised.split()) <= set(result)
    assert all(0 <= result[key] <= 1 for key in ("ua", "wa", "macro_f1"))
    assert result["n_test"] == 72
    assert np.sum(result["confusion"]) == 72
    assert result["baselines"]["chance"]["ua"] == 0.25
    assert result["baselines"]["majority"]["ua"] == pytest.approx(0.25)
    assert 0.25 <= result["baselines"]["logistic_regression"]["ua"] <= 1
    assert result["definitions"]["ua"].startswith("UA: unweighted accuracy")


def test_every_utterance_is_tested_exactly_once(
    finished: tuple[Path, dict[str, Any]], corpus: Corpus
) -> None:
    out, _ = finished
    with (out / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["name"] for row in rows) == [u.name for u in corpus]
    for row in rows:
        assert sum(float(row[f"p_{c}"]) for c in corpus.classes) == pytest.approx(1)
    folds = json.loads((out / "folds.json").read_text())["folds"]
    for fold in folds:
        found = {n[:2] for part in ("train", "validation", "search_weights") for n in fold[part]}
        assert found.isdisjoint({name[:2] for name in fold["test"]})


def test_the_run_directory_is_complete_and_its_models_load(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    out, result = finished
    for name in ("recipe.yaml", "data.json", "utterances.csv", "environment.json", "folds.json"):
        assert (out / name).stat().st_size > 0
    environment = json.loads((out / "environment.json").read_text())
    assert environment["threads"] >= 1
    assert environment["packages"]["torch"] == torch.__version__
    for fold in result["folds"]:
        trial = out / f"fold-{fold['fold']}" / "seed-0"
        for name in (
            "search.csv",
            "alphas.json",
            "search.safetensors",
            "genotype.json",
            "training.csv",
            "training.safetensors",
            "predictions.csv",
            "result.json",
        ):
            assert (trial / name).stat().st_size > 0
        assert list((trial / "events").iterdir())
        bundle = load_bundle(trial / "model")
        assert bundle.genotype == Genotype.load(trial / "genotype.json")
        assert bundle.origin["fold"] == fold["fold"]
    assert not list(out.rglob("*.pt"))
    assert not list(out.rglob("*.pkl"))
    assert not list(out.rglob(".*"))  # no temporary file is left


def test_the_saved_model_gives_the_scored_predictions_and_has_the_asked_width(
    corpus: Corpus, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    value = tiny_recipe.to_dict()
    value["evaluation"]["folds"] = [0]
    value["system"] |= {"channels": 3}
    out = tmp_path / "run"
    start(Recipe.from_dict(value), corpus, out, tmp_path / "cache")
    model = Model.load(out / "fold-0" / "seed-0" / "model")
    assert model.bundle.fitted.network.spec.cnn.channels == 3
    paths = {u.name: u.path for u in corpus}
    with (out / "predictions.csv").open() as file:
        for row in csv.DictReader(file):
            found = model.predict(paths[row["name"]])[0].probabilities
            assert found == pytest.approx({c: float(row[f"p_{c}"]) for c in found}, abs=1e-4)


def test_labels_choose_the_classes_and_their_order(
    corpus: Corpus, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    recipe = tiny_recipe.model_copy(update={"labels": ("sadness", "anger")})
    result = start(recipe, corpus, tmp_path / "run", tmp_path / "cache")
    assert result["classes"] == ["sadness", "anger"]
    assert result["n_test"] == 36
    assert load_bundle(tmp_path / "run" / "fold-0" / "seed-0" / "model").classes == (
        "sadness",
        "anger",
    )


def test_the_data_digest_covers_the_sound(
    tiny_emodb: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    folder = tmp_path / "corpus"
    shutil.copytree(tiny_emodb, folder)
    digests = []
    for gain in (1.0, 0.5):
        path = folder / "03a01Wa.wav"
        soundfile.write(path, gain * soundfile.read(path)[0], 8000)
        corpus = load_corpus("emodb", folder)
        listing, _ = fill_store(tiny_recipe, corpus, tmp_path / "store", CPU, Silent())
        digests.append(listing.digest)
    assert digests[0] != digests[1]


def test_the_optimistic_score_is_apart_and_marked(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    out, result = finished
    values = json.loads((out / "optimistic.json").read_text())
    assert values["test_ua_of_best_test_epoch"] >= result["ua"]
    assert "optimistic" in values["warning"]
    assert "optimistic" not in json.dumps(result)
    assert not (out / "fold-0" / "seed-0" / "epochs").exists()


def test_seeds_and_folds_can_be_chosen(corpus: Corpus, tiny_recipe: Recipe, tmp_path: Path) -> None:
    evaluation = tiny_recipe.evaluation.model_copy(update={"folds": (2,), "seeds": (1, 3)})
    recipe = tiny_recipe.model_copy(update={"evaluation": evaluation})
    result = start(recipe, corpus, tmp_path / "run", tmp_path / "cache")
    assert [f["fold"] for f in result["folds"]] == [2]
    assert [s["seed"] for s in result["folds"][0]["seeds"]] == [1, 3]
    assert result["ua_sd_folds"] is None
    assert result["ua_sd_seeds"] is not None
    assert "not all folds ran: 1 of 3" in result["warnings"][0]


@pytest.mark.parametrize(
    "seqnn",
    [{"mode": "none"}, {"mode": "fixed", "recurrent": "lstm", "width": 5, "attention": True}],
    ids=lambda s: s["mode"],
)
def test_systems_of_the_first_paper_are_recipes(
    corpus: Corpus, tiny_recipe: Recipe, tmp_path: Path, seqnn: dict[str, Any]
) -> None:
    value = tiny_recipe.to_dict()
    value["network"]["seqnn"] = seqnn
    value["evaluation"] |= {"folds": [0], "seeds": [2]}
    result = start(Recipe.from_dict(value), corpus, tmp_path / "run", tmp_path / "cache")
    assert result["folds"][0]["seeds"][0]["genotype"]["sequence"] is None


def test_a_genotype_can_be_trained_for_deployment(
    corpus: Corpus, tiny_recipe: Recipe, tmp_path: Path, finished: tuple[Path, dict[str, Any]]
) -> None:
    genotype = Genotype.load(finished[0] / "fold-1" / "seed-0" / "genotype.json")
    out = tmp_path / "deploy"
    start(tiny_recipe, corpus, out, tmp_path, search=False, genotype=genotype, all_data=True)
    bundle = load_bundle(out / "seed-0" / "model")
    assert bundle.genotype == genotype
    assert bundle.origin["fold"] is None
    assert not (out / "result.json").exists()
    folds = json.loads((out / "folds.json").read_text())["folds"]
    assert folds[0]["test"] == []
    assert len(folds[0]["train"]) + len(folds[0]["validation"]) == len(corpus)


def test_the_halves_make_the_whole(corpus: Corpus, tiny_recipe: Recipe, tmp_path: Path) -> None:
    whole = start(tiny_recipe, corpus, tmp_path / "whole", tmp_path)
    with pytest.raises(RunError, match="no genotype to train"):
        start(tiny_recipe, corpus, tmp_path / "halves", tmp_path, search=False)
    assert not (tmp_path / "halves").exists()
    start(tiny_recipe, corpus, tmp_path / "halves", tmp_path, train=False)
    halves = start(tiny_recipe, corpus, tmp_path / "halves", tmp_path, search=False, resume=True)
    assert halves == whole


def test_a_directory_in_use_is_refused(
    corpus: Corpus, tiny_recipe: Recipe, tmp_path: Path, finished: tuple[Path, dict[str, Any]]
) -> None:
    out, _ = finished
    with pytest.raises(RunError, match="not empty; give --resume"):
        start(tiny_recipe, corpus, out, tmp_path)
    changed = tiny_recipe.model_copy(
        update={"search": tiny_recipe.search.model_copy(update={"epochs": 9})}
    )
    with pytest.raises(RunError, match=r"search.epochs is 3 there and 9 here"):
        start(changed, corpus, out, tmp_path, resume=True)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("mine")
    with pytest.raises(RunError, match="holds no run"):
        start(tiny_recipe, corpus, foreign, tmp_path, resume=True)
    with pytest.raises(RunError, match="is a file"):
        start(tiny_recipe, corpus, foreign / "thesis.tex", tmp_path)


def test_a_given_genotype_is_no_searched_one(
    corpus: Corpus, tiny_recipe: Recipe, tmp_path: Path, finished: tuple[Path, dict[str, Any]]
) -> None:
    """Its search may have used test speakers, and a resumed run must not mix two of them."""
    assert finished[1]["genotypes"] == "searched"
    genotype = Genotype.load(finished[0] / "fold-1" / "seed-0" / "genotype.json")
    out = tmp_path / "run"
    result = start(tiny_recipe, corpus, out, tmp_path, search=False, genotype=genotype)
    assert result["genotypes"] == "given"
    assert "may have used test speakers" in result["warnings"][0]
    other = dataclasses.replace(
        genotype, normal=((Edge("avg_pool_3x3", 0), Edge("max_pool_3x3", 1)),)
    )
    with pytest.raises(RunError, match="holds other cells"):
        start(tiny_recipe, corpus, out, tmp_path, search=False, genotype=other, resume=True)
    with pytest.raises(RunError, match="begun without --all-data"):
        start(tiny_recipe, corpus, out, tmp_path, genotype=genotype, resume=True, all_data=True)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("data.json", "[]", "is not a JSON object"),
        ("environment.json", "{}", "has no device"),
        ("fold-0/seed-0/result.json", "{}", "has no fold"),
        ("folds.json", "{", "not JSON"),
    ],
)
def test_a_broken_file_of_a_run_is_named(
    corpus: Corpus,
    tmp_path: Path,
    finished: tuple[Path, dict[str, Any]],
    name: str,
    text: str,
    message: str,
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished[0], out)
    (out / name).write_text(text)
    with pytest.raises(EmodartsError, match=message) as caught:
        start(load_recipe(out / "recipe.yaml"), corpus, out, tmp_path, resume=True)
    assert name in str(caught.value)


def test_a_class_without_usable_audio_cannot_be_skipped(
    tiny_emodb: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    folder = tmp_path / "corpus"
    shutil.copytree(tiny_emodb, folder)
    for path in folder.glob("*T?.wav"):
        path.write_bytes(b"")
    with pytest.raises(AudioError, match="no utterance of class sadness has usable audio"):
        start(tiny_recipe, load_corpus("emodb", folder), tmp_path / "run", tmp_path, skip_bad=True)
    assert not (tmp_path / "run").exists()


def test_bad_folds_are_refused_before_any_audio_is_read(
    corpus: Corpus, tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emodarts.experiments.plan.fill_store", None)
    evaluation = tiny_recipe.evaluation.model_copy(update={"split": "groups:7"})
    with pytest.raises(SplitError):
        start(tiny_recipe.model_copy(update={"evaluation": evaluation}), corpus, tmp_path, tmp_path)


def test_too_little_memory_is_explained(
    corpus: Corpus, tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhaust(*_: Any, **__: Any) -> None:
        torch.empty(2**60)

    monkeypatch.setattr("emodarts.systems.searched.Searched.search", exhaust)
    with pytest.raises(TrainingError, match="does not fit in memory; lower"):
        start(tiny_recipe, corpus, tmp_path / "run", tmp_path)


def test_a_resumed_run_keeps_its_device_and_threads(
    corpus: Corpus, tmp_path: Path, finished: tuple[Path, dict[str, Any]]
) -> None:
    out, result = finished
    recipe = load_recipe(out / "recipe.yaml", ["compute={device: auto}"])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert start(recipe, corpus, out, tmp_path, resume=True) == result
        assert torch.get_num_threads() == 1  # as recorded
    finally:
        torch.set_num_threads(before)
    more = load_recipe(out / "recipe.yaml", ["compute.threads=2"])
    with pytest.raises(RunError, match="begun with threads 1"):
        start(more, corpus, out, tmp_path, resume=True)


def test_a_resumed_run_sweeps_up_what_a_killed_one_was_writing(
    corpus: Corpus, tmp_path: Path, finished: tuple[Path, dict[str, Any]]
) -> None:
    out, _ = finished
    leftover = out / "fold-0" / "seed-0" / f".search.csv.{'0' * 32}"
    own = out / ".notes"
    leftover.write_text("half")
    own.write_text("mine")
    start(load_recipe(out / "recipe.yaml"), corpus, out, tmp_path, resume=True)
    assert not leftover.exists()
    assert own.exists()
    own.unlink()


def test_other_data_is_refused_on_resume(
    corpus: Corpus, tiny_recipe: Recipe, tmp_path: Path, finished: tuple[Path, dict[str, Any]]
) -> None:
    out, _ = finished
    recipe = load_recipe(out / "recipe.yaml")
    less = dataclasses.replace(corpus, utterances=corpus.utterances[1:])
    with pytest.raises(RunError, match="run on other data"):
        start(recipe, less, out, tmp_path, resume=True)
    relabelled = dataclasses.replace(
        corpus.utterances[0],
        label="sadness" if corpus.utterances[0].label != "sadness" else "anger",
    )
    changed = dataclasses.replace(corpus, utterances=(relabelled, *corpus.utterances[1:]))
    with pytest.raises(RunError, match="run on other data"):
        start(recipe, changed, out, tmp_path, resume=True)


def test_a_finished_run_resumes_to_itself(
    corpus: Corpus, tmp_path: Path, finished: tuple[Path, dict[str, Any]]
) -> None:
    out, result = finished
    models = {p: p.read_bytes() for p in out.rglob("model.safetensors")}
    recipe = load_recipe(out / "recipe.yaml")
    assert start(recipe, corpus, out, tmp_path, resume=True) == result
    assert {p: p.read_bytes() for p in out.rglob("model.safetensors")} == models


def test_bad_audio_stops_a_run_before_it_writes_anything(
    tiny_emodb: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for path in tiny_emodb.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    names = sorted(p.name for p in folder.iterdir())
    (folder / names[0]).write_bytes(b"")
    (folder / names[1]).write_text("not a sound")
    soundfile.write(folder / names[2], np.zeros(8000), 8000)
    corpus = load_corpus("emodb", folder)
    with pytest.raises(AudioError) as caught:
        start(tiny_recipe, corpus, tmp_path / "run", tmp_path)
    assert "3 of 72" in str(caught.value)
    assert all(name.removesuffix(".wav") in str(caught.value) for name in names[:3])
    assert not (tmp_path / "run").exists()
    result = start(tiny_recipe, corpus, tmp_path / "run", tmp_path, skip_bad=True)
    assert result["n_test"] == 69
    assert "3 utterances with unusable audio were left out" in result["warnings"][0]
    bad = json.loads((tmp_path / "run" / "data.json").read_text())["bad"]
    assert [name for name, _ in bad] == [n.removesuffix(".wav") for n in names[:3]]


def test_what_cannot_work_is_refused_before_anything_is_written(
    corpus: Corpus, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    def changed(**values: Any) -> Recipe:
        evaluation = tiny_recipe.evaluation.model_copy(update=values)
        return tiny_recipe.model_copy(update={"evaluation": evaluation})

    without = Genotype.from_dict(
        {
            "format": "emodarts.genotype/1",
            "normal": [[["max_pool_3x3", 0], ["skip_connect", 1]]],
            "reduction": [[["max_pool_3x3", 0], ["skip_connect", 1]]],
        }
    )
    for recipe, options, error, message in [
        (changed(split="groups:7"), {}, SplitError, "groups:2 to groups:6"),
        (changed(folds=(5,)), {}, RecipeError, "no fold 5.*folds 0, 1, 2"),
        (tiny_recipe, {"genotype": without}, GenotypeError, "no sequence cell"),
    ]:
        with pytest.raises(error, match=message):
            start(recipe, corpus, tmp_path / "run", tmp_path / "cache", **options)
    assert not (tmp_path / "run").exists()


def test_trials_side_by_side_give_the_bits_of_trials_in_turn(
    corpus: Corpus, tiny_recipe: Recipe, cache: Path, tmp_path: Path
) -> None:
    recipe = only_fold(tiny_recipe, folds=(0, 1))
    start(recipe, corpus, tmp_path / "turn", cache)
    start(recipe, corpus, tmp_path / "side", cache, jobs=2)
    names = ("result.json", "predictions.csv", "fold-1/seed-0/model/model.safetensors")
    for name in (*names, "fold-1/seed-0/alphas.json"):
        assert (tmp_path / "side" / name).read_bytes() == (tmp_path / "turn" / name).read_bytes()


def test_candidates_of_one_search_side_by_side_give_the_bits_of_those_in_turn(
    corpus: Corpus,
    tiny_recipe: Recipe,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    value = tiny_recipe.to_dict()
    rounds = [[3, 1], [2, 2]]
    value["search"] = {"strategy": "halving", "rounds": rounds, "inner_folds": 2, "epochs": 1}
    recipe = only_fold(Recipe.from_dict(value), folds=(0,))
    start(recipe, corpus, tmp_path / "turn", cache)
    processes: list[int] = []

    def counted(trials: Sequence[TrialSpec], jobs: int) -> Iterator[TrialSpec]:
        processes.append(len(trials))
        return side_by_side(trials, jobs)

    monkeypatch.setattr("emodarts.experiments.trial.side_by_side", counted)
    start(recipe, corpus, tmp_path / "side", cache, jobs=2)
    assert processes == [3, 2]  # what the first round trained is not trained again
    for name in ("result.json", "predictions.csv", "fold-0/seed-0/halving.json"):
        assert (tmp_path / "side" / name).read_bytes() == (tmp_path / "turn" / name).read_bytes()
    monkeypatch.undo()
    value["training"]["learning_rate"] = 1e30
    with pytest.raises(TrainingError, match=r"candidate of fold 0 seed 0: .* is (nan|inf)"):
        start(only_fold(Recipe.from_dict(value), (0,)), corpus, tmp_path / "run", cache, jobs=2)


def test_the_first_error_of_trials_side_by_side_is_raised_as_itself(
    corpus: Corpus, tiny_recipe: Recipe, cache: Path, tmp_path: Path
) -> None:
    value = tiny_recipe.to_dict()
    value["search"]["weights"] |= {"learning_rate": 1e30, "learning_rate_min": 0.0}
    recipe = only_fold(Recipe.from_dict(value), folds=(0, 1))
    with pytest.raises(TrainingError, match=r"fold [01] seed 0: search epoch \d, .* is (nan|inf)"):
        start(recipe, corpus, tmp_path / "run", cache, jobs=2)


@pytest.mark.parametrize("jobs", [0, -1])
def test_a_number_of_jobs_that_cannot_be_is_refused(
    corpus: Corpus, tiny_recipe: Recipe, cache: Path, tmp_path: Path, jobs: int
) -> None:
    with pytest.raises(RecipeError, match=f"--jobs {jobs}; allowed: at least 1, or auto"):
        start(tiny_recipe, corpus, tmp_path / "run", cache, jobs=jobs)


def test_a_system_without_a_search_has_no_halves(
    corpus: Corpus, tiny_recipe: Recipe, cache: Path, tmp_path: Path
) -> None:
    value = {"features": tiny_recipe.features.model_dump(), "system": {"kind": "svm"}}
    recipe = Recipe.from_dict(value)
    with pytest.raises(RecipeError, match="system 'svm' searches no genotype"):
        start(recipe, corpus, tmp_path / "run", cache, train=False)
    assert not (tmp_path / "run").exists()


# --- the default recipe: nothing to search, several networks ---


@pytest.fixture(scope="module")
def plain_recipe() -> Recipe:
    changes = ["features.duration=1.0", "training.crop=0.5", "training.epochs=2"]
    changes += ["training.ensemble=2", "evaluation.split=groups:3", "evaluation.folds=[0,1]"]
    return load_recipe("default", [*changes, "compute.threads=1", "compute.device=cpu"])


@pytest.fixture(scope="module")
def together(
    plain_recipe: Recipe, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("together")
    return folder / "run", start(plain_recipe, corpus, folder / "run", folder / "cache")


def test_a_network_without_cells_has_no_genotype_to_warn_of(
    together: tuple[Path, dict[str, Any]],
) -> None:
    out, result = together
    assert result["genotypes"] is None
    assert result["warnings"] == ["not all folds ran: 2 of 3"]
    assert all(
        entry["validation"] == [] for entry in json.loads((out / "folds.json").read_text())["folds"]
    )


def test_one_network_of_an_ensemble_is_scored_beside_it(
    together: tuple[Path, dict[str, Any]],
) -> None:
    out, result = together
    single = result["single_network"]
    trials = [json.loads((out / f"fold-{k}/seed-0/result.json").read_text()) for k in (0, 1)]
    assert single["networks"] == 2
    folds = [np.mean([m["ua"] for m in t["members"]]) for t in trials]
    assert single["ua"] == pytest.approx(np.mean(folds))
    assert single["ua_sd_folds"] == pytest.approx(np.std(folds, ddof=1))
    networks = [np.mean([t["members"][k]["ua"] for t in trials]) for k in (0, 1)]
    assert single["ua_sd_seeds"] == pytest.approx(np.std(networks, ddof=1))
    assert "members" not in result["folds"][0]["seeds"][0]


def test_the_first_network_of_an_ensemble_is_the_one_that_is_trained_alone(
    together: tuple[Path, dict[str, Any]], plain_recipe: Recipe, corpus: Corpus, tmp_path: Path
) -> None:
    training = plain_recipe.training.model_copy(update={"ensemble": 1})
    alone = only_fold(plain_recipe.model_copy(update={"training": training}))
    result = start(alone, corpus, tmp_path / "run", tmp_path / "cache")
    first = json.loads((together[0] / "fold-0/seed-0/result.json").read_text())["members"][0]
    assert first["ua"] == result["folds"][0]["ua"]


def test_it_trains_for_deployment_without_a_genotype(
    plain_recipe: Recipe, corpus: Corpus, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    start(plain_recipe, corpus, out, tmp_path / "cache", search=False, all_data=True)
    model = Model.load(out / "seed-0" / "model")
    assert model.bundle.origin["parameters"] > 2 * 100_000
    with pytest.raises(RecipeError, match=r"recipe 'default'.*searches no genotype"):
        start(plain_recipe, corpus, tmp_path / "other", tmp_path / "cache", train=False)


def test_a_choice_of_the_epoch_on_few_utterances_is_warned_of(
    tiny_recipe: Recipe, corpus: Corpus, tmp_path: Path
) -> None:
    training = tiny_recipe.training.model_copy(update={"select": "ua", "epochs": 1})
    search = {"strategy": "random"}
    value = {
        **tiny_recipe.to_dict(),
        "search": search,
        "training": training.model_dump(mode="json"),
    }
    result = start(only_fold(Recipe.from_dict(value)), corpus, tmp_path / "run", tmp_path / "cache")
    assert any("chosen on as few as" in warning for warning in result["warnings"])
