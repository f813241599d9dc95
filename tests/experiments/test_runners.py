"""Runners: the same bits from each, and faults that are injected for real."""

from __future__ import annotations

import os
import re
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from commands import start
from emodarts import files
from emodarts.corpora import load_corpus
from emodarts.errors import RunError
from emodarts.experiments.grid import GridFile
from emodarts.experiments.grid_plan import AskedRun, asked_runs, is_grid
from emodarts.experiments.grid_run import run_grid
from emodarts.experiments.plan import Options
from emodarts.experiments.run import run
from emodarts.experiments.runners import Means
from emodarts.layout import RunFolder, TrialFolder
from emodarts.progress import Silent
from emodarts.recipe import Recipe, load_recipe

EPOCHS = 20


@pytest.fixture(scope="module")
def recipe(tiny_recipe: Recipe) -> Recipe:
    """Random cells, trained for long enough to be killed meanwhile."""
    value = tiny_recipe.to_dict()
    value["search"] = {"strategy": "random"}
    value["training"]["epochs"] = EPOCHS
    value["compute"]["fast"] = False  # compiled loops take each process a while to load
    return Recipe.from_dict(value)


@pytest.fixture(scope="module")
def baseline(
    recipe: Recipe, tiny_emodb: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run in one process that nothing happened to."""
    out = tmp_path_factory.mktemp("baseline") / "run"
    evaluation = recipe.evaluation.model_copy(update={"folds": (0,)})
    asked = recipe.model_copy(update={"evaluation": evaluation, "name": "good"})
    run(asked, load_corpus("emodb", tiny_emodb), out, Options(cache=cache))
    return out


@pytest.fixture
def grid(recipe: Recipe, tiny_emodb: Path, tmp_path: Path) -> Path:
    """A grid file of that recipe, with one fold."""
    (tmp_path / "good.yaml").write_text(recipe.to_yaml())
    value = {
        "recipes": ["good.yaml"],
        "corpora": {"small": {"corpus": "emodb", "root": str(tiny_emodb)}},
        "folds": [0],
    }
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(value))
    return tmp_path / "grid.yaml"


def changed(grid: Path, **keys: Any) -> Path:
    grid.write_text(yaml.safe_dump({**yaml.safe_load(grid.read_text()), **keys}))
    return grid


def carry(grid: Path, runner: str, cache: Path, **means: Any) -> tuple[AskedRun, ...]:
    out = grid.parent / "out"
    return run_grid(GridFile.load(grid), out, runner, Means(**means), Silent(), cache=cache)


def states(runs: tuple[AskedRun, ...]) -> dict[str, list[str]]:
    return {run.name: [trial.state for trial in run.states()] for run in runs}


def same(run: AskedRun, baseline: Path) -> bool:
    """Whether the first fold ended as in the run that nothing happened to."""
    names = ("predictions.csv", "genotype.json", "model/model.safetensors")
    folder, whole = run.folder.trial(0, 0).path, RunFolder(baseline).trial(0, 0).path
    return all((folder / name).read_bytes() == (whole / name).read_bytes() for name in names)


def trained(out: Path, fold: int = 0) -> TrialFolder | None:
    """The folder of a trial of the first run, once its first epoch is saved."""
    if not is_grid(out):
        return None
    folder = asked_runs(out)[0].folder.trial(fold, 0)
    return folder if folder.training_checkpoint.is_file() else None


def wait_for(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 300
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def process_of(folder: TrialFolder) -> int:
    """The process that carries out a trial, as its lock says."""
    found = re.match(r"process (\d+) on", wait_for(lambda: files.holder(folder.path)))
    assert found
    return int(found[1])


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def while_running(action: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    return thread


@pytest.mark.slow
def test_faults_on_this_machine_lose_nothing(grid: Path, baseline: Path, cache: Path) -> None:
    """A trial is killed, another finds a NaN loss; the disk is full; then all is well."""
    out = grid.parent / "out"
    bad = yaml.safe_load((grid.parent / "good.yaml").read_text())
    bad["training"] |= {"learning_rate": 1e30}
    (grid.parent / "nan.yaml").write_text(yaml.safe_dump(bad))
    changed(grid, recipes=["good.yaml", "nan.yaml"])

    def kill() -> None:
        os.kill(process_of(wait_for(lambda: trained(out))), signal.SIGKILL)

    killer = while_running(kill)
    runs = carry(grid, "local", cache, jobs=2)
    killer.join()
    assert states(runs) == {"good": ["failed"], "nan": ["failed"]}
    assert "killed by SIGKILL" in runs[0].states()[0].reason
    assert re.search(r"training epoch \d+.* is (nan|inf)", runs[1].states()[0].reason)

    changed(grid, recipes=["good.yaml"])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        runs = carry(grid, "local", cache)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert states(runs) == {"good": ["failed"]}
    assert "cannot write" in runs[0].states()[0].reason
    [run] = carry(grid, "local", cache)
    assert same(run, baseline)
    assert (run.path / "result.json").read_bytes() == (baseline / "result.json").read_bytes()


@pytest.mark.slow
def test_a_driver_that_is_stopped_or_killed_loses_nothing(
    grid: Path, baseline: Path, tiny_emodb: Path, cache: Path
) -> None:
    out = grid.parent / "out"
    command = ("grid", grid, "--out", out, "--cache", cache)
    with start(*command) as driver:
        folder = wait_for(lambda: trained(out))
        with pytest.raises(RunError, match=rf"in use by process {driver.pid} on"):
            carry(grid, "local", cache)
        driver.send_signal(signal.SIGINT)
        _, error = driver.communicate(timeout=300)
    assert driver.returncode == 130, error
    assert "Traceback" not in error
    assert "Stopping after the epoch" in error
    assert f"emodarts watch {out}" in error
    assert re.search(r"^Stopped with 0 of 1 trials finished.*To go on:  emodarts grid", error, re.M)
    rows = files.read_csv(folder.training_history, RunError)
    assert 0 < len(rows) < EPOCHS, "stopped too late to show anything"

    with start(*command) as driver:
        wait_for(lambda: len(files.read_csv(folder.training_history, RunError)) > len(rows))
        driver.kill()
        driver.communicate(timeout=300)
    wait_for(lambda: files.holder(folder.path) is None)  # the trial ends with its driver
    assert not folder.result.is_file()
    # It is an ordinary run, too.
    [begun] = asked_runs(out)
    corpus = load_corpus("emodb", tiny_emodb)
    run(load_recipe(begun.folder.recipe), corpus, begun.path, Options(cache=cache, resume=True))
    assert same(begun, baseline)


STAND_IN = """#!/bin/sh
# Runs the first task of a job array, cancels the second, and loses the others.
for word in "$@"; do
  case $word in
    --array=0-3%3) echo "7;cluster" ;;
    --output=*) log=${word#--output=} ;;
  esac
done
SLURM_ARRAY_TASK_ID=1 timeout -k 5 0.1 sh "$word" > "$(echo "$log" | sed s/%a/1/)" 2>&1
SLURM_ARRAY_TASK_ID=0 sh "$word" > "$(echo "$log" | sed s/%a/0/)" 2>&1
exit 1
"""
ACCOUNTING = """#!/bin/sh
echo "7_0|COMPLETED"
echo "7_1|CANCELLED by 1000"
echo "7_2|OUT_OF_MEMORY"
echo "7_[3-3%3]|CANCELLED by 1000"
"""


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def test_a_job_array_gives_the_same_bits_and_says_what_was_lost(
    grid: Path, baseline: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One task is cancelled, one ran out of memory, one never began."""
    programs = grid.parent / "bin"
    program(programs, "sbatch", STAND_IN)
    program(programs, "sacct", ACCOUNTING)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    changed(grid, folds=[0, 1], seeds=[0, 1])
    [run] = carry(grid, "slurm", cache, jobs=3, sbatch=("--partition=gpu",))
    assert states((run,)) == {"good": ["done", "failed", "failed", "failed"]}
    assert same(run, baseline)
    cancelled, memory, never = (trial.reason for trial in run.states()[1:])
    assert re.fullmatch(r"its task was cancelled; see .*/1\.log", cancelled)
    assert "its task ran out of memory (--memory gives it more)" in memory
    assert "its task was cancelled" in never
    program(programs, "sbatch", "#!/bin/sh\necho 8\nexit 1\n")
    program(programs, "sacct", "#!/bin/sh\necho no accounting >&2\nexit 1\n")
    [run] = carry(grid, "slurm", cache, jobs=3)
    assert "ended without a report, as one that was killed" in run.states()[1].reason
    program(programs, "sbatch", "#!/bin/sh\necho invalid partition >&2\nexit 1\n")
    with pytest.raises(RunError, match="sbatch refused the job array: invalid partition"):
        carry(grid, "slurm", cache)


@pytest.fixture
def nodes() -> Iterator[list[Any]]:
    """A Ray cluster of two nodes with a core each, all of it processes of this machine.

    Each node is killed as soon as it does not answer for two seconds, so that a test need not wait.
    """
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    patience = {
        "health_check_initial_delay_ms": 1000,
        "health_check_period_ms": 500,
        "health_check_timeout_ms": 500,
        "health_check_failure_threshold": 3,
    }
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "_system_config": patience},
    )
    try:
        yield [cluster.head_node, cluster.add_node(num_cpus=1)]
    finally:
        cluster.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the engine's own
def test_a_killed_node_and_a_killed_worker_of_ray_lose_nothing(
    grid: Path, baseline: Path, cache: Path, nodes: list[Any]
) -> None:
    """A trial on each of two nodes: one node is killed, and the worker on the other."""
    out = grid.parent / "out"
    head, second = (node.all_processes["raylet"][0].process.pid for node in nodes)
    killed: dict[int, int] = {}

    def kill() -> None:
        for fold in (0, 1):
            worker = parent_of(process_of(wait_for(lambda fold=fold: trained(out, fold))))
            node = parent_of(worker)
            killed[node] = second if node == second else worker
        for process in killed.values():
            os.kill(process, signal.SIGKILL)

    killer = while_running(kill)
    changed(grid, folds=[0, 1])
    [run] = carry(grid, "ray", cache, address=nodes[0].gcs_address)
    killer.join()
    assert set(killed) == {head, second}
    assert states((run,)) == {"good": ["done", "done"]}
    assert same(run, baseline)


def test_a_runner_that_is_not_there_says_so(
    grid: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RunError, match="no runner 'sulrm' \\(did you mean 'slurm'\\?\\)"):
        carry(grid, "sulrm", cache)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(RunError, match="cannot run sbatch: No such file"):
        carry(grid, "slurm", cache)
