"""Databases in audformat: those that its library writes, and those that are unsafe to open."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emodarts.corpora.audformat_tables import read_audformat
from emodarts.corpora.utterance import Utterance
from emodarts.errors import CorpusError

HEADER = """
name: mine
source: ''
usage: unrestricted
schemes:
  emotion: {dtype: str, labels: [anger, joy]}
  speaker:
    dtype: str
    labels:
      03: {gender: male, age: 31}
      08: {gender: female}
splits:
  train: {type: train}
  test: {type: test}
tables:
  emotion.train:
    type: segmented
    split_id: train
    columns: {emotion: {scheme_id: emotion}, arousal: {}}
  emotion.test:
    type: filewise
    split_id: test
    columns: {emotion: {scheme_id: emotion}, speaker: {scheme_id: speaker}}
  files:
    type: filewise
    columns: {speaker: {scheme_id: speaker}, session: {}, duration: {}}
  duration: {type: filewise, columns: }
misc_tables:
  people: {levels: {person: str}, columns: {gender: {}}}
"""
TABLES = {
    "emotion.train": "file,start,end,emotion,arousal\n"
    "a.wav,0 days 00:00:00.500000,0 days 00:00:01,anger,0.5\na.wav,0 days 00:00:01,,,\n",
    "emotion.test": "file,emotion,speaker\nb.wav,joy,08\n",
    "files": "file,speaker,session,duration\na.wav,03,S1,x\nb.wav,08,S2,x\n",
    "people": "person,gender\n03,female\n08,male\n",
}
BOTH = "emotion.train, emotion.test"
SPEAKERS_IN_A_TABLE = HEADER.replace(
    "labels:\n      03: {gender: male, age: 31}\n      08: {gender: female}", "labels: people"
)


def database(root: Path, header: str = HEADER, **changed: str) -> Path:
    """Write a header and its tables, and files that are no sound: listing must not open them."""
    root.mkdir(exist_ok=True)
    (root / "db.yaml").write_text(header, encoding="utf-8")
    for name, text in {**TABLES, **{k.replace("_", "."): v for k, v in changed.items()}}.items():
        (root / f"db.{name}.csv").write_text(text, encoding="utf-8")
    for name in ("a.wav", "b.wav"):
        (root / name).write_bytes(b"not audio")
    return root


def fault(root: Path | None, **options: str) -> str:
    with pytest.raises(CorpusError) as caught:
        read_audformat(root, **options)
    return str(caught.value)


def test_segments_files_splits_and_speakers(tmp_path: Path) -> None:
    corpus = read_audformat(database(tmp_path), table=BOTH)
    a = Utterance(
        name="a.wav:0.5-1", path=tmp_path / "a.wav", label="anger", speaker="03", start=0.5,
        end=1.0, gender="male", session="S1", split="train", arousal=0.5,
    )  # fmt: skip
    rest = Utterance(
        name="a.wav:1-", path=tmp_path / "a.wav", label=None, speaker="03", start=1.0,
        gender="male", session="S1", split="train",
    )  # fmt: skip
    b = Utterance(
        name="b.wav", path=tmp_path / "b.wav", label="joy", speaker="08", gender="female",
        session="S2", split="test",
    )  # fmt: skip
    assert corpus.utterances == (a, rest, b)
    assert corpus.classes == ("anger", "joy")
    assert corpus.emotions == {"anger": "anger", "joy": "happiness"}


def test_genders_from_a_misc_table(tmp_path: Path) -> None:
    corpus = read_audformat(database(tmp_path, SPEAKERS_IN_A_TABLE), table=BOTH)
    assert {u.speaker: u.gender for u in corpus} == {"03": "female", "08": "male"}


def test_a_gender_of_the_table_comes_first(tmp_path: Path) -> None:
    header = HEADER.replace("session: {}", "gender: {}")
    files = "file,speaker,gender,duration\na.wav,03,f,x\nb.wav,08,,x\n"
    corpus = read_audformat(database(tmp_path, header, files=files), table=BOTH)
    assert {u.speaker: u.gender for u in corpus} == {"03": "female", "08": "female"}


def test_which_table(tmp_path: Path) -> None:
    root = database(tmp_path)
    assert "2 tables with emotions" in fault(root)
    assert "emotion.test, emotion.train" in fault(root)
    assert "'emotion.tst' does not exist (did you mean 'emotion.test'?)" in fault(
        root, table="emotion.tst"
    )
    assert "'people' lists no files" in fault(root, table="people")
    assert "no column 'emotion'" in fault(root, table="files")
    assert "no table has the column 'emo' (did you mean 'emotion'?)" in fault(root, emotion="emo")
    assert "no table has the column 'spk'" in fault(root, table=BOTH, speaker="spk")
    assert "speaker= (blank)" in fault(root, table=BOTH, speaker="spk")
    # The only one with the column, and the one that is named like it.
    assert len(read_audformat(root, emotion="session")) == 2
    assert (
        len(
            read_audformat(
                database(
                    tmp_path,
                    HEADER.replace("emotion.test", "emotion"),
                    emotion=TABLES["emotion.test"],
                )
            )
        )
        == 1
    )
    # Without emotion or speaker, if the user says so.
    corpus = read_audformat(root, table="files,files", emotion="", speaker="")
    assert [(u.label, u.speaker, u.gender, u.session) for u in corpus] == [
        (None, None, None, "S1"), (None, None, None, "S2"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({"emotion_test": "file,emotion,speaker\nb.wav,Joy,08\n"},
         "db.emotion.test.csv, line 2: emotion 'Joy' is not in its scheme; allowed: anger, joy"),
        ({"emotion_test": "file,emotion\nb.wav,joy\n"}, "no column 'speaker'; db.yaml declares it"),
        ({"emotion_test": "file,emotion,speaker\nb.wav,joy\n"},
         "db.emotion.test.csv, line 2: 2 cells; the header has 3"),
        ({"emotion_test": "file,emotion,speaker\nb.wav,joy,03\n"},
         "db.files.csv, line 3: speaker of b.wav is '08' here and '03' in another"),
        ({"emotion_test": "file,emotion,speaker\na.wav,joy,03\nb.wav,joy,08\n../a.wav,joy,08\n"},
         "db.emotion.test.csv, line 4: file '../a.wav' leaves"),
        ({"emotion_train": "file,start,end,emotion,arousal\na.wav,soon,,anger,\n"},
         "db.emotion.train.csv, line 2: 'soon' is not a time"),
        ({"emotion_train": "file,start,end,emotion,arousal\nb.wav,0,,joy,\n"},
         "b.wav has split 'test' here and 'train' in db.emotion.train.csv, line 2"),
    ],
)  # fmt: skip
def test_tables_that_contradict(tmp_path: Path, changed: dict[str, str], wanted: str) -> None:
    assert wanted in fault(database(tmp_path, **changed), table=BOTH)


def test_a_table_without_emotions_or_speakers(tmp_path: Path) -> None:
    root = database(tmp_path, files="file,speaker,session,duration\n")
    assert [u.speaker for u in read_audformat(root, table=BOTH)] == [None, None, "08"]
    assert "has no rows" in fault(root, table="files", emotion="")


def test_ten_thousand_wrong_rows_make_a_summary(tmp_path: Path) -> None:
    rows = TABLES["emotion.test"] + "b.wav,rage,08\n" * 10_000
    message = fault(database(tmp_path, emotion_test=rows), table=BOTH)
    assert "10000 error(s)" in message
    assert len(message) < 2000


def test_missing_sound(tmp_path: Path) -> None:
    root = database(tmp_path)
    (root / "b.wav").unlink()
    corpus = read_audformat(root, table=BOTH)
    assert corpus.skipped == (("b.wav", "no such file"),)
    (root / "a.wav").unlink()
    assert "none of its 3 files exists" in fault(root, table=BOTH)


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("", "no table has the column 'emotion'"),
        ("[]", "the header is '[]'; it must be a mapping"),
        ("a: [", "is not YAML"),
        ("[" * 100_000, "is not YAML"),
        ("&a [*a]", "is not YAML"),
        ("tables: 3", "tables is '3'"),
        ("tables: {emotion: [x]}", "tables: emotion is \"['x']\""),
        ("tables: {emotion: {columns: {emotion: x}}}", "column emotion of table emotion is 'x'"),
        ("tables: {../x: {columns: {emotion: }}}", "table '../x'; allowed: a name without /"),
        ("tables: {" + "x" * 300 + ": {columns: {emotion: }}}", "allowed: a name without /"),
    ],
)
def test_wrong_headers(tmp_path: Path, header: str, wanted: str) -> None:
    message = fault(database(tmp_path, header))
    assert wanted in message
    assert str(tmp_path / "db.yaml") in message


def test_no_database(tmp_path: Path) -> None:
    assert "--root" in fault(None)
    assert "is empty" in fault(tmp_path)
    root = database(tmp_path / "db")
    assert "is a file" in fault(root / "db.yaml")
    (root / "db.files.csv").unlink()
    assert "db.files.csv exists" in fault(root, table=BOTH)
    (root / "db.yaml").unlink()
    assert f"{root} has no db.yaml" in fault(root)


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def test_nothing_that_runs_code_is_opened(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    header = HEADER + f"run: !!python/object/apply:os.mkdir ['{mark}']\n"
    root = database(tmp_path / "db", header)
    bomb = pickle.dumps(Bomb(mark))
    for name in TABLES:
        (root / f"db.{name}.pkl").write_bytes(bomb)
    assert len(read_audformat(root, table=BOTH)) == 3
    for path in root.glob("*.csv"):
        path.unlink()
    assert "db.emotion.test.pkl is not read, as a pickle can run code" in fault(root, table=BOTH)
    assert not mark.exists()
    # The traps are real ones.
    pickle.loads(bomb)
    assert mark.is_dir()
    mark.rmdir()
    audformat = pytest.importorskip("audformat", reason="audformat of the extra dev")
    with contextlib.suppress(Exception):  # of any kind, once the code has run
        audformat.Database.load(str(root))
    assert mark.is_dir()


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_what_the_library_writes(tmp_path: Path, form: str) -> None:
    audformat = pytest.importorskip("audformat", reason="audformat of the extra dev")
    import pandas as pd

    db = audformat.Database("mine")
    db.schemes["gender"] = audformat.Scheme("str", labels=["female", "male", "other"])
    db["speaker"] = audformat.MiscTable(pd.Index([3, 8], name="speaker", dtype="Int64"))
    db["speaker"]["gender"] = audformat.Column(scheme_id="gender")
    db["speaker"]["gender"].set(["male", "female"])
    db.schemes["emotion"] = audformat.Scheme("str", labels=["anger", "joy", "ünwell"])
    db.schemes["speaker"] = audformat.Scheme("int", labels="speaker")
    db.schemes["valence"] = audformat.Scheme("float")
    db.splits["train"] = audformat.Split("train")
    db["files"] = audformat.Table(audformat.filewise_index(["wav/a.wav", "wav/b.wav"]))
    db["files"]["speaker"] = audformat.Column(scheme_id="speaker")
    db["files"]["speaker"].set([3, 8])
    index = audformat.segmented_index(
        ["wav/a.wav", "wav/a.wav", "wav/b.wav"], [0, 1.5, 0], ["1.5s", "2000000500ns", pd.NaT]
    )
    db["emotion"] = audformat.Table(index, split_id="train")
    db["emotion"]["emotion"] = audformat.Column(scheme_id="emotion")
    db["emotion"]["emotion"].set(["anger", None, "ünwell"])
    db["emotion"]["valence"] = audformat.Column(scheme_id="valence")
    db["emotion"]["valence"].set([0.1, float("nan"), -1])
    db.save(str(tmp_path), storage_format=form)
    (tmp_path / "wav").mkdir()
    for name in "ab":
        (tmp_path / "wav" / f"{name}.wav").touch()

    corpus = read_audformat(tmp_path)
    assert [
        (u.name, u.start, u.end, u.label, u.speaker, u.gender, u.split, u.valence) for u in corpus
    ] == [
        ("wav/a.wav:0-1.5", 0.0, 1.5, "anger", "3", "male", "train", 0.1),
        ("wav/a.wav:1.5-2.0000005", 1.5, 2.0000005, None, "3", "male", "train", None),
        ("wav/b.wav", 0.0, None, "ünwell", "8", "female", "train", -1.0),
    ]


ANY_FOLDER = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TREE = st.recursive(
    st.sampled_from(["emotion", "speaker", "file", "", "null", "filewise", "segmented", "people"]),
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(
            st.sampled_from(["columns", "emotion", "speaker", "levels", "labels", "type", "x/y"]),
            below,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@ANY_FOLDER
@given(
    st.dictionaries(st.sampled_from(["tables", "misc_tables", "schemes"]), TREE)
    | st.fixed_dictionaries(
        {"tables": st.dictionaries(st.sampled_from(["files", "emotion.test"]), TREE)}
    )
)
def test_any_header_is_a_database_or_a_corpus_error(tmp_path: Path, header: dict[str, Any]) -> None:
    try:
        read_audformat(database(tmp_path, json.dumps(header)))
    except CorpusError:
        return


@ANY_FOLDER
@given(
    st.sampled_from(["db.yaml", "db.files.csv", "db.emotion.test.csv", "db.people.csv"]),
    st.binary(max_size=60) | st.text(max_size=60).map(str.encode),
    st.integers(0, 400),
)
def test_any_bytes_are_a_database_or_a_corpus_error(
    tmp_path: Path, name: str, inserted: bytes, where: int
) -> None:
    path = database(tmp_path, SPEAKERS_IN_A_TABLE) / name
    text = path.read_bytes()
    path.write_bytes(text[:where] + inserted + text[where + len(inserted) :])
    try:
        corpus = read_audformat(tmp_path, table=BOTH)
    except CorpusError:
        return
    assert len(corpus) > 0
