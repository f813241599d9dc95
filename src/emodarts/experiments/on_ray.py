"""Trials on a Ray cluster, or on one that is started on this machine (the extra ``ray``)."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from emodarts.errors import RunError
from emodarts.experiments.process import ChildKilledError, carry_out_in_process
from emodarts.experiments.runners import STOPPING, Means, TrialReport, threads_of
from emodarts.experiments.spec import TrialSpec

_SECONDS_BETWEEN_LOOKS = 0.2


class OnRay:
    """One Ray task for each trial; the task supervises a process that carries the trial out.

    A spec goes there as JSON and a report comes back as JSON: Ray pickles nothing of ours.
    """

    def __init__(self, means: Means) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ImportError:
            raise RunError('runner ray needs the extra: pip install "emodarts[ray]"') from None
        self._means, self._ray = means, ray

    def run(self, trials: Sequence[TrialSpec]) -> Iterator[TrialReport]:
        """Carry out trials; see :class:`~emodarts.experiments.runners.Runner`."""
        ray = self._ray
        self._start()
        task = ray.remote(carry_out_in_process)
        pending: dict[Any, TrialSpec] = {}
        try:
            for spec in trials:
                needs = {
                    "num_cpus": threads_of(spec),
                    "num_gpus": self._means.gpus,
                    "memory": (self._means.memory or 0) * 10**6 or None,
                    "max_retries": self._means.retries,
                    "retry_exceptions": [ChildKilledError],
                }
                pending[task.options(**needs).remote(json.dumps(spec.to_dict()))] = spec
            while pending:
                ready, _ = ray.wait(list(pending), num_returns=1, timeout=_SECONDS_BETWEEN_LOOKS)
                for reference in ready:
                    yield TrialReport(pending.pop(reference), self._failure(reference))
        except KeyboardInterrupt:
            sys.stderr.write(STOPPING)
            for reference in pending:
                ray.cancel(reference, force=False)
            ray.wait(list(pending), num_returns=len(pending))
            raise
        finally:
            with suppress(Exception):
                for reference in pending:
                    ray.cancel(reference, force=True)
            ray.shutdown()

    def _start(self) -> None:
        # None would look for any cluster of this machine.
        address = self._means.address or "local"
        here: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
        try:
            self._ray.init(address, log_to_driver=False, configure_logging=False, **here)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            where = self._means.address or "on this machine"
            raise RunError(f"no Ray cluster {where}: {error}") from error

    def _failure(self, reference: Any) -> dict[str, str] | None:
        try:
            failure: dict[str, str] | None = json.loads(self._ray.get(reference))
        except self._ray.exceptions.RayError as error:
            text = " ".join(str(error).split())[:500]
            return {"error": "RunError", "message": f"{type(error).__name__}: {text}"}
        return failure
