"""MLflow has what a trial did, and neither it nor TensorBoard can break a run."""

from __future__ import annotations

import errno
import os
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emodarts import files
from emodarts.corpora import load_corpus
from emodarts.errors import TrainingError
from emodarts.experiments.plan import Options
from emodarts.experiments.run import run
from emodarts.layout import TrialFolder
from emodarts.recipe import Recipe
from emodarts.tracking.events import EventWriter
from emodarts.tracking.trials import tracked


def client_of(uri: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tracking = pytest.importorskip("mlflow.tracking")
        return tracking.MlflowClient(uri)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.fixture(params=["refused", "silent"])
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """Address where nobody listens, or where nobody answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if request.param == "silent":
            listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_a_trial_that_fails_and_is_resumed_is_one_run_with_all_epochs(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/store/mlflow.db"
    folder = TrialFolder(tmp_path / "trial")
    folder.path.mkdir()
    many = {f"key{k}": k for k in range(150)}
    settings = {"search": {"order": 2, "stop": {"skips": None}}, "name": "tiny", **many}
    client = client_of(uri)

    def run_of() -> Any:
        [found] = client.search_runs([client.get_experiment_by_name("emodarts").experiment_id])
        return found

    def fail() -> None:
        with tracked(folder, uri, "tiny, fold 0", settings):
            with EventWriter(folder, 0) as events:
                events.write("search", 1, {"alpha_ua": 0.25, "alpha_snr_normal": None})
            raise TrainingError("the loss is nan")

    with pytest.raises(TrainingError, match="nan"):
        fail()
    assert run_of().info.status == "FAILED"
    with tracked(folder, uri, "tiny, fold 0", settings):
        with EventWriter(folder, 1) as events:
            events.write("search", 2, {"alpha_ua": 0.5})
        files.write_json(folder.result, {"ua": 0.75, "system": "searched", "confusion": [[1]]})
        files.write_text(folder.model / "model.json", "{}")
    found = run_of()
    assert (found.info.status, found.info.run_name) == ("FINISHED", "tiny, fold 0")
    assert found.data.params["search.order"] == "2"
    assert found.data.params["search.stop.skips"] == "null"
    assert len(found.data.params) == 153
    history = client.get_metric_history(found.info.run_id, "search/alpha_ua")
    assert [(m.step, m.value) for m in history] == [(1, 0.25), (2, 0.5)]
    assert found.data.metrics["result/ua"] == 0.75
    kept = {entry.path for entry in client.list_artifacts(found.info.run_id)}
    assert kept == {"result.json", "model"}


def test_a_store_that_fails_midway_gives_one_warning(tmp_path: Path) -> None:
    store = tmp_path / "store" / "mlflow.db"
    folder = TrialFolder(tmp_path / "trial")

    def lose_the_store() -> None:
        with (
            tracked(folder, f"sqlite:///{store}", "trial", {}),
            EventWriter(folder, 0) as events,
        ):
            store.write_bytes(b"no database at all" * 1000)
            for epoch in (1, 2, 3):
                events.write("search", epoch, {"alpha_ua": 0.5})

    with pytest.warns(UserWarning, match="MLflow at sqlite.* is written no more") as found:
        lose_the_store()
    assert len(found) == 1


def test_a_run_goes_on_without_its_server(
    server: str, tiny_recipe: Recipe, tiny_emodb: Path, cache: Path, tmp_path: Path
) -> None:
    value = tiny_recipe.to_dict()
    kept = {key: value[key] for key in ("features", "evaluation", "compute")}
    kept["compute"] |= {"mlflow": server}
    recipe = Recipe.from_dict({**kept, "system": {"kind": "majority"}})
    with pytest.warns(UserWarning, match=f"MLflow at {server} is written no more") as found:
        result = run(
            recipe, load_corpus("emodb", tiny_emodb), tmp_path / "run", Options(cache=cache)
        )
    assert len(found) == 1
    assert result["ua"] == 0.25
    assert not list((tmp_path / "run").rglob("mlflow.json"))


def test_events_that_cannot_be_written_give_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensorboard = pytest.importorskip("torch.utils.tensorboard")

    def full(*arguments: Any, **keys: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write() -> None:
        with EventWriter(TrialFolder(tmp_path), 0) as events:
            for epoch in (1, 2):
                events.write("training", epoch, {"train_ua": 0.5})

    monkeypatch.setattr(tensorboard.SummaryWriter, "add_scalar", full)
    with pytest.warns(UserWarning, match="TensorBoard's folder .* No space left") as found:
        write()
    assert len(found) == 1
