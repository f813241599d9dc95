"""A run of MLflow for every trial (extra ``mlflow``): parameters, metrics over epochs, artefacts.

The folder of the trial names its MLflow run, in which a resumed trial goes on. Whatever fails,
an unreachable server included, gives one warning in a process and is not tried again there.
"""

from __future__ import annotations

import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from emodarts import files
from emodarts.errors import RunError, shown
from emodarts.layout import TrialFolder

_EXPERIMENT = "emodarts"
_SQLITE = "sqlite:///"
#: MLflow's defaults let a run wait for minutes for a server that does not answer.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
#: MLflow takes so many parameters in a call, and of a value so many characters.
_AT_ONCE, _LONGEST = 100, 500
#: Characters of a fault that a warning repeats.
_OF_A_FAULT = 200
_SCORES = ("ua", "wa", "macro_f1", "parameters", "multiply_adds", "seconds")

Value = TypeVar("Value")
_given_up: set[str] = set()


def attempt(what: str, action: Callable[[], Value]) -> Value | None:
    """What ``action`` returns; None, with one warning in this process, once it has failed."""
    if what in _given_up:
        return None
    try:
        return action()
    except Exception as error:  # whatever a foreign package raises
        _given_up.add(what)
        fault = shown(str(error).partition("\n")[0])[:_OF_A_FAULT] or type(error).__name__
        warnings.warn(f"{what} is written no more, and the run goes on: {fault}", stacklevel=2)
        return None


def prepare(uri: str) -> None:
    """Make store and experiment before several processes want to."""
    _tried(uri, lambda client: _experiment(client, uri))


@contextmanager
def tracked(
    folder: TrialFolder, uri: str | None, name: str, parameters: Mapping[str, Any]
) -> Iterator[None]:
    """Track what is done to the trial of a folder; None tracks nothing.

    Parameters
    ----------
    uri : of the store, as MLflow takes it: ``sqlite:///FILE``, or the address of a server.
    name : of the MLflow run.
    parameters : nested JSON values, e.g. a recipe; keys are joined by dots.
    """
    if uri is None:
        yield
        return
    _tried(uri, lambda client: _begin(client, folder, uri, name, parameters))
    status = "KILLED"
    try:
        yield
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        _tried(uri, lambda client: _end(client, folder, status))


def log(folder: TrialFolder, metrics: Mapping[str, float], step: int) -> None:
    """Add metrics to the MLflow run of a trial, if it has one."""
    if folder.tracking.is_file():
        uri = attempt("MLflow", lambda: _read(folder)["uri"])
        if uri is not None:
            _tried(uri, lambda client: _log(client, folder, metrics, step))


def _tried(uri: str, action: Callable[[Any], object]) -> None:
    def quietly() -> None:
        with warnings.catch_warnings():  # of MLflow, not of ours
            warnings.simplefilter("ignore")
            action(_client(uri))

    attempt(f"MLflow at {uri}", quietly)


@cache
def _client(uri: str) -> Any:
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise RunError(f"{error}; install the extra mlflow") from error

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if uri.startswith(_SQLITE):
        _database(uri).parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(uri)


def _database(uri: str) -> Path:
    return Path(uri.removeprefix(_SQLITE).partition("?")[0]).resolve()


def _experiment(client: Any, uri: str) -> str:
    found = client.get_experiment_by_name(_EXPERIMENT)
    if found is None:
        beside = (
            (_database(uri).parent / "mlartifacts").as_uri() if uri.startswith(_SQLITE) else None
        )
        return str(client.create_experiment(_EXPERIMENT, beside))
    return str(found.experiment_id)


def _begin(
    client: Any, folder: TrialFolder, uri: str, name: str, parameters: Mapping[str, Any]
) -> None:
    from mlflow.entities import Param

    if folder.tracking.is_file() and _read(folder)["uri"] == uri:
        client.update_run(_read(folder)["run"], "RUNNING")
        return
    run = client.create_run(_experiment(client, uri), run_name=name).info.run_id
    flat = [Param(key, value[:_LONGEST]) for key, value in _flat(parameters)]
    for first in range(0, len(flat), _AT_ONCE):
        client.log_batch(run, params=flat[first : first + _AT_ONCE])
    files.write_json(folder.tracking, {"uri": uri, "run": run})


def _log(client: Any, folder: TrialFolder, metrics: Mapping[str, float], step: int) -> None:
    from mlflow.entities import Metric

    now = round(1000 * time.time())
    batch = [Metric(name, float(value), now, step) for name, value in metrics.items()]
    client.log_batch(_read(folder)["run"], metrics=batch)


def _end(client: Any, folder: TrialFolder, status: str) -> None:
    run = _read(folder)["run"]
    if folder.result.is_file():
        result = files.read_object(folder.result, RunError)
        scores = {
            f"result/{k}": result[k] for k in _SCORES if isinstance(result.get(k), int | float)
        }
        _log(client, folder, scores, 0)
    for path in (
        folder.genotype,
        folder.alphas,
        folder.search_history,
        folder.training_history,
        folder.predictions,
        folder.result,
    ):
        if path.is_file():
            client.log_artifact(run, str(path))
    if status == "FINISHED" and folder.model.is_dir():
        client.log_artifacts(run, str(folder.model), folder.model.name)
    client.set_terminated(run, status)


def _read(folder: TrialFolder) -> dict[str, Any]:
    return files.read_object(folder.tracking, RunError, "uri", "run")


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """``{"a": {"b": 1}}`` -> ``("a.b", "1")``; text stays as it is."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)
