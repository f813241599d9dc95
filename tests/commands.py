"""The command line in processes of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path


def emodarts(
    *arguments: str | Path, code: int = 0, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command and check its exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "emodarts", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=540,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def refused(*arguments: str | Path, cwd: Path | None = None) -> str:
    """Run a command that must end with one clear error and exit code 2; return its text."""
    done = emodarts(*arguments, code=2, cwd=cwd)
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert done.stdout == ""
    return done.stderr[done.stderr.index("error: ") :].strip()


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    """Begin a command as the only group of processes of a terminal."""
    return subprocess.Popen(
        [sys.executable, "-m", "emodarts", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_interruptible,
    )


def _interruptible() -> None:
    """A shell in the background, such as one that runs tests, lets its children ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
