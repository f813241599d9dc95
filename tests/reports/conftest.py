"""Run directories with made-up numbers, laid out as a run writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emodarts import files
from emodarts.genotype import SKIP, Edge, Genotype
from emodarts.recipe import Recipe
from emodarts.scoring.metrics import UA_DEFINITION, WA_DEFINITION, aggregate
from emodarts.scoring.predictions import Prediction, write_predictions

CLASSES = ("anger", "happiness", "neutral", "sadness")
N_NODES = 2
N_EDGES = 5  # of a cell with two nodes: 2 + 3

MakeRun = Callable[..., Path]


def genotype_of(fold: int, sequence: bool = True) -> Genotype:
    """Genotypes that differ between folds 0 and 1."""
    first = "sep_conv_3x3" if fold == 0 else "avg_pool_3x3"
    cnn = ((Edge(first, 0), Edge(SKIP, 1)), (Edge("dil_conv_5x5", 0), Edge("max_pool_3x3", 2)))
    lstm = ((Edge("lstm_2", 0), Edge("rnn_1", 1)), (Edge("lstm_att_1", 1), Edge(SKIP, 2)))
    return Genotype(cnn, cnn, lstm if sequence else None)


def make_predictions(
    folds: int, seeds: tuple[int, ...], errors: float, classes: tuple[str, ...]
) -> list[Prediction]:
    """Two speakers a fold with 10 utterances each; class i of n is missed by chance."""
    predictions = []
    generator = np.random.default_rng(1)
    for fold in range(folds):
        for seed in seeds:
            for k in range(20):
                label = classes[k % len(classes)]
                wrong = generator.random() < errors
                said = classes[(k + wrong) % len(classes)]
                share = tuple(0.7 if c == said else 0.3 / (len(classes) - 1) for c in classes)
                speaker = f"speaker{fold}{'ab'[k // 10]}"
                predictions.append(
                    Prediction(f"{fold}-{k:02}", speaker, fold, seed, label, said, share)
                )
    return predictions


def write_curves(folder: Path, sequence: bool, searched: bool, epochs: int = 4) -> None:
    steps = np.arange(1, epochs + 1)
    columns = ["epoch", "learning_rate", "train_loss", "train_ua", "validation_loss"]
    columns += ["validation_ua", "validation_wa"]
    rows = [[int(e), 0.02, 1.4 / e, 1 - 0.7 / e, 1.5 / e, 0.8 - 0.5 / e, 0.7] for e in steps]
    files.write_csv(
        folder / "training.csv", columns, [dict(zip(columns, row, strict=True)) for row in rows]
    )
    if not searched:
        return
    cells = ["normal", "reduction", "sequence"] if sequence else ["normal", "reduction"]
    records = [
        {
            "epoch": int(e),
            "learning_rate": 0.02,
            "weight_loss": 1.4 / e,
            "alpha_loss": 1.5 / e if e > 1 else "",  # a warm-up epoch has none
            "alpha_ua": 0.8 - 0.5 / e,
            **{f"skips_{cell}": 1 for cell in cells},
            **{f"entropy_{cell}": 2 - 0.1 * e for cell in cells},
            "seconds": 1.5,
        }
        for e in steps
    ]
    files.write_csv(folder / "search.csv", list(records[0]), records)
    sizes = {"normal": 8, "reduction": 8, "sequence": 14}
    generator = np.random.default_rng(0)
    files.write_json(
        folder / "alphas.json",
        [
            {
                "epoch": int(e),
                "alphas": {c: generator.normal(size=(N_EDGES, sizes[c])).tolist() for c in cells},
                "genotype": genotype_of(0, sequence).to_dict(),
            }
            for e in steps
        ],
    )


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Return a function that writes a finished run and returns its directory."""
    return maker(tmp_path)


@pytest.fixture(scope="module")
def make_shared_run(tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """As ``make_run``, for runs that several tests only read."""
    return maker(tmp_path_factory.mktemp("runs"))


def maker(tmp_path: Path) -> MakeRun:
    def make(
        folder: str = "run",
        *,
        name: str = "toy",
        folds: int = 2,
        seeds: tuple[int, ...] = (0, 3),
        errors: float = 0.3,
        classes: tuple[str, ...] = CLASSES,
        strategy: str = "darts",
        sequence: bool = True,
        optimistic: bool = False,
        **changes: Any,
    ) -> Path:
        run = tmp_path / folder
        network = {"seqnn": {"mode": "searched"} if sequence else {"mode": "none"}}
        recipe = Recipe.from_dict(
            {"name": name, "network": network, "search": {"strategy": strategy}}
        )
        files.write_text(run / "recipe.yaml", recipe.to_yaml())
        predictions = make_predictions(folds, seeds, errors, classes)
        write_predictions(run / "predictions.csv", predictions, classes)
        seen = {p.name: p.speaker for p in predictions}
        rows = [
            {
                "name": name,
                "gender": "female" if (speaker or "").endswith("a") else "male",
                "start": 0.0,
                "end": "",
                "sha256": "",
            }
            for name, speaker in seen.items()
        ]
        files.write_csv(run / "utterances.csv", list(rows[0]), rows)
        result = aggregate(predictions, classes)
        for fold in result["folds"]:
            for seed in fold["seeds"]:
                trial = run / f"fold-{fold['fold']}" / f"seed-{seed['seed']}"
                genotype = genotype_of(fold["fold"], sequence)
                write_curves(trial, sequence, strategy == "darts")
                seed |= {
                    "epoch": 3,
                    "parameters": 61234,
                    "multiply_adds": 12_345_678,
                    "genotype": genotype.to_dict(),
                }
                if optimistic:
                    best = {"test_ua_of_best_test_epoch": 0.9 + 0.02 * fold["fold"]}
                    files.write_json(trial / "optimistic.json", best)
        result |= {
            "format": "emodarts.result/2",
            "system": "searched",
            "genotypes": "random" if strategy == "random" else "searched",
            "name": name,
            "corpus": "synthetic",
            "notice": "made-up speech: scores say nothing about emotion",
            "parameters": 61234,
            "multiply_adds": 12_345_678,
            "protocol": "full",
            "split": "groups:2",
            "seeds": list(seeds),
            "definitions": {"ua": UA_DEFINITION, "wa": WA_DEFINITION},
            "warnings": ["fold 1 has a single validation speaker"],
            "baselines": {
                "chance": {"ua": 0.25, "wa": 0.25, "macro_f1": 0.247},
                "majority": {"ua": 0.25, "wa": 0.3, "macro_f1": 0.115},
                "logistic_regression": {"ua": 0.612, "wa": 0.634, "macro_f1": 0.6},
            },
            **changes,
        }
        files.write_json(run / "result.json", result)
        files.write_json(
            run / "data.json",
            {
                "corpus": "synthetic",
                "notice": result["notice"],
                "digest": "0f" * 32,
                "classes": list(classes),
                "n_utterances": 20 * folds,
                "n_speakers": 2 * folds,
                "skipped": [["x.wav", "label boredom is not selected"]] * 3,
                "bad": [["broken.wav", "not a sound file"]],
            },
        )
        environment = {
            "python": "3.12.1",
            "device": "cpu",
            "threads": 2,
            "versions": {"torch": "2.5"},
        }
        files.write_json(run / "environment.json", environment)
        files.write_json(run / "folds.json", {"folds": []})
        return run

    return make
