"""Benchmarks run at their smallest, write what they promise, and two results can be compared."""

from __future__ import annotations

import copy
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from emodarts.corpora import load_corpus
from emodarts.experiments.plan import Options
from emodarts.experiments.run import run as run_recipe
from emodarts.recipe import Recipe
from emodarts.splits import make_folds

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SPREAD = {"median", "least", "most"}


def run(name: str, *arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a benchmark on one thread and check its exit code."""
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{name}.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def result_of(name: str, folder: Path, *arguments: str | Path) -> dict[str, Any]:
    """The JSON of a benchmark at its smallest, its description checked."""
    path = folder / f"{name}.json"
    run(name, "--small", "--json", path, *arguments)
    result: dict[str, Any] = json.loads(path.read_text())
    assert result["benchmark"] == name
    assert result["arguments"]["small"] is True
    assert result["environment"]["packages"]["torch"]
    assert result["environment"]["hardware"]
    assert len(result["date"]) == len("2000-01-01")
    return result


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return result_of("network", tmp_path_factory.mktemp("network"))


@pytest.mark.parametrize("which", ["searched", "default"])
def test_network(which: str, network: dict[str, Any], tmp_path: Path) -> None:
    if which == "default":
        network = result_of("network", tmp_path, "--network", which)
    assert 5e4 < network["parameters"] < 3.5e5
    assert network["multiply_adds"] > 0
    assert network["largest_logit_difference"] < 1e-5
    assert ("views_share_of_step" in network) == (which == "default")
    assert network.get("views_share_of_step", {"least": 1})["least"] > 0
    step, latency = network["training_step_s"], network["latency_s"]
    for timed in (step, latency, network["training_30_epochs_of_250_s"]):
        assert timed.keys() == {"emodarts", "plain"}
    for value in (*step.values(), *latency.values()):
        assert 0 < value["least"] <= value["median"] <= value["most"]
    for name in ("training_speedup", "latency_speedup"):
        assert network[name].keys() == SPREAD
    # Of one row of times each ratio is, so that it lies between the extremes.
    assert (
        latency["plain"]["least"] / latency["emodarts"]["most"]
        <= network["latency_speedup"]["median"]
        <= latency["plain"]["most"] / latency["emodarts"]["least"]
    )
    epochs = 30 * 250 / network["batch"] * step["plain"]["median"]
    assert network["training_30_epochs_of_250_s"]["plain"] == pytest.approx(epochs)
    assert min(network["training_peak_bytes"].values()) > 50 * 2**20  # a whole process


@pytest.mark.slow
def test_scaling(tmp_path: Path) -> None:
    result = result_of("scaling", tmp_path)
    assert [row["setting"]["order"] for row in result["steps"]] == [1, 2, 1, 1]
    assert [row["setting"]["batch"] for row in result["steps"]] == [2, 2, 4, 8]
    for row in result["steps"]:
        assert row["seconds"].keys() == row["bytes"].keys() == SPREAD
    assert result["laws"].keys() == {"batch"}
    for fit in result["laws"]["batch"].values():
        assert fit["low"] <= fit["exponent"] <= fit["high"]
        assert fit["factor"] > 0
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_hessian(tmp_path: Path) -> None:
    result = result_of("hessian", tmp_path)
    assert result["cost"].keys() == {"first order", "finite difference", "exact"}
    assert result["cost"]["first order"] == {"time_ratio": 1.0, "memory_ratio": 1.0}
    assert [row["rate"] for row in result["accuracy"]] == [0.025, 0.0025]
    for row in result["accuracy"]:
        assert row["errors"]["exact float32"] < 1e-3 < row["errors"]["first order"]


@pytest.mark.slow
def test_features(tmp_path: Path, tiny_emodb: Path) -> None:
    pytest.importorskip("librosa")
    result = result_of("features", tmp_path, "--root", tiny_emodb)
    assert result["files"] == 4
    assert [row["utterances"] for row in result["memory"]] == [20]
    assert result["environment"]["packages"]["librosa"]
    for name in ("paper", "default"):
        found = result[name]
        assert found["largest_difference"] < 1e-2
        for key in ("ratio_to_librosa", "fill_files_per_s", "warm_ms"):
            assert found[key].keys() == SPREAD


def test_lockstep(tmp_path: Path, tiny_emodb: Path) -> None:
    settings = ["--setting", "smooth:label_smoothing=0.2,stretch=[0.8,1.25]"]
    settings += ["--setting", "long:training.epochs=2"]
    corpus = "--corpus", "emodb", "--root", tiny_emodb, "--cache", tmp_path / "cache"
    shape = "--set", "evaluation.split=groups:3", "--set", "network.stem.channels=[2, 2, 2, 2]"
    result = result_of("lockstep", tmp_path, *corpus, *settings, *shape, "--seeds", "2")
    assert [group["networks"] for group in result["groups"]] == [2 * 2 * 3, 2 * 3]
    # Of the 24 utterances of one group, in one epoch and in two.
    assert [group["steps"] for group in result["groups"]] == [1, 2]
    assert list(result["settings"]) == ["base", "smooth", "long"]
    for row in result["settings"].values():
        assert row["ua"] == pytest.approx(sum(row["seeds"]) / 2)
        assert row["ua"] == pytest.approx(sum(row["folds"]) / 3)
        assert row["sd"] == pytest.approx(abs(row["seeds"][0] - row["seeds"][1]) / math.sqrt(2))
        assert 0.0 <= row["joint_ua"] <= 1.0
        assert 0.0 <= row["training_accuracy"] <= 1.0


def test_inner_folds_of_lockstep_are_a_split(tmp_path: Path, tiny_emodb: Path) -> None:
    """Of each fold one group is left out, the next is tested and the others train."""
    corpus = load_corpus("emodb", tiny_emodb)
    groups = [fold.test for fold in make_folds(corpus, "groups:3").folds]
    path, script = tmp_path / "inner.json", BENCHMARKS / "lockstep.py"
    asked = ["--corpus", "emodb", "--root", tiny_emodb, "--cache", tmp_path / "cache"]
    asked += ["--set", "evaluation.split=groups:3", "--folds", path]
    subprocess.run([sys.executable, script, *map(str, asked)], check=True, capture_output=True)
    inner = make_folds(corpus, str(path)).folds
    assert [fold.test for fold in inner] == [groups[1], groups[2], groups[0]]
    assert [fold.development for fold in inner] == [groups[2], groups[0], groups[1]]


def test_power_law(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from scaling import power_law

    x = [1.0, 2.0, 4.0, 8.0]
    fit = power_law(x, [3 * v**1.5 for v in x])
    assert fit["exponent"] == pytest.approx(1.5)
    assert fit["factor"] == pytest.approx(3)
    assert fit["high"] - fit["low"] < 1e-6
    # Residuals of +-d about slope b: by hand, stderr = sqrt(sum(e^2) / 2 / sum((x - mean)^2)).
    noise = (0.1, -0.1, -0.1, 0.1)
    fit = power_law(x, [v * math.exp(e) for v, e in zip(x, noise, strict=True)])
    margin = 4.302653 * math.sqrt(0.04 / 2 / (5 * math.log(2) ** 2))
    assert fit["exponent"] == pytest.approx(1.0)
    assert fit["high"] == pytest.approx(1.0 + margin, rel=1e-5)


def test_memory_is_of_the_fresh_process_alone(tmp_path: Path) -> None:
    """A process that has held much starts one that holds little, and one that holds some."""
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r})\n"
        "from measure import in_fresh_process\n"
        "def hold(mib):\n"
        "    return sum(bytearray(b'1' * (mib * 2**20))[::4096])\n"
        "if __name__ == '__main__':\n"
        "    hold(300)\n"
        "    for mib in (1, 100):\n"
        "        memory = in_fresh_process(hold, mib)[1]\n"
        "        print(memory['before'] / 2**20, memory['peak'] / 2**20)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    small, large = (list(map(float, line.split())) for line in done.stdout.splitlines())
    assert small[1] < 200
    assert 0 <= small[1] - small[0] < 50
    assert 100 <= large[1] - large[0] < 300


def compared(
    folder: Path, before: dict[str, Any], after: dict[str, Any], code: int
) -> subprocess.CompletedProcess[str]:
    for name, value in (("before", before), ("after", after)):
        (folder / f"{name}.json").write_text(json.dumps(value))
    return run("compare", folder / "before.json", folder / "after.json", code=code)


def test_a_regression_is_told(network: dict[str, Any], tmp_path: Path) -> None:
    assert "differs" not in compared(tmp_path, network, network, 0).stdout
    worse = copy.deepcopy(network)
    step = worse["training_step_s"]["emodarts"]
    old = dict(step)
    step.update(dict.fromkeys(SPREAD, 3 * old["most"]))
    worse["environment"]["threads"] = 64
    lines = compared(tmp_path, network, worse, 1).stdout.splitlines()
    told = [line for line in lines if line.endswith("differs")]
    assert len(told) == 1
    assert told[0].split()[0] == "training_step_s.emodarts"
    assert float(told[0].split()[3]) == pytest.approx(3 * old["most"] / old["median"], abs=1e-3)
    assert any("environment.threads" in line and "64" in line for line in lines)
    # Ranges that meet are no difference, whatever the medians are.
    step.update({"least": old["most"], "median": 2 * old["most"], "most": 3 * old["most"]})
    lines = compared(tmp_path, network, worse, 0).stdout.splitlines()
    assert not any(line.endswith("differs") for line in lines)
    # A number without a range differs beyond the tolerance.
    worse = copy.deepcopy(network)
    worse["training_peak_bytes"]["plain"] *= 1.2
    del worse["parameters"]
    out = compared(tmp_path, network, worse, 1).stdout
    assert "parameters: only in the first file" in out
    assert sum(line.endswith("differs") for line in out.splitlines()) == 1


def test_what_cannot_be_compared_is_refused(network: dict[str, Any], tmp_path: Path) -> None:
    other = {**network, "benchmark": "scaling"}
    done = compared(tmp_path, network, other, 2)
    assert "different benchmarks: 'network' and 'scaling'" in done.stderr
    done = compared(tmp_path, network, {"a": 1}, 2)
    assert "after.json has no benchmark" in done.stderr


def test_large(tmp_path: Path) -> None:
    """The peaks are those of a process whose features were mapped."""
    result = result_of("large", tmp_path, "--budget", "4096")
    assert result["failed"] is None
    assert result["feature_bytes"] == 64 * 64 * 257 * 4
    assert 0 < result["own_bytes"] <= result["process_bytes"]["peak"]


@pytest.mark.slow
def test_inference(tmp_path: Path, tiny_emodb: Path, cache: Path) -> None:
    pytest.importorskip("onnxruntime")
    recipe = Recipe.from_dict(
        {
            "name": "tiny",
            "features": {"sample_rate": 8000, "duration": 1.0, "n_fft": 256, "hop_length": 128},
            "network": {
                "stem": {"channels": [4], "frequency_strides": [2], "time_strides": [2]},
                "cnn": {"cells": 0},
                "seqnn": {"mode": "fixed", "recurrent": "lstm", "layers": 1, "width": 4},
            },
            "search": {"strategy": "random"},
            "training": {"epochs": 1},
            "evaluation": {"split": "groups:3", "folds": [0]},
            "compute": {"device": "cpu", "threads": 1},
        }
    )
    out = tmp_path / "run"
    scores = run_recipe(recipe, load_corpus("emodb", tiny_emodb), out, Options(cache=cache))
    model = out / "fold-0" / "seed-0" / "model"
    result = result_of("inference", tmp_path, "--model", model, "--run", out, "--root", tiny_emodb)
    ways = {"torch", "onnx", "int8"}
    for key in ("latency_s", "processor_s", "peak_bytes", "file_bytes", "unseen"):
        assert result[key].keys() == ways
    assert result["file_bytes"]["int8"] < result["file_bytes"]["onnx"]
    for found in result["unseen"].values():
        assert found["utterances"] == scores["n_test"]
        assert found["ua_folds"] == [found["ua"]]
    assert result["unseen"]["torch"]["ua"] == pytest.approx(scores["ua"])
    assert result["unseen"]["onnx"]["largest_difference"] < 1e-4
    assert 0 < result["unseen"]["int8"]["largest_difference"] < 0.05


def test_cost(tmp_path: Path) -> None:
    result = result_of("cost", tmp_path)
    for what in ("search", "training"):
        assert result[f"{what}_utterances"]["law"].keys() == {"fixed_s", "per_utterance_s"}
        for name in ("cells", "nodes"):
            law = result[f"{what}_{name}"]["law"]
            assert law["low"] <= law["exponent"] <= law["high"]


def test_cost_of_gpus_that_wait_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    from cost import estimate

    one, many = (estimate(10**6, gpus, 64, 1, 50, 10.0, 0.0) for gpus in (1, 10))
    assert many["hours"] == pytest.approx(one["hours"] / 10)
    assert one["hours"] == pytest.approx(50 * one["epoch_min"] / 60)
    assert estimate(10**6, 10, 64, 2, 50, 10.0, 30.0)["waiting"] > 0


@pytest.mark.slow
def test_strategies(tmp_path: Path) -> None:
    result = result_of("strategies", tmp_path, "--only", "gdas,p-darts")
    rows = result["strategies"]
    for row in rows.values():
        assert row.keys() == {"candidate", "lag", "recurrent", "step_s"}
        assert min(row["step_s"]) > 0
    searched = [rows["gdas"][toy] for toy in ("candidate", "lag", "recurrent")]
    for found in (*searched, rows["p-darts"]["candidate"]):
        assert found["planted"] in (0, 1)
        assert 0 <= found["ua"] <= 1
    assert rows["p-darts"]["lag"] == "there is no normal cell"
