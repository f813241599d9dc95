"""Readers of label files decide alike on what is there twice or has no counterpart."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from emodarts.corpora import READERS
from emodarts.corpora.labelled import collect_turns, join_sound
from emodarts.corpora.utterance import Utterance
from emodarts.errors import CorpusError

TURNS = {
    "iemocap": (
        "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt",
        "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5, 3.0, 3.5]\n",
        "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav",
    ),
    "msp-improv": (
        "Evaluation.txt",
        "UTD-IMPROV-S01A-F01-S-FM01.avi; N; A:3.0; V:3.5; D:2.5 ; N:4.0;\n",
        "session1/MSP-IMPROV-S01A-F01-S-FM01.wav",
    ),
    "msp-podcast": (
        "labels_consensus.csv",
        "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set\n"
        "MSP-PODCAST_0001_0008.wav,N,2.2,4.0,2.6,30,Male,Test1\n",
        "Audios/MSP-PODCAST_0001_0008.wav",
    ),
}


@pytest.mark.parametrize("name", TURNS)
def test_the_second_file_of_a_turn(tmp_path: Path, name: str) -> None:
    labels, text, file = TURNS[name]
    for path, content in ((labels, text), (file, "sound")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    copy = Path(file).parent / "below" / Path(file).name
    (tmp_path / copy).parent.mkdir()
    shutil.copy(tmp_path / file, tmp_path / copy)
    corpus = READERS[name](tmp_path)
    assert [u.path for u in corpus] == [tmp_path / file]
    assert corpus.skipped == ((copy.as_posix(), "copy of another file"),)
    (tmp_path / copy).write_text("another sound")
    with pytest.raises(CorpusError, match="the same name but different sizes") as caught:
        READERS[name](tmp_path)
    assert f"{tmp_path / file} and {tmp_path / copy}" in str(caught.value)


def said(name: str, label: str | None = "sad", gender: str | None = None) -> Utterance:
    return Utterance(name, Path(name), label, "s1", gender=gender)


def test_rows_repeat_or_contradict(tmp_path: Path) -> None:
    rows: list[tuple[str, Utterance | str]] = [("1", said("a")), ("2", said("b")), ("3", said("a"))]
    assert collect_turns(tmp_path, rows, "allowed: x") == {"a": said("a"), "b": said("b")}
    rows += [("4", said("b", "glad")), ("5", "no row"), ("6", said("c", "sad", "male"))]
    rows += [("7", said("d", "sad", "female"))]
    with pytest.raises(CorpusError, match=r"has 3 error\(s\); allowed: x") as caught:
        collect_turns(tmp_path, rows, "allowed: x")
    for found in ("4: b differs from 2", "5: no row", "7: speaker 's1' is female here and "
                 "male in 6"):  # fmt: skip
        assert found in str(caught.value)


def test_labels_and_sound_meet_by_name(tmp_path: Path) -> None:
    turns = {name: said(name, label) for name, label in (("b", "sad"), ("a", "glad"), ("c", None))}
    sound = {name: Utterance(name, tmp_path / name, None, None) for name in "cbx"}
    common = {"glad": "happiness", "sad": "sadness"}
    corpus = join_sound("toy", tmp_path, turns, sound, [("y", "why")], common, "sound")
    assert [(u.name, u.path, u.label, u.speaker) for u in corpus] == [
        ("b", tmp_path / "b", "sad", "s1"), ("c", tmp_path / "c", None, "s1"),
    ]  # fmt: skip
    assert corpus.classes == ("sad",)
    assert corpus.skipped == (("a", "no audio file"), ("x", "not in the label files"), ("y", "why"))
    with pytest.raises(
        CorpusError, match="none of the 3 labelled turns has an audio file; expected it"
    ):
        join_sound("toy", tmp_path, turns, {}, [], common, "it")
