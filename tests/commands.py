"""The command line in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

#: Commands are forked from a process that has imported what takes a command seconds to import. So
#: they share its hash seed, unlike :func:`start` and trials side by side.
_COMMANDS = multiprocessing.get_context("forkserver")
_COMMANDS.set_forkserver_preload(
    ["numba", "torch", "emodarts.cli.app", "emodarts.experiments.run", "emodarts.reports.report"]
)


def emodarts(
    *arguments: str | Path, code: int = 0, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command and check its exit code."""
    # As the command line itself does before torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "300")
    words = [str(argument) for argument in arguments]
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / name for name in ("stdout", "stderr")]
        process = _COMMANDS.Process(
            target=_carry_out, args=(words, dict(os.environ), cwd or Path.cwd(), *outputs)
        )
        process.start()
        process.join(540)
        if process.exitcode is None:
            process.kill()
        done = subprocess.CompletedProcess(
            ["emodarts", *words], process.exitcode, *(path.read_text() for path in outputs)
        )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def _carry_out(
    words: list[str], environment: dict[str, str], cwd: Path, stdout: Path, stderr: Path
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for path, stream in ((stdout, sys.stdout), (stderr, sys.stderr)):
        with path.open("w") as file:
            os.dup2(file.fileno(), stream.fileno())
    sys.argv = ["emodarts", *words]
    from emodarts.cli import main

    main()


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
