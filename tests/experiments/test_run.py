"""Whole runs on tiny data: what is written, what leaks, what is refused."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from emodarts.audio.store import extract
from emodarts.batches import Part, class_indices
from emodarts.corpora import Corpus, load_corpus
from emodarts.errors import (
    AudioError,
    EmodartsError,
    GenotypeError,
    RecipeError,
    RunError,
    SplitError,
    TrainingError,
)
from emodarts.experiments.dataset import load_dataset
from emodarts.experiments.run import Options, _with_recorded_compute, run
from emodarts.experiments.trial import Trial, search_trial, train_trial
from emodarts.fast import Implementation
from emodarts.models.bundle import load_bundle
from emodarts.models.network import SearchedNetwork
from emodarts.progress import Silent
from emodarts.recipe import Recipe, load_recipe
from emodarts.searching.loop import SearchData, search_genotype
from emodarts.serving.predict import Model
from emodarts.space.genotype import Edge, Genotype
from emodarts.splits import make_folds, make_parts
from emodarts.training.loop import train_network

CPU = torch.device("cpu")


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
        heard = {n[:2] for part in ("train", "validation", "search_weights") for n in fold[part]}
        assert heard.isdisjoint({name[:2] for name in fold["test"]})


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
    value["training"] |= {"channels": 3}
    out = tmp_path / "run"
    start(Recipe.from_dict(value), corpus, out, tmp_path / "cache")
    model = Model.load(out / "fold-0" / "seed-0" / "model")
    assert model.bundle.network.spec.cnn.channels == 3
    paths = {u.name: u.path for u in corpus}
    with (out / "predictions.csv").open() as file:
        for row in csv.DictReader(file):
            heard = model.predict(paths[row["name"]])[0].probabilities
            assert heard == pytest.approx({c: float(row[f"p_{c}"]) for c in heard}, abs=1e-4)


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
        data, _ = load_dataset(
            tiny_recipe, load_corpus("emodb", folder), CPU, Silent(), cache=tmp_path / "cache"
        )
        digests.append(data.digest)
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


def test_test_utterances_decide_nothing(
    corpus: Corpus, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    """Other sound and other labels in the test fold leave genotype and weights bit by bit."""
    data, _ = load_dataset(tiny_recipe, corpus, CPU, Silent(), cache=tmp_path / "cache")
    fold = make_folds(corpus, "groups:3").folds[0]
    features = data.features.clone()
    features[list(fold.test)] = 100 * torch.randn_like(features[list(fold.test)])
    utterances = list(data.utterances)
    for i in fold.test:
        utterances[i] = dataclasses.replace(utterances[i], label="anger")
    other = dataclasses.replace(data, features=features, utterances=tuple(utterances))
    for protocol in ("paper", "full"):
        weights = []
        for name, variant in (("a", data), ("b", other)):
            parts = make_parts(variant.utterances, fold, protocol, 0)  # type: ignore[arg-type]
            folder = tmp_path / protocol / name
            trial = Trial(tiny_recipe, 0, 0, parts, folder, torch.device("cpu"))
            genotype = search_trial(trial, variant, Silent())
            train_trial(trial, variant, genotype, Silent())
            weights.append((folder / "model" / "model.safetensors").read_bytes())
            weights.append((folder / "genotype.json").read_bytes())
        assert weights[:2] == weights[2:]


def test_normalisation_comes_from_training_utterances_only(
    corpus: Corpus, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    data, _ = load_dataset(tiny_recipe, corpus, CPU, Silent(), cache=tmp_path / "cache")
    fold = make_folds(corpus, "groups:3").folds[0]
    parts = make_parts(data.utterances, fold, "full", 0)
    trial = Trial(tiny_recipe, 0, 0, parts, tmp_path / "t", torch.device("cpu"))
    train_trial(trial, data, search_trial(trial, data, Silent()), Silent())
    used = load_bundle(tmp_path / "t" / "model").normalisation
    train = data.features[list(parts.train)].double()
    torch.testing.assert_close(used.mean, train.mean(dim=(0, 3)).float())
    everybody = data.features.double().mean(dim=(0, 3)).float()
    assert not torch.allclose(used.mean, everybody)


@pytest.mark.parametrize(("asked", "recorded"), [(True, "compiled"), (False, "plain")])
def test_a_run_records_how_its_cells_are_computed(
    corpus: Corpus, tiny_recipe: Recipe, tmp_path: Path, asked: bool, recorded: Implementation
) -> None:
    if recorded == "compiled":
        pytest.importorskip("numba")
    changes = {"compute": {"device": "cpu", "threads": 1, "fast": asked}}
    changes["evaluation"] = {"split": "groups:3", "folds": [0]}
    changes["search"] = {**tiny_recipe.to_dict()["search"], "epochs": 1, "warmup_epochs": 0}
    recipe = Recipe.from_dict({**tiny_recipe.to_dict(), **changes})
    start(recipe, corpus, tmp_path / "run", tmp_path / "cache", train=False)
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["fast"] == recorded
    assert _with_recorded_compute(recipe, tmp_path / "run").compute.fast == asked


def resumed(recipe: Recipe, folder: Path, recorded: Implementation, **asked: bool) -> bool:
    """``compute.fast`` of a run that goes on."""
    environment = {"device": "cpu", "threads": 1, "fast": recorded}
    (folder / "environment.json").write_text(json.dumps(environment))
    changes = {"compute": {"device": "cpu", "threads": 1, **asked}}
    again = Recipe.from_dict({**recipe.to_dict(), **changes})
    return _with_recorded_compute(again, folder).compute.fast


@pytest.mark.parametrize(("recorded", "kept"), [("compiled", True), ("plain", False)])
def test_a_resumed_run_keeps_its_way_of_computing(
    tiny_recipe: Recipe, tmp_path: Path, recorded: Implementation, kept: bool
) -> None:
    if recorded == "compiled":
        pytest.importorskip("numba")
    assert resumed(tiny_recipe, tmp_path, recorded) is kept
    assert resumed(tiny_recipe, tmp_path, recorded, fast=kept) is kept
    names = (str(value).lower() for value in (kept, not kept))
    expected = r"begun with compute\.fast {}, .*leave compute\.fast {} out".format(*names)
    with pytest.raises(RunError, match=expected):
        resumed(tiny_recipe, tmp_path, recorded, fast=not kept)


def test_a_run_does_not_go_on_with_other_cells(tiny_recipe: Recipe, tmp_path: Path) -> None:
    """Of an installation where numba cannot be imported, on one where it can."""
    pytest.importorskip("numba")
    with pytest.raises(RunError, match=r"begun with 'torch' cells, .* has 'compiled' ones"):
        resumed(tiny_recipe, tmp_path, "torch")


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
    with pytest.raises(RunError, match="run of another recipe"):
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
    """Its search may have heard test speakers, and a resumed run must not mix two of them."""
    assert finished[1]["genotypes"] == "searched"
    genotype = Genotype.load(finished[0] / "fold-1" / "seed-0" / "genotype.json")
    out = tmp_path / "run"
    result = start(tiny_recipe, corpus, out, tmp_path, search=False, genotype=genotype)
    assert result["genotypes"] == "given"
    assert "may have heard test speakers" in result["warnings"][0]
    other = dataclasses.replace(
        genotype, normal=((Edge("avg_pool_3x3", 0), Edge("max_pool_3x3", 1)),)
    )
    with pytest.raises(RunError, match="holds other cells"):
        start(tiny_recipe, corpus, out, tmp_path, search=False, genotype=other, resume=True)
    with pytest.raises(RunError, match=r"begun without --all-data"):
        start(tiny_recipe, corpus, out, tmp_path, genotype=genotype, resume=True, all_data=True)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("data.json", "[]", "is not a JSON object"),
        ("environment.json", "{}", "has no device, threads"),
        ("fold-0/seed-0/result.json", "{}", "has no fold"),
        ("fold-0/seed-0/genotype.json", "{", "not JSON"),
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
    monkeypatch.setattr("emodarts.experiments.dataset.extract", None)
    evaluation = tiny_recipe.evaluation.model_copy(update={"split": "groups:7"})
    with pytest.raises(SplitError):
        start(tiny_recipe.model_copy(update={"evaluation": evaluation}), corpus, tmp_path, tmp_path)


def test_too_little_memory_is_explained(
    corpus: Corpus, tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhaust(*_: Any, **__: Any) -> None:
        torch.empty(2**60)

    monkeypatch.setattr("emodarts.experiments.run.search_trial", exhaust)
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
    with pytest.raises(RunError, match=r"begun with threads 1"):
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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["emodarts", "cnn-darts", "cnn-lstm-darts"])
def test_the_papers_recipes_search_and_train_at_full_width_on_real_files(
    name: str, emodb_root: Path, tmp_path: Path
) -> None:
    """Two search steps and two training steps; only the batch is smaller, to spare memory."""
    recipe = load_recipe(
        name,
        ["search.epochs=1", "search.batch_size=2", "training.epochs=1", "training.batch_size=2"],
    )
    corpus = load_corpus("emodb", emodb_root)
    chosen = [
        next(u for u in corpus if u.label == label and u.speaker == speaker)
        for speaker in ("03", "08")
        for label in ("anger", "happiness", "neutral", "sadness")
    ]
    extracted = extract(chosen, recipe.features, tmp_path / "features")
    assert extracted.features.shape == (8, 1, 128, 128)
    assert recipe.labels is not None
    features = (extracted.features - extracted.features.mean()) / extracted.features.std()
    targets = class_indices([u.label for u in extracted.utterances], recipe.labels)
    halves = Part(features[:4], targets[:4]), Part(features[4:], targets[4:])
    genotype = search_genotype(
        recipe.search,
        recipe.network,
        SearchData(*halves, 4),
        seed=0,
        folder=tmp_path,
        device=torch.device("cpu"),
        progress=Silent(),
    )
    assert all(len(cell) == 4 for cell in genotype.cells.values())
    alphas = json.loads((tmp_path / "alphas.json").read_text())[0]["alphas"]
    assert all(np.isfinite(alphas[cell]).all() for cell in alphas)
    network = SearchedNetwork(genotype, recipe.trained_network, 128, 4, auxiliary=True)
    trained = train_network(
        network, *halves, recipe.training, 4, seed=0, folder=tmp_path, progress=Silent()
    )
    assert np.isfinite(trained.history[0]["train_loss"])
