"""Atomic writes: a reader sees the old file or the new one, whatever goes wrong."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emodarts import files
from emodarts.errors import CorpusError, RunError, WriteError

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # JSON in UTF-8 has no lone surrogates.
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)


@contextmanager
def file_size_limit(n_bytes: int) -> Iterator[None]:
    """Make the system refuse to let any file of this process grow beyond ``n_bytes``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_write_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "x.txt"
    files.write_text(path, "old")
    files.write_text(path, "Zürich\n")
    assert path.read_bytes() == "Zürich\n".encode()
    assert names(path.parent) == ["x.txt"]


def test_mode_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        files.write_text(tmp_path / "x", "")
        mask = os.umask(0o027)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640
    assert mask == 0o027, "writing must not change the umask of the process"


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_failed_write_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "result.json"
    files.write_json(path, {"old": 1})

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if step == "write":
        with (
            file_size_limit(4096),
            pytest.raises(WriteError, match=r"result\.json: File too large"),
        ):
            files.write_bytes(path, b"x" * 100_000)
    else:
        with monkeypatch.context() as patch:
            patch.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), full)
            with pytest.raises(
                WriteError, match=r"result\.json: No space left.*existing file is unchanged"
            ):
                files.write_json(path, {"new": 2})
    assert files.read_json(path, RunError) == {"old": 1}
    assert names(tmp_path) == ["result.json"]


def test_interrupted_write_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    files.write_text(path, "old")

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["x"]


FULL_DISK = """
import sys
from pathlib import Path
from emodarts import files
from emodarts.errors import WriteError
folder = Path(sys.argv[1])
path = folder / "weights"
files.write_bytes(path, b"old")
try:
    files.write_bytes(path, bytes(1 << 20))
except WriteError as error:
    print(error)
print(path.read_bytes() == b"old", [p.name for p in folder.iterdir()] == ["weights"])
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="mounts a small disk as Linux does"
)
def test_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no unshare")
    # A mount of its own, which vanishes with the process.
    mount = 'mount -t tmpfs -o size=64k tmpfs "$1" || exit 77; exec "$2" -c "$3" "$1"'
    command = [unshare, "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    done = subprocess.run(
        [*command, str(tmp_path), sys.executable, FULL_DISK],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode == 77 or (done.returncode and "unshare" in done.stderr):
        pytest.skip(f"no mounts here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    message, kept = done.stdout.splitlines()
    assert f"cannot write {tmp_path / 'weights'}: No space left on device" in message
    assert kept == "True True"


def test_folder_in_the_way_is_a_write_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot write"):
        files.write_text(tmp_path / "file" / "x", "")
    (tmp_path / "folder").mkdir()
    with pytest.raises(WriteError, match="Is a directory"):
        files.write_text(tmp_path / "folder", "")
    assert names(tmp_path) == ["file", "folder"]


def test_name_in_another_encoding_is_a_write_error(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.wav")
    with pytest.raises(WriteError, match=r"caf\\udce9\.wav"):
        files.write_json(tmp_path / "x.json", {"name": name})
    assert names(tmp_path) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_refuses_what_json_has_not(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "x.json", {"ua": [value]})
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.digest_of(value)
    assert names(tmp_path) == []


@given(value=JSON)
def test_json_round_trip(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.getbasetemp() / "round.json"
    files.write_json(path, value)
    assert files.read_json(path, RunError) == value


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": 1,\n "b": }', "x.json is not JSON: line 2, column 7"),
        (b"", "x.json is not JSON: line 1"),
        (b"\xff\xfe", "cannot read .*x.json"),
        (b"[" * 100_000, "x.json is not usable JSON: .*recursion"),
        (b"9" * 5000, "x.json is not usable JSON: .*digits"),
    ],
)
def test_bad_json_names_file_and_line(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(data)
    with pytest.raises(RunError, match=message):
        files.read_json(path, RunError)


@pytest.mark.parametrize("read", [files.read_json, files.read_csv])
def test_missing_file_raises_the_error_asked_for(tmp_path: Path, read: object) -> None:
    with pytest.raises(CorpusError, match=r"no such file: .*absent"):
        read(tmp_path / "absent", CorpusError)  # type: ignore[operator]
    with pytest.raises(CorpusError, match="cannot read"):
        read(tmp_path, CorpusError)  # type: ignore[operator]


@given(value=st.floats(allow_nan=False))
def test_csv_keeps_every_digit(tmp_path_factory: pytest.TempPathFactory, value: float) -> None:
    path = tmp_path_factory.getbasetemp() / "digits.csv"
    files.write_csv(path, ["name", "value"], [{"name": 'a, "b"\nc', "value": value}])
    (row,) = files.read_csv(path, RunError)
    assert row["name"] == 'a, "b"\nc'
    assert float(row["value"]) == value


def test_csv_with_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes("file,speaker\nä.wav,s1\n".encode("utf-8-sig"))
    assert files.read_csv(path, RunError) == [{"file": "ä.wav", "speaker": "s1"}]


@pytest.mark.parametrize("row", ["b.wav", "b.wav,s2,extra"])
def test_csv_row_of_another_length_names_its_line(tmp_path: Path, row: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"file,speaker\na.wav,s1\n{row}\n")
    with pytest.raises(RunError, match=r"x\.csv, line 3: .* 2 cells .*\(file, speaker\)"):
        files.read_csv(path, RunError)


@given(value=st.dictionaries(st.text(), JSON, min_size=2))
def test_digest_does_not_depend_on_key_order(value: dict[str, object]) -> None:
    backwards = dict(reversed(list(value.items())))
    assert files.digest_of(value) == files.digest_of(backwards)


def test_digest_differs_between_values() -> None:
    values = [{"a": 1}, {"a": "1"}, {"a": [1]}, {"a": None}, {"b": 1}, {"a": 1, "b": 1}, {}]
    assert len({files.digest_of(v) for v in values}) == len(values)


# --- folders and files that another process has ---

HOLDER = """
import sys, time
from pathlib import Path
from emodarts import files
from emodarts.errors import RunError
if sys.argv[2] == "folder":
    with files.locked(Path(sys.argv[1]), RunError):
        print("held", flush=True)
        sys.stdin.read()
else:
    import os
    os.fsync = lambda _: (print("held", flush=True), sys.stdin.read())
    files.write_text(Path(sys.argv[1]) / "x", "whole")
"""


@contextmanager
def holder(folder: Path, what: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the lock of a folder, or is writing a file in it."""
    command = [sys.executable, "-c", HOLDER, str(folder), what]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_locked_folder_names_the_process_that_has_it(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "x"
    with holder(folder, "folder") as process:
        with (
            pytest.raises(RunError, match=rf"x is in use by process {process.pid} on .*, since 2"),
            files.locked(folder, RunError),
        ):
            pass
        assert names(folder) == [files.LOCK]
        process.kill()
        process.wait()
        assert names(folder) == [files.LOCK]  # left by the killed process, and no obstacle
        with files.locked(folder, RunError):
            (folder / "mine").touch()
    assert names(folder) == ["mine"]


def test_a_lock_is_of_one_holder_in_a_process_too(tmp_path: Path) -> None:
    with (
        files.locked(tmp_path / "x", RunError),
        pytest.raises(RunError, match=f"in use by process {os.getpid()} "),
        files.locked(tmp_path / "x", RunError),
    ):
        pass


def test_a_folder_that_is_locked_for_nothing_leaves_no_trace(tmp_path: Path) -> None:
    with files.locked(tmp_path / "runs" / "x", RunError):
        assert names(tmp_path / "runs" / "x") == [files.LOCK]
    assert names(tmp_path) == []


def test_the_temporary_file_of_a_live_process_is_not_swept_up(tmp_path: Path) -> None:
    (tmp_path / f".y.{'0' * 32}").write_text("half")
    with holder(tmp_path, "file") as process:
        files.remove_leftovers(tmp_path)
        [temporary] = names(tmp_path)
        assert temporary.startswith(".x.")
        process.communicate()
        assert process.returncode == 0
    assert (tmp_path / "x").read_text() == "whole"


def test_the_temporary_file_of_a_killed_process_is_swept_up(tmp_path: Path) -> None:
    with holder(tmp_path, "file") as process:
        process.kill()
    assert len(names(tmp_path)) == 1
    files.remove_leftovers(tmp_path)
    assert names(tmp_path) == []
