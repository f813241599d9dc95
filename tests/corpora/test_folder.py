"""What readers share: looking into folders, reading text, telling many faults in few lines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from emodarts.corpora.folder import (
    check_folder,
    index_sound,
    read_rating,
    read_text,
    refuse_faults,
    walk_files,
)
from emodarts.corpora.utterance import Utterance
from emodarts.errors import CorpusError


def test_files_come_in_order_and_the_outer_copy_first(tmp_path: Path) -> None:
    for name in ("b/2.wav", "b/b/1.wav", "a/9.wav", "z.wav", "b/10.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in walk_files(tmp_path)]
    assert found == ["z.wav", "a/9.wav", "b/10.wav", "b/2.wav", "b/b/1.wav"]


def test_links_are_followed_and_never_in_a_circle(tmp_path: Path) -> None:
    real, corpus = tmp_path / "disk", tmp_path / "corpus"
    (real / "wav").mkdir(parents=True)
    corpus.mkdir()
    (real / "wav" / "a.wav").touch()
    (corpus / "audio").symlink_to(real)
    (real / "wav" / "up").symlink_to(corpus)
    assert list(walk_files(corpus)) == [corpus / "audio" / "wav" / "a.wav"]


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"])
def test_an_impossible_folder_is_an_error_of_ours(name: str) -> None:
    with pytest.raises(CorpusError, match=r"cannot list|no such folder"):
        check_folder(Path(name), "emodb", "files")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_locked_folder_is_named(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0)
    with pytest.raises(CorpusError, match="locked"):
        list(walk_files(tmp_path))


def test_files_are_indexed_by_their_utterances(tmp_path: Path) -> None:
    for name in ("a.wav", "a-wav/A.WAV", "._a.wav", "b.wav", "x/y.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")

    def parse(path: Path) -> Utterance | str:
        name = path.stem.lower()
        return Utterance(name, path, None, None) if name in "ab" else "not a or b"

    found, skipped = index_sound(walk_files(tmp_path), tmp_path, parse)
    assert {name: u.path for name, u in found.items()} == {
        "a": tmp_path / "a.wav", "b": tmp_path / "b.wav",
    }  # fmt: skip
    assert skipped == [
        ("._a.wav", "resource fork of macOS, not audio"),
        ("a-wav/A.WAV", "copy of another file"),
        ("x/y.wav", "not a or b"),
    ]
    (tmp_path / "a-wav" / "A.WAV").write_bytes(b"123")
    with pytest.raises(CorpusError, match=r"different sizes \(5 and 3 bytes\)") as caught:
        index_sound(walk_files(tmp_path), tmp_path, parse)
    assert f"{tmp_path / 'a.wav'} and {tmp_path / 'a-wav' / 'A.WAV'}" in str(caught.value)


def test_text_of_any_line_ends_with_or_without_mark(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n")
    assert read_text(path) == "a\nb\nc\n"
    path.write_bytes(b"a\xff")
    with pytest.raises(CorpusError, match=r"labels.txt is not UTF-8 text \(byte 1\)"):
        read_text(path)
    with pytest.raises(CorpusError, match=r"cannot read .*none\.txt"):
        read_text(tmp_path / "none.txt")


@pytest.mark.parametrize(("text", "value"), [("2.5", 2.5), (" 1 ", 1.0), ("", None), ("NaN", None)])
def test_ratings(text: str, value: float | None) -> None:
    assert read_rating(text) == value


@pytest.mark.parametrize(
    "text", ["inf", "-inf", "1e999", "high", "1,5", "1_0", "\u0663", "0x1", "."]
)
def test_what_is_no_rating(text: str) -> None:
    with pytest.raises(ValueError):
        read_rating(text)


def test_many_faults_are_a_summary(tmp_path: Path) -> None:
    refuse_faults(tmp_path, [], "allowed: anything")
    with pytest.raises(CorpusError) as caught:
        refuse_faults(tmp_path, [f"line {k}: bad" for k in range(10_000)], "allowed: good")
    found = str(caught.value).splitlines()
    assert found[0] == f"{tmp_path} has 10000 error(s); allowed: good:"
    assert found[-1] == "  and 9995 more"
    assert len(found) == 7
