"""What a run refuses and warns of before its first trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from emodarts import files
from emodarts.corpora import Corpus, load_corpus
from emodarts.errors import CorpusError, GenotypeError, RunError
from emodarts.experiments.plan import Options, make_plan
from emodarts.experiments.run import run
from emodarts.genotype import SKIP, Edge, Genotype
from emodarts.progress import Silent
from emodarts.recipe import STRATEGIES, DartsSpec, Kind, Recipe, load_recipe
from emodarts.searching.strategy import SearchTask

POOLS = (Edge("max_pool_3x3", 0), Edge("avg_pool_3x3", 1))
LSTM = (Edge("lstm_att_1", 0), Edge("lstm_att_2", 1))


@pytest.fixture(scope="module")
def corpus(tiny_emodb: Path) -> Corpus:
    return load_corpus("emodb", tiny_emodb)


def plan(recipe: Recipe, corpus: Corpus, out: Path, cache: Path, **options: Any) -> dict[str, Any]:
    """The header of a planned run."""
    make_plan(recipe, corpus, out, Options(cache=cache, **options), Silent())
    return files.read_object(out / "data.json", RunError, "warnings")


@pytest.mark.parametrize(
    ("change", "macro", "message"),
    [
        ("network.cnn.nodes=3", {}, "network.cnn.nodes is 3, and the genotype has 1"),
        ("network.seqnn.nodes=2", {}, "network.seqnn.nodes is 2, and the genotype has 1"),
        (
            "network.pooling=statistics",
            {"pooling": "mean"},
            'network.pooling is "statistics", and the genotype has "mean"',
        ),
        ("system.cells=5", {"cnn.cells": 3}, "system.cells is 5, and the genotype has 3"),
        ("system.channels=5", {"cnn.channels": 2}, "system.channels is 5, and the genotype has 2"),
        (
            "system.seqnn_cells=5",
            {"seqnn": {"mode": "fixed", "recurrent": "lstm"}},
            "system.seqnn_cells is 5, and the genotype has null",
        ),
    ],
)
@pytest.mark.parametrize("space", ["all", "extended"])
def test_a_key_that_contradicts_the_genotype_is_refused(
    corpus: Corpus,
    tiny_recipe_file: Path,
    cache: Path,
    tmp_path: Path,
    change: str,
    macro: dict[str, Any],
    message: str,
    space: str,
) -> None:
    recipe = load_recipe(tiny_recipe_file, [f"network.cnn.space={space}", change])
    fixed = "seqnn" in macro
    genotype = Genotype((POOLS,), (POOLS,), None if fixed else (LSTM,), macro)
    given = {"search": False, "genotype": genotype, "asked": (change.partition("=")[0],)}
    with pytest.raises(GenotypeError) as caught:
        plan(recipe, corpus, tmp_path / "run", cache, **given)
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_what_a_genotype_decides_of_its_space_need_not_be_in_the_recipe(
    corpus: Corpus, tiny_recipe_file: Path, cache: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(tiny_recipe_file, ["network.cnn.space=extended"])
    genotype = Genotype((POOLS,), (POOLS,), (LSTM,), {"pooling": "mean"})
    given: dict[str, Any] = {"search": False, "genotype": genotype}
    assert recipe.network.pooling != "mean"
    plan(recipe, corpus, tmp_path / "run", cache, asked=("network.cnn.space",), **given)
    narrow = load_recipe(tiny_recipe_file)
    with pytest.raises(GenotypeError, match=r'network.pooling is "attention"'):
        plan(narrow, corpus, tmp_path / "narrow", cache, **given)


def test_folds_that_lack_classes_are_warned_of(
    tiny_recipe: Recipe, cache: Path, tmp_path: Path
) -> None:
    """Two speakers with all classes, one who is only ever angry, and one who is happy, too."""
    generator = np.random.default_rng(0)
    for speaker, emotions in (("03", "WFNT"), ("08", "WFNT"), ("09", "W"), ("10", "WF")):
        for text in (f"a01{emotion}{version}" for emotion in emotions for version in "ab"):
            sound = 0.1 * generator.standard_normal(8000)
            soundfile.write(tmp_path / f"{speaker}{text}.wav", sound, 8000)
    evaluation = tiny_recipe.evaluation.model_copy(update={"split": "speaker"})
    recipe = tiny_recipe.model_copy(update={"evaluation": evaluation})
    header = plan(recipe, load_corpus("emodb", tmp_path), tmp_path / "run", cache)
    [warning] = [w for w in header["warnings"] if "classes" in w]
    assert warning.startswith("fold 2 tests 1 of 4 classes, fold 3 tests 2 of 4 classes: UA and")


def test_a_single_class_is_refused_before_any_feature(
    tiny_recipe: Recipe, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emodarts.experiments.plan.fill_store", None)
    one = Corpus("table", tuple(u for u in corpus if u.label == "anger"), ("anger",))
    with pytest.raises(CorpusError, match=r"all 18 utterances of corpus 'table' have the label"):
        plan(tiny_recipe, one, tmp_path / "run", tmp_path)
    assert not (tmp_path / "run").exists()


class Collapsing:
    """A search that ends in SeqNN cells of skip connections, but for seed 1."""

    def __init__(self, spec: DartsSpec) -> None:
        pass

    def search(self, task: SearchTask) -> Genotype:
        skips = (Edge(SKIP, 0), Edge(SKIP, 1))
        return Genotype((POOLS,), (POOLS,), (LSTM if "seed 1" in task.title else skips,))


@pytest.mark.parametrize("all_data", [False, True])
def test_collapsed_searches_are_warned_of(
    corpus: Corpus,
    tiny_recipe: Recipe,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    all_data: bool,
) -> None:
    monkeypatch.setitem(STRATEGIES, "darts", Kind(DartsSpec, Collapsing))
    changes = {"folds": (0,), "seeds": (0, 1)}
    evaluation = tiny_recipe.evaluation.model_copy(update=changes)
    recipe = tiny_recipe.model_copy(update={"evaluation": evaluation})
    options = Options(cache=cache, train=False, all_data=all_data)
    warnings = run(recipe, corpus, tmp_path / "run", options)["warnings"]
    [warning] = [w for w in warnings if "collapsed" in w]
    where = "seed 0" if all_data else "fold 0 seed 0"
    assert warning.startswith(
        "1 of 2 searches collapsed: most edges of a cell are skip connections"
    )
    assert f", {where} (sequence). Keep cells of an earlier epoch" in warning
    if not all_data:
        result = run(recipe, corpus, tmp_path / "run", Options(cache=cache, resume=True))
        assert warning in result["warnings"]
