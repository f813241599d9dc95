"""Whole runs with bfloat16 maps: what is recorded, resumed and refused, and what stays float32."""

import csv
import json
from collections import Counter
from pathlib import Path

import pytest
from safetensors.torch import load_file

from commands import emodarts
from emodarts import files
from emodarts.corpora import Corpus, load_corpus
from emodarts.errors import RecipeError, RunError
from emodarts.experiments.compute import settle_compute
from emodarts.experiments.plan import Options
from emodarts.experiments.run import run
from emodarts.layout import RunFolder
from emodarts.recipe import Recipe, load_recipe
from emodarts.serving.model import Model

FIRST_ORDER = ["search.order=1", "evaluation.folds=[0]"]


@pytest.fixture(scope="module")
def corpus(tiny_emodb: Path) -> Corpus:
    return load_corpus("emodb", tiny_emodb)


@pytest.fixture(scope="module")
def recipe(tiny_recipe_file: Path) -> Recipe:
    return load_recipe(tiny_recipe_file, [*FIRST_ORDER, "compute.precision=bf16"])


@pytest.fixture(scope="module")
def finished(
    corpus: Corpus, recipe: Recipe, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("bf16") / "run"
    run(recipe, corpus, out, Options(cache=cache))
    return out


def tensors_and_scores(out: Path) -> list[bytes]:
    trial = out / "fold-0" / "seed-0"
    names = ("genotype.json", "alphas.json", "predictions.csv", "model/model.safetensors")
    return [(trial / name).read_bytes() for name in names] + [(out / "result.json").read_bytes()]


def test_weights_are_float32_and_test_scores_are_those_of_the_float32_model(
    finished: Path, corpus: Corpus
) -> None:
    environment = json.loads((finished / "environment.json").read_text())
    assert (environment["precision"], environment["cells"]) == ("bf16", "torch")
    trial = finished / "fold-0" / "seed-0"
    for name in ("model/model", "search", "training"):
        tensors = load_file(trial / f"{name}.safetensors")
        assert not [t.dtype for t in tensors.values() if t.dtype.itemsize == 2]
    model = Model.load(trial / "model")
    paths = {u.name: u.path for u in corpus}
    with (finished / "predictions.csv").open() as file:
        for row in list(csv.DictReader(file))[:4]:
            heard = model.predict(paths[row["name"]])[0].probabilities
            assert heard == pytest.approx({c: float(row[f"p_{c}"]) for c in heard}, abs=1e-4)


def test_it_is_another_result_than_that_of_float32(
    finished: Path, corpus: Corpus, cache: Path, tiny_recipe_file: Path, tmp_path: Path
) -> None:
    run(load_recipe(tiny_recipe_file, FIRST_ORDER), corpus, tmp_path / "run", Options(cache=cache))
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["precision"] == "fp32"
    alphas = [
        json.loads((out / "fold-0" / "seed-0" / "alphas.json").read_text())[-1]["alphas"]["normal"]
        for out in (finished, tmp_path / "run")
    ]
    assert alphas[0] != alphas[1]


def test_a_killed_run_ends_as_one_never_killed(
    finished: Path, corpus: Corpus, cache: Path, tiny_recipe_file: Path, tmp_path: Path
) -> None:
    """Killed once in the search and once in the training; resumed without the option."""
    killed = tmp_path / "killed"

    class Killed(BaseException):
        pass

    write, writes = files.write_bytes, Counter[str]()

    def stop(path: Path, content: bytes) -> None:
        writes[path.name] += 1
        if path.name in ("search.safetensors", "training.safetensors") and writes[path.name] == 2:
            raise Killed
        write(path, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "write_bytes", stop)
        for changes in (["compute.precision=bf16"], []):
            recipe = load_recipe(tiny_recipe_file, [*FIRST_ORDER, *changes])
            with pytest.raises(Killed):
                run(recipe, corpus, killed, Options(cache=cache, resume=killed.exists()))
    run(recipe, corpus, killed, Options(cache=cache, resume=True))
    assert tensors_and_scores(killed) == tensors_and_scores(finished)


def test_another_explicit_precision_is_refused_on_resume(
    finished: Path, tiny_recipe_file: Path
) -> None:
    silent = load_recipe(tiny_recipe_file).compute
    assert settle_compute(silent, RunFolder(finished)).spec.precision == "bf16"
    single = load_recipe(tiny_recipe_file, ["compute.precision=fp32"]).compute
    with pytest.raises(RunError, match=r"begun with compute\.precision bf16"):
        settle_compute(single, RunFolder(finished))


def test_a_second_order_search_is_refused_before_anything_is_written(
    corpus: Corpus, cache: Path, tiny_recipe_file: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(tiny_recipe_file, ["compute.precision=bf16"])
    with pytest.raises(RecipeError, match=r"search\.order: 2 with compute\.precision bf16"):
        run(recipe, corpus, tmp_path / "run", Options(cache=cache))
    assert not (tmp_path / "run").exists()


def test_the_option_is_recorded_and_training_needs_no_order_of_search(
    finished: Path, tiny: tuple[str | Path, ...], tmp_path: Path
) -> None:
    genotype, out = finished / "fold-0" / "seed-0" / "genotype.json", tmp_path / "run"
    options = ("--precision", "bf16", "--folds", "0", "--set", "training.epochs=1")
    emodarts("train", *tiny, *options, "--genotype", genotype, "--out", out)
    assert json.loads((out / "environment.json").read_text())["precision"] == "bf16"
    assert load_recipe(out / "recipe.yaml").compute.precision == "bf16"
    wrong = emodarts("search", *tiny, "--precision", "fp16", "--out", tmp_path / "no", code=2)
    assert "'fp16'" in wrong.stderr
