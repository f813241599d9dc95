"""How a run is computed: settled once, recorded, and kept by a resumed run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from emodarts import files
from emodarts.errors import RecipeError, RunError
from emodarts.fast import Implementation, resolve
from emodarts.layout import RunFolder
from emodarts.recipe import ComputeSpec
from emodarts.runtime import resolve_device


@dataclass(frozen=True)
class Compute:
    """Device, threads, cells and precision decide the bits of a result; ``jobs`` does not.

    Attributes
    ----------
    spec : with device and threads settled.
    cells : implementation of the cells.
    jobs : trials that run side by side.
    """

    spec: ComputeSpec
    cells: Implementation
    jobs: int

    def record(self) -> dict[str, Any]:
        """For ``environment.json``."""
        return {
            "device": self.spec.device,
            "threads": self.spec.threads,
            "cells": self.cells,
            "precision": self.spec.precision,
        }


def settle_compute(
    asked: ComputeSpec, resumed: RunFolder | None, jobs: int | Literal["auto"] = 1
) -> Compute:
    """Settle what a recipe leaves open, in a resumed run as it was recorded.

    Threads are divided among the trials that run side by side, unless the recipe gives the threads
    of each.

    Raises
    ------
    RecipeError
        If the device is not available, or ``jobs`` is not at least 1.
    RunError
        If a resumed run was begun otherwise than asked for, or cannot be computed so here.
    """
    if jobs != "auto" and jobs < 1:
        raise RecipeError(f"--jobs {jobs}; allowed: at least 1, or auto")
    if resumed is not None and resumed.environment.is_file():
        asked = _as_recorded(asked, resumed)
    device = resolve_device(asked.device)
    available = torch.get_num_threads()
    if jobs == "auto":
        n_jobs = max(1, available // (asked.threads or 1)) if device.type == "cpu" else 1
    else:
        n_jobs = jobs
    threads = asked.threads or max(1, available // n_jobs)
    spec = asked.model_copy(update={"device": device.type, "threads": threads})
    cells = resolve(spec.fast, device, spec.precision)
    if resumed is not None and resumed.environment.is_file():
        recorded = files.read_object(resumed.environment, RunError, "cells")["cells"]
        if recorded != cells:
            raise RunError(
                f"{resumed.path} was begun with {recorded} cells, which cannot be computed here "
                f"({cells} would be); is numba installed? Or give another --out"
            )
    return Compute(spec, cells, n_jobs)


def recorded_compute(run: RunFolder, asked: ComputeSpec | None = None) -> ComputeSpec:
    """How a run was begun, and of ``asked`` what results do not depend on.

    Raises :class:`RunError` if the record is missing or broken.
    """
    recorded = files.read_object(
        run.environment, RunError, "device", "threads", "cells", "precision"
    )
    return ComputeSpec(
        device=recorded["device"],
        threads=recorded["threads"],
        fast=recorded["cells"] != "plain",
        precision=recorded["precision"],
        **free_keys(asked or ComputeSpec()),
    )


def free_keys(spec: ComputeSpec) -> dict[str, Any]:
    """Keys that results do not depend on, and that a resumed run may have otherwise."""
    return {key: getattr(spec, key) for key in ("features", "mlflow")}


def _as_recorded(asked: ComputeSpec, run: RunFolder) -> ComputeSpec:
    """What was recorded; refuse what was explicitly asked for and differs."""
    recorded = recorded_compute(run, asked)
    for key in ("device", "threads", "fast", "precision"):
        wanted, found = getattr(asked, key), getattr(recorded, key)
        # A default is not a wish: the option need not be repeated.
        if key in asked.model_fields_set and wanted not in ("auto", None, found):
            name = key if key in ("device", "threads") else f"compute.{key}"
            found, wanted = (str(value).lower() for value in (found, wanted))
            raise RunError(
                f"{run.path} was begun with {name} {found}, and a resumed run must end as one "
                f"that was never stopped; leave {name} {wanted} out, or give another --out"
            )
    return recorded
