"""The scripts in ``examples`` run as a user runs them, at small sizes."""

from __future__ import annotations

import csv
import runpy
from pathlib import Path
from typing import Any

import pytest

from emodarts.corpora import load_corpus, synthetic
from emodarts.genotype import Genotype
from emodarts.layout import RunFolder
from emodarts.recipe import SPACES, STRATEGIES

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SMALL = (
    "features.n_mels=16",
    "network.cnn.nodes=1",
    "network.cnn.channels=2",
    "network.seqnn.nodes=1",
    "network.seqnn.width=4",
    "training.epochs=1",
    "evaluation.split=groups:3",
    "evaluation.folds=[0]",
    "compute={device: cpu, threads: 1, fast: false}",
)


def script(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


@pytest.mark.slow
def test_from_a_table_to_an_answer(
    tiny_emodb: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("EMODARTS_CACHE", str(cache))
    table = tmp_path / "speech.csv"
    with table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("file", "speaker", "emotion"))
        rows.writerows((u.path, u.speaker, u.label) for u in load_corpus("emodb", tiny_emodb))
    small = (*SMALL, "search.epochs=1", "search.batch_size=8")
    script("search_own_corpus")["main"](str(table), str(tmp_path / "own"), *small)
    shown = capsys.readouterr().out
    assert "UA on unseen speakers" in shown
    assert (tmp_path / "own" / "judged" / "report" / "report.md").is_file()
    found = Genotype.load(tmp_path / "own" / "found" / "seed-0" / "genotype.json")
    trained = RunFolder(tmp_path / "own" / "model").trial(None, 0)
    assert Genotype.load(trained.genotype) == found


@pytest.mark.slow
def test_an_operation_and_a_strategy_from_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SPACES, "gated", SPACES["all"])  # and away at the end
    monkeypatch.setitem(STRATEGIES, "local", STRATEGIES["random"])
    monkeypatch.setattr(synthetic, "TAKES", 1)
    monkeypatch.setenv("EMODARTS_CACHE", str(tmp_path / "cache"))
    small = (*SMALL, "search.steps=2", "search.epochs=1")
    script("own_search")["main"](str(tmp_path / "run"), *small)
    assert "gated_conv_5" in SPACES["gated"].sequence
    assert "sequence: " in capsys.readouterr().out
