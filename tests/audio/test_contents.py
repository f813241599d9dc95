"""A file's content is remembered only while nothing can have changed unseen."""

from __future__ import annotations

import os
import time
from multiprocessing import get_context
from pathlib import Path

import pytest

from emodarts.audio import contents
from emodarts.audio.contents import Contents, file_key

pytestmark = pytest.mark.skipif(os.name != "posix", reason="elsewhere no time of change is kept")


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take files for old that the test has just made."""
    monkeypatch.setattr(contents, "SETTLED_NS", -(10**15))


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / "a.wav"
    path.write_bytes(b"0123")
    return path


def test_a_file_that_may_still_change_unseen_is_not_remembered(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.utime(sound, (0, 0))
    assert file_key(sound) is None, "the time of change counts, which cannot be set back"
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 10**10)
    assert file_key(sound) is not None
    os.utime(sound, ns=(0, now + 10**11))
    assert file_key(sound) is None, "a time to come says nothing"
    Contents(tmp_path / "index").remember(sound, None, "0" * 64)
    assert not (tmp_path / "index").exists()


@pytest.mark.usefixtures("settled")
def test_whatever_happens_to_a_file_is_seen(sound: Path, tmp_path: Path) -> None:
    def rewrite() -> None:
        sound.write_bytes(b"4567")

    def replace() -> None:
        (tmp_path / "new").write_bytes(b"4567")
        (tmp_path / "new").replace(sound)

    def grow() -> None:
        sound.write_bytes(b"01234567")

    for change in (rewrite, replace, grow, rewrite):
        key = file_key(sound)
        known = Contents(tmp_path / "index")
        known.remember(sound, key, "0" * 64)
        assert Contents(tmp_path / "index").recall(sound) == "0" * 64
        before = sound.stat()
        time.sleep(0.01)  # a tick of the file system's clock
        change()
        os.utime(sound, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert Contents(tmp_path / "index").recall(sound) is None
        assert known.recall(sound) is None
        known.remember(sound, key, "1" * 64)
        (lines,) = (tmp_path / "index").iterdir()
        assert "1" * 64 not in lines.read_text(), "it changed while it was read"
    sound.unlink()
    assert Contents(tmp_path / "index").recall(sound) is None


@pytest.mark.usefixtures("settled")
def test_what_a_crash_left_is_skipped(sound: Path, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    key = str(file_key(sound))
    Contents(folder).remember(sound, key, "0" * 64)
    (place,) = folder.iterdir()
    whole = place.read_bytes()
    for cut in range(len(whole)):
        # A line that was cut off; the next process goes on where it ends.
        place.write_bytes(whole[:cut])
        assert Contents(folder).recall(sound) in (None, "0" * 64)
        Contents(folder).remember(sound, key, "0" * 64)
        Contents(folder).remember(sound, key, "0" * 64)
        assert Contents(folder).recall(sound) == "0" * 64, cut
    place.write_bytes(b"\xff\x00" * 1000)
    assert Contents(folder).recall(sound) is None


@pytest.mark.usefixtures("settled")
def test_an_index_that_cannot_be_written_is_done_without(sound: Path, tmp_path: Path) -> None:
    (tmp_path / "index").write_text("in the way")
    known = Contents(tmp_path / "index")
    known.remember(sound, file_key(sound), "0" * 64)
    assert known.recall(sound) is None


def _remember(folder: Path, paths: list[Path], content: str) -> None:
    contents.SETTLED_NS = -(10**15)
    known = Contents(folder)
    for path in paths:
        known.remember(path, file_key(path), content)


def test_two_processes_remember_at_once(tmp_path: Path) -> None:
    paths = [tmp_path / f"{k}.wav" for k in range(200)]
    for path in paths:
        path.write_bytes(b"0123")
    context = get_context("spawn")
    both = [
        context.Process(target=_remember, args=(tmp_path / "index", rows, content * 64))
        for rows, content in ((paths[::2], "0"), (paths[1::2], "1"))
    ]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
        assert process.exitcode == 0
    known = Contents(tmp_path / "index")
    old = contents.SETTLED_NS
    contents.SETTLED_NS = -(10**15)
    try:
        found = [known.recall(path) for path in paths]
    finally:
        contents.SETTLED_NS = old
    assert found == ["0" * 64, "1" * 64] * 100
