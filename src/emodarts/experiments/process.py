"""A trial in a process of its own, which ends with the process that started it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from emodarts import errors
from emodarts.errors import EmodartsError, RunError
from emodarts.experiments.spec import TrialSpec

_SECONDS_BETWEEN_LOOKS = 0.2


class TrialProcess:
    """A process that carries out a trial.

    Parameters
    ----------
    spec : of the trial.
    logged : write what the trial prints to ``log.txt`` in its folder, not to this terminal.
    environment : variables besides those of this process.
    """

    def __init__(
        self,
        spec: TrialSpec,
        *,
        logged: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.spec = spec
        self._log = spec.folder.log if logged else None
        text = json.dumps(spec.to_dict())
        command = [sys.executable, "-m", "emodarts.experiments.trial", text, "stdin"]
        if self._log is not None:
            self._log.parent.mkdir(parents=True, exist_ok=True)
        with open(os.devnull if self._log is None else self._log, "ab") as log:  # noqa: PTH123
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # ends with this process, and the trial with it
                stdout=subprocess.PIPE,
                stderr=None if self._log is None else log,
                text=True,
                start_new_session=True,  # so that Ctrl-C reaches this process alone
                env={**os.environ, **(environment or {})},
            )

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the process ends, or so long; return whether it has ended."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self) -> None:
        """Let it stop as by Ctrl-C."""
        with suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.write(".")
                self._process.stdin.flush()

    def kill(self) -> None:
        """End it at once; it can be resumed."""
        with suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        with self._process:
            self._process.wait()

    @property
    def was_killed(self) -> bool:
        """Whether a signal ended the process."""
        return self._process.wait() < 0

    def failure(self) -> dict[str, str] | None:
        """Why the trial failed: the class of the error and its message; None if it is finished."""
        code = self._process.wait()
        with self._process:
            printed = self._process.stdout.read() if self._process.stdout is not None else ""
        return describe_failure(code, printed, self._log)


def describe_failure(code: int, printed: str, log: Path | None) -> dict[str, str] | None:
    """The failure of a process with this exit code and output, as JSON values."""
    if code == 0:
        return None
    where = "above" if log is None else f"in {log}"
    if code < 0:
        name = signal.Signals(-code).name
        hint = ", as happens when memory runs out" if name == "SIGKILL" else ""
        return {"error": "RunError", "message": f"the process was killed by {name}{hint}"}
    if code == 130:
        return {"error": "RunError", "message": "it was stopped"}
    try:
        found = json.loads(printed)
        kind, message = str(found["error"]), str(found["message"])
    except (ValueError, LookupError, TypeError):
        return {"error": "RunError", "message": f"it failed; its traceback is {where}"}
    if kind in vars(errors):
        return {"error": kind, "message": message}
    return {"error": "RunError", "message": f"{kind}: {message} (its traceback is {where})"}


def error_of(spec: TrialSpec, failure: Mapping[str, str]) -> EmodartsError:
    """The error of a failed trial, whose message begins with the title of the trial."""
    kind: type[EmodartsError] = getattr(errors, failure["error"], RunError)
    return kind(f"{spec.title}: {failure['message']}")


class ChildKilledError(RuntimeError):
    """The process of a trial was killed, so that another try may help."""


def carry_out_in_process(text: str) -> str:
    """Carry out a trial given as JSON in a process of its own; return why it failed.

    Raises
    ------
    ChildKilledError
        If that process was killed.
    """
    process = TrialProcess(TrialSpec(**json.loads(text)), logged=True)
    try:
        while not process.wait(_SECONDS_BETWEEN_LOOKS):
            pass
    except KeyboardInterrupt:  # which goes on to the trial
        process.stop()
        process.wait()
    except BaseException:
        process.kill()
        raise
    failure = process.failure()
    if process.was_killed and failure is not None:
        raise ChildKilledError(failure["message"])
    return json.dumps(failure)
