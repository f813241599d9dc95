"""Tables of users: every format, and everything that goes wrong with tables."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emodarts.corpora.emodb import read_emodb
from emodarts.corpora.folder import UNKNOWN_SPEAKERS
from emodarts.corpora.table import parse_seconds, read_table
from emodarts.corpora.utterance import Corpus, Utterance
from emodarts.errors import CorpusError

HEADER = "file,speaker,emotion"


def table(
    folder: Path, text: str | bytes, name: str = "my.csv", sound: str = "a.wav b.wav"
) -> Path:
    """Write a table, and files that are no sound: listing must not open them."""
    for file in sound.split():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"not audio")
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def fault(path: Path | None, **options: str) -> str:
    with pytest.raises(CorpusError) as caught:
        read_table(path, **options)
    return str(caught.value)


def summary(corpus: Corpus) -> list[tuple[str, str | None, str | None]]:
    return [(u.name, u.label, u.speaker) for u in corpus]


def test_every_column(tmp_path: Path) -> None:
    header = (
        "file,speaker,emotion,start,end,gender,session,dialogue,style,split,valence,arousal,"
        "dominance,name,rater,rater"  # what is not used may be there twice
    )
    row = "wav\\a.wav,s1,happy,1.5,0 days 00:00:03.250000,F,S1,D1,acted,Train,1,-.5,2e1,first,x,y"
    corpus = read_table(
        table(tmp_path, f"{header}\n{row}\nb.wav,,,,,,,,,,,,,,,\n", sound="wav/a.wav b.wav")
    )
    blank, full = corpus
    assert full == Utterance(
        name="first", path=tmp_path / "wav/a.wav", label="happy", speaker="s1", start=1.5, end=3.25,
        gender="female", session="S1", dialogue="D1", style="acted", split="Train",
        valence=1.0, arousal=-0.5, dominance=20.0,
    )  # fmt: skip
    assert blank == Utterance(name="b.wav", path=tmp_path / "b.wav", label=None, speaker=None)
    assert (corpus.name, corpus.classes, corpus.emotions) == (
        "table", ("happy",), {"happy": "happiness"},
    )  # fmt: skip


def test_all_formats_give_the_same(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"file": "a.wav", "speaker": 3, "emotion": "x,y;z", "start": 0.1, "valence": 2.5},
        {"file": "b.wav", "speaker": None, "emotion": None, "start": None, "valence": None},
    ]
    cells = [["" if v is None else str(v) for v in row.values()] for row in rows]

    def delimited(delimiter: str) -> str:
        text = io.StringIO()
        csv.writer(text, delimiter=delimiter).writerows([list(rows[0]), *cells])
        return text.getvalue()

    lines = "".join(json.dumps(row) + "\n" for row in rows)
    spaced = 'file, speaker, emotion, start, valence\na.wav, 3, "x,y;z", 0.1, 2.5\n\nb.wav,,,,'
    quoted = '"file";"speaker";"emotion";"start";"valence"\na.wav;3;"x,y;z";.1;2.5\n;;;;\nb.wav;;;;'
    written: dict[str, str | bytes] = {
        "1.csv": delimited(","),
        "2.csv": delimited(";"),
        "3.csv": delimited("\t"),
        "4.CSV": delimited(",").replace("\r\n", "\n").encode("utf-8-sig"),
        "5.csv": "\r\n\n" + delimited(",").replace("\n", "\n\n") + " , ,,,\n",
        "6.csv": spaced,
        "7.csv": quoted,
        "1.tsv": delimited("\t"),
        "1.jsonl": lines,
        "2.jsonl": b"\xef\xbb\xbf" + lines.replace("\n", "\r\n\r\n").encode(),
        "1.json": lines,
    }
    corpora = [read_table(table(tmp_path, text, name)) for name, text in written.items()]
    assert summary(corpora[0]) == [("a.wav:0.1-", "x,y;z", "3"), ("b.wav", None, None)]
    assert corpora[0].utterances[0].valence == 2.5
    for corpus in corpora[1:]:
        assert corpus == corpora[0]


def test_parquet_gives_the_same(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow of the extra audformat")
    from pyarrow import parquet

    seconds = 1.000000001
    columns = {
        "file": pyarrow.array(["a.wav", "b.wav"]).dictionary_encode(),
        "speaker": pyarrow.array([3, None], pyarrow.int32()),
        "emotion": pyarrow.array(["joy", None], pyarrow.large_string()),
        "start": pyarrow.array([1_000_000_001, 0], pyarrow.duration("ns")),
        "end": pyarrow.array([2, None], pyarrow.duration("s")),
        "valence": pyarrow.array([0.1, float("nan")]),
        "unused": pyarrow.array([[1], [2]]),
    }
    path = table(tmp_path, "", "t.parquet")
    parquet.write_table(pyarrow.table(columns), path)
    text = f"{HEADER},start,end,valence,unused\na.wav,3,joy,{seconds},2,0.1,1\nb.wav,,,,,,2\n"
    assert read_table(path) == read_table(table(tmp_path, text))
    assert "type list" in fault(path, speaker="unused")
    assert "did you mean 'unused'" in fault(path, speaker="unuse")
    parquet.write_table(pyarrow.table({"file": [True], "speaker": ["x"], "emotion": ["x"]}), path)
    assert "'file' is of type bool" in fault(path)
    parquet.write_table(pyarrow.table({"file": [], "speaker": [], "emotion": []}), path)
    assert "has no rows" in fault(path)


def test_a_real_corpus_by_its_table(tmp_path: Path, emodb_root: Path) -> None:
    corpus = read_emodb(emodb_root)
    rows = [
        f"{u.path.relative_to(emodb_root)};{u.speaker};{u.label};{(u.gender or '')[0].upper()}"
        for u in corpus
    ]
    path = table(tmp_path, "\r\n".join(["file;speaker;emotion;gender", *rows]))
    mine = read_table(path, audio=str(emodb_root))
    assert [(u.path, u.label, u.speaker, u.gender) for u in mine] == [
        (u.path, u.label, u.speaker, u.gender) for u in sorted(corpus, key=lambda u: u.path)
    ]
    assert mine.classes == corpus.classes
    assert all(mine.emotions[label] == corpus.emotions[label] for label in mine.emotions)


def test_columns_by_other_names(tmp_path: Path) -> None:
    path = table(tmp_path, ",path,spk,label,file,session\n0,a.wav,s,x,q,1\n1,b.wav,t,y,q,2\n")
    corpus = read_table(path, file="path", speaker="spk", emotion="label", session="")
    assert summary(corpus) == [("a.wav", "x", "s"), ("b.wav", "y", "t")]
    assert {u.session for u in corpus} == {None}
    # A column that may be missing under its own name may not under a name that was given.
    assert "'gendr'" in fault(path, file="path", speaker="spk", emotion="label", gender="gendr")
    # Speakers and labels are not lost in silence.
    other = table(tmp_path, ",path,who,mood\n0,a.wav,s,x\n", "other.csv")
    message = fault(other, emotion="mood")
    assert "no column 'speaker'; name it with the option speaker=COLUMN, or leave it" in message
    message = fault(other, speaker="who")
    assert "no column 'emotion'; name it with the option emotion=COLUMN, or leave it" in message
    assert "path, who, mood" in message  # and a number of rows without a name
    bare = table(tmp_path, "file\na.wav\n", "bare.csv")
    assert summary(read_table(bare, speaker="", emotion="")) == [("a.wav", None, None)]
    assert read_table(bare, speaker="", emotion="").classes == ()
    assert "option file=" in fault(bare, file="")


@pytest.mark.parametrize(
    "header",
    [
        "filename,speaker_id,label,start_time,stop",
        "File Path,SpkrID,Emotion,Begin,END",
        "wav,actor,emo,onset,end_s",
        "path,spk,class,from,to",
        "audio,subject,emotions,start (s),end [s]",
    ],
)
def test_columns_by_names_that_leave_no_doubt(tmp_path: Path, header: str) -> None:
    corpus = read_table(table(tmp_path, f"{header}\na.wav,s,x,1,2\n"))
    fields = ("file", "speaker", "emotion", "start", "end")
    assert corpus.columns == dict(zip(header.split(","), fields, strict=True))
    assert corpus.select(["x"]).columns == corpus.columns
    (utterance,) = corpus
    assert utterance == Utterance("a.wav:1-2", tmp_path / "a.wav", "x", "s", 1.0, 2.0)


def test_starts_alone_lead_to_the_ends_of_files_where_no_other_column_may_be_the_end(
    tmp_path: Path,
) -> None:
    plain = table(tmp_path, f"{HEADER},start\na.wav,s,x,1\n")
    text = table(tmp_path, f"{HEADER},start,text\na.wav,s,x,1,hi\n", "text.csv")
    assert read_table(plain).utterances == read_table(text, end="").utterances
    assert read_table(plain).utterances[0].end is None


@pytest.mark.parametrize("end", ["NaT", "nan", "None", "null", ""])
def test_an_end_that_is_not_known_is_that_of_the_file(tmp_path: Path, end: str) -> None:
    (utterance,) = read_table(table(tmp_path, f"{HEADER},start,end\na.wav,s,x,NaT,{end}\n"))
    assert (utterance.start, utterance.end) == (0.0, None)


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_decimal_commas_where_they_separate_nothing(tmp_path: Path, delimiter: str) -> None:
    rows = ["file,speaker,emotion,start,end,valence", "a.wav,1_5,1_5,0_5,1:02_25,-1_125"]
    text = "\n".join(rows).replace(",", delimiter).replace("_", ",")
    (utterance,) = read_table(table(tmp_path, text))
    assert (utterance.start, utterance.end, utterance.valence) == (0.5, 62.25, -1.125)
    assert (utterance.speaker, utterance.label) == ("1,5", "1,5")


def test_folder_of_the_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "sound" / "wav" / "a.wav"
    outside = tmp_path / "b.wav"
    text = f"{HEADER}\nwav/../wav//./a.wav,s,x\n{outside},s,y\n"
    path = table(tmp_path, text, sound="sound/wav/a.wav b.wav")
    corpus = read_table(path, audio=str(tmp_path / "sound"))
    assert [(u.name, u.path) for u in corpus] == [
        (outside.as_posix(), outside), ("wav/a.wav", inside),
    ]  # fmt: skip
    # One file is one file, however it is written and wherever one stands.
    monkeypatch.chdir(tmp_path)
    text = f"{HEADER}\nwav/a.wav,s,x\n{inside},s,x\nwav\\a.wav,s,x\n"
    corpus = read_table(table(tmp_path, text), audio="sound")
    assert summary(corpus) == [("wav/a.wav", "x", "s")]
    assert corpus.skipped == (
        ("wav/a.wav", "repeats an earlier row"), ("wav/a.wav", "repeats an earlier row"),
    )  # fmt: skip
    assert "no such folder" in fault(path, audio="nowhere")
    assert "no such folder" in fault(path, audio="x" * 5000)


def test_links_inside_the_folder_are_followed(tmp_path: Path) -> None:
    table(tmp_path, "", sound="disk/wav/a.wav")
    path = table(
        tmp_path / "mine", f"{HEADER}\nwav/a.wav,s,x\nb.wav,s,x\nc.wav,s,x\n", sound="d.wav"
    )
    (path.parent / "wav").symlink_to(tmp_path / "disk" / "wav")
    (path.parent / "b.wav").symlink_to(tmp_path / "disk" / "wav" / "a.wav")
    (path.parent / "c.wav").symlink_to(tmp_path / "gone")
    corpus = read_table(path)
    assert [u.name for u in corpus] == ["b.wav", "wav/a.wav"]
    assert corpus.skipped == (("c.wav", "no such file"),)


def test_missing_sound(tmp_path: Path) -> None:
    rows = ["a.wav", "gone.wav", "no/such.wav", "folder", "._a.wav", "z" * 300]
    path = table(
        tmp_path,
        f"{HEADER}\n" + "".join(f"{f},s,x\n" for f in rows),
        sound="a.wav ._a.wav folder/b",
    )
    corpus = read_table(path)
    assert [u.name for u in corpus] == ["a.wav"]
    assert [*corpus.skipped] == [
        ("gone.wav", "no such file"),
        ("no/such.wav", "no such file"),
        ("folder", "no such file"),
        ("._a.wav", "resource fork of macOS, not audio"),
        ("z" * 300, "no such file"),
    ]
    message = fault(path, audio=str(tmp_path / "folder"))
    assert "none of its 6 files" in message
    assert str(tmp_path / "folder" / "a.wav") in message


def test_names_do_not_depend_on_other_rows(tmp_path: Path) -> None:
    rows = [
        "a.wav,s,x,,", "a.wav,s,x,0,1", "a.wav,s,x,1,2.5", "a.wav,s,x,2.5,", "a.flac,s,x,,",
        "b/a.wav,s,x,0.1,0.30000000000000004",
    ]  # fmt: skip
    sound = "a.wav a.flac b/a.wav"

    def names(rows: Sequence[str]) -> set[str]:
        text = "\n".join([f"{HEADER},start,end", *rows])
        return {u.name for u in read_table(table(tmp_path, text, sound=sound))}

    alone = [names([row]) for row in rows]
    assert [*alone] == [
        {"a.wav"}, {"a.wav:0-1"}, {"a.wav:1-2.5"}, {"a.wav:2.5-"}, {"a.flac"},
        {"b/a.wav:0.1-0.30000000000000004"},
    ]  # fmt: skip
    assert names(rows) == names(rows[::-1]) == set.union(*alone)


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        (
            "a.wav,s,x,,,\nb.wav,s,x,,,\na.wav,s,y,,,",
            "line 4: a.wav has emotion 'y' here and 'x' in line 2",
        ),
        ("a.wav,s,x,1,2,\na.wav,t,x,1.0,2.0,", "has speaker 't' here and 's' in line 2"),
        ("a.wav,s,x,,,f\nb.wav,s,x,,,male", "line 3: speaker 's' is male here and female in"),
        ("a.wav,s,x,2,1,", "end 1 s is not after start 2 s"),
        ("a.wav,s,x,1,1,", "end 1 s is not after start 1 s"),
        ("a.wav,s,x,-1,,", "start '-1' is not a time; allowed: seconds such as 1.5"),
        ('a.wav,s,x,,"1,5",', "end '1,5' is not a time"),
        ("a.wav,s,x,1e999,,", "start '1e999' is not a time"),
        ("a.wav,s,x,,,q", "gender 'q' is unknown; allowed: female, f, "),
        ("a.wav,s,nan,,,", "emotion is 'nan'; leave it blank"),
        (",s,x,,,", "file is blank"),
        ("../a.wav,s,x,,,", r"file '../a.wav' leaves "),
        ("wav\\..\\..\\a.wav,s,x,,,", "leaves "),
        ("a.wav,s,x,,", "line 2: 5 cells; the header has 6"),
        ("a.wav,s,x,,,,", "line 2: 7 cells; the header has 6"),
        ("a.wav,s,a\x07b,,,", "emotion 'a\\x07b' has a control character"),
        ("a.wav,s,x\x00,,,", "line 2: a NUL byte"),
        ('a.wav,s,"x,,,', "line 2: unexpected end of data"),
        (f"a.wav,s,{'x' * 200_000},,,", "line 2: field larger than field limit"),
    ],
)  # fmt: skip
def test_wrong_rows(tmp_path: Path, rows: str, wanted: str) -> None:
    path = table(tmp_path, f"{HEADER},start,end,gender\n{rows}\n")
    message = fault(path)
    assert wanted in message
    assert str(path) in message


@pytest.mark.skipif(os.name == "nt", reason="these are paths of Windows")
@pytest.mark.parametrize("file", ["C:\\wav\\a.wav", "c:/wav/a.wav", "\\\\server\\share\\a.wav"])
def test_paths_of_another_system(tmp_path: Path, file: str) -> None:
    assert "is a Windows path" in fault(table(tmp_path, f"{HEADER}\n{file},s,x\n"))


def test_names_of_the_user_are_unique(tmp_path: Path) -> None:
    path = table(tmp_path, f"{HEADER},name\na.wav,s,x,one\nb.wav,s,x,one\n")
    assert "line 3: name 'one' is taken by line 2" in fault(path)


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ("{", "line 2: it is not JSON"),
        ("[" * 100_000, "line 2: it is not usable JSON"),
        ("9" * 5000, "line 2: it is not usable JSON"),
        ("[1]", "line 2: not an object"),
        ('{"file": "a.wav", "emotion": "x"}', "line 2: no 'speaker'; write null"),
        ('{"file": "a.wav", "speaker": [1], "emotion": "x"}', "speaker [1] is neither text"),
        ('{"file": "a.wav", "speaker": true, "emotion": "x"}', "speaker True is neither"),
        ('{"file": "a.wav", "speaker": NaN, "emotion": "x"}', "NaN is not allowed in JSON"),
        ('{"file": "a.wav", "speaker": "s", "emotion": "\\ud800"}', "emotion '\\ud800' has a"),
    ],
)  # fmt: skip
def test_wrong_json(tmp_path: Path, row: str, wanted: str) -> None:
    right = '{"file": "b.wav", "speaker": "s", "emotion": "x", "more": {}}'
    message = fault(table(tmp_path, f"{right}\n{row}\n", "my.jsonl"))
    assert wanted in message
    assert "1 error(s)" in message


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"\n\r\n \n", "is empty"),
        ("a.jsonl", b"\n", "is empty"),
        ("a.csv", f"{HEADER}\n\n".encode(), "has no rows"),
        ("a.csv", b"file,speaker,emotion,speaker\na.wav,s,x,t\n", "more than one column 'speaker'"),
        ("a.csv", b"Files;Speaker;Emotion\na.wav;s;x\n", "'file' (did you mean 'Files'?)"),
        ("a.csv", b"fil,speaker,emotion\na.wav,s,x\n", "with the option file=COLUMN; its columns"),
        ("a.csv", b"file,speaker,label,emo\na.wav,s,x,y\n", "'label' and 'emo' may be it"),
        ("a.csv", b"file,speaker,emotion,start_ms\na.wav,s,x,1\n", "'start_ms' is in millisec"),
        ("a.csv", b"file,speaker,emotion,offset\na.wav,s,x,1\n", "'offset' may be the start or"),
        ("a.csv", b"file,speaker,emotion,start,duration\na.wav,s,x,1,1\n", "write their sum"),
        (
            "a.csv",
            b"file,speaker,emotion,start,bis,text\na.wav,s,x,1,2,hi\n",
            "'start' and none known as the end of segments; give the option end=COLUMN, or take "
            "segments from or up to the end of their file with end= (blank); its other columns: "
            "bis, text",
        ),
        ("a.csv", b"file,speaker,emotion,von,to\na.wav,s,x,1,2\n", "give the option start=COLUMN"),
        ("a.csv", b"a.wav,s,x\n", "its columns: a.wav, s, x"),
        ("a.csv", f"{HEADER}\na.wav,s,J\xfcrgen\n".encode("latin-1"), "is not UTF-8"),
        ("a.csv", f"{HEADER}\na.wav,s,x\n".encode("utf-16"), "iconv -f UTF-16 -t UTF-8"),
        (
            "a.csv",
            f"{HEADER}\na.wav,s,x\n".encode("utf-16-le"),
            "line 1: a NUL byte; save it as UTF-8",
        ),
        ("a.xlsx", b"PK", "save the sheet as CSV: in Excel by Save as, 'CSV UTF-8"),
        ("a.txt", b"file\tspeaker\n", "rename it to .csv, or .tsv"),
        ("a.parquet", b"PAR1 not really", "cannot read"),
        ("a.xlsx", b"PK", "allowed: .csv, .tsv, .jsonl"),
    ],
)
def test_files_that_are_not_tables(tmp_path: Path, name: str, text: bytes, wanted: str) -> None:
    path = table(tmp_path, text, name)
    assert wanted in (message := fault(path))
    assert str(path) in message


def test_what_is_not_a_file(tmp_path: Path) -> None:
    assert "--root" in fault(None)
    assert "is a folder" in fault(tmp_path)
    assert "does not exist" in fault(tmp_path / "none.csv")
    assert "does not exist" in fault(tmp_path / ("x" * 5000))


def test_ten_thousand_wrong_rows_make_a_summary(tmp_path: Path) -> None:
    text = f"{HEADER},start\na.wav,s,x,\n" + "b.wav,s,x,soon\n" * 10_000
    message = fault(table(tmp_path, text))
    assert "10000 error(s)" in message
    assert "line 3: start 'soon'" in message
    assert "and 9995 more" in message
    assert len(message) < 2000


def test_unknown_speakers_are_not_one_speaker(tmp_path: Path) -> None:
    words = ["Unknown", "unknown", "", "nan", "NaN", "NA", "n/a", "None", "NULL"]
    rows = [f"a.wav,{word},x,{i},{i + 1},{'mf'[i % 2]}" for i, word in enumerate(words)]
    corpus = read_table(table(tmp_path, "\n".join([f"{HEADER},start,end,gender", *rows])))
    assert [u.speaker for u in corpus] == [None] * len(words)


@given(st.integers(0, 10**15))
def test_timedelta_text_is_read_to_the_nanosecond(nanoseconds: int) -> None:
    seconds, fraction = divmod(nanoseconds, 10**9)
    days, rest = divmod(seconds, 86400)
    text = f"{days} days {rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}.{fraction:09}"
    assert parse_seconds(text) == nanoseconds / 10**9
    assert parse_seconds(repr(nanoseconds / 10**9)) == nanoseconds / 10**9


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", None),
        ("2", 2),
        ("1 days", 86400),
        ("0 days", 0),
        ("00:01:00", 60),
        ("00:00:00.25", 0.25),
        ("1:23.5", 83.5),
        ("75:30", 4530),
        ("00:00:01,500", 1.5),
        ("-0", 0),
    ],
)
def test_times(text: str, seconds: float | None) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["00:61:00", "00:00:60", "1_0", "inf", "nan", "-1 days +23:59:59", "١", "1s", "NaT"],
)
def test_what_is_not_a_time(text: str) -> None:
    with pytest.raises(CorpusError, match="is not a time"):
        parse_seconds(text)


ANY_FOLDER = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
CELLS = st.sampled_from(
    ["a.wav", "b.wav", "s", "happy", "f", "m", "", "1", "2.5", "nan", "..\\a.wav", "0 days", '"']
) | st.text(max_size=6)  # fmt: skip


@ANY_FOLDER
@given(
    text=st.binary(max_size=80) | st.text(max_size=80).map(str.encode),
    head=st.sampled_from([b"", b"file,speaker,emotion,start,end\n", b'{"file": ']),
    suffix=st.sampled_from([".csv", ".tsv", ".jsonl", ".parquet"]),
)  # fmt: skip
def test_any_bytes_are_a_table_or_a_corpus_error(
    tmp_path: Path, text: bytes, head: bytes, suffix: str
) -> None:
    try:
        corpus = read_table(table(tmp_path, head + text, f"t{suffix}"))
    except CorpusError:
        return
    assert len(corpus) > 0


@ANY_FOLDER
@given(rows=st.lists(st.lists(CELLS, min_size=6, max_size=6), max_size=4), as_json=st.booleans())
def test_any_cells_are_a_table_or_a_corpus_error(
    tmp_path: Path, rows: list[list[str]], as_json: bool
) -> None:
    header = ["file", "speaker", "emotion", "start", "end", "gender"]

    def read(rows: list[list[str]]) -> Corpus:
        if as_json:
            text = "".join(json.dumps(dict(zip(header, row, strict=True))) + "\n" for row in rows)
            return read_table(table(tmp_path, text, "t.jsonl"))
        buffer = io.StringIO()
        csv.writer(buffer).writerows([header, *rows])
        return read_table(table(tmp_path, buffer.getvalue()))

    try:
        corpus = read(rows)
    except CorpusError:
        with pytest.raises(CorpusError):
            read(rows[::-1])
        return
    assert len(corpus) + len(corpus.skipped) >= sum(any(map(str.strip, row)) for row in rows)
    assert read(rows[::-1]).utterances == corpus.utterances
    for u in corpus:
        assert u.path.is_file()
        assert 0 <= u.start < (u.end or float("inf"))


WORDS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)


@ANY_FOLDER
@given(
    speakers=st.lists(WORDS, min_size=1, max_size=8),
    emotions=st.lists(WORDS, min_size=8, max_size=8),
    delimiter=st.sampled_from(",;\t"),
)
def test_what_is_written_is_read(
    tmp_path: Path, speakers: list[str], emotions: list[str], delimiter: str
) -> None:
    wanted = {
        f"a.wav:{k}-{k + 1}": (emotion, None if speaker.casefold() in UNKNOWN_SPEAKERS else speaker)
        for k, (speaker, emotion) in enumerate(zip(speakers, emotions, strict=False))
        if emotion not in ("nan", "NaN")
    }
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=delimiter)
    writer.writerow(["file", "speaker", "emotion", "start", "end"])
    for k, (speaker, emotion) in enumerate(zip(speakers, emotions, strict=False)):
        if f"a.wav:{k}-{k + 1}" in wanted:
            writer.writerow(["a.wav", speaker, emotion, k, k + 1])
    if not wanted:
        return
    corpus = read_table(table(tmp_path, buffer.getvalue()))
    assert {u.name: (u.label, u.speaker) for u in corpus} == wanted
    assert corpus.classes == tuple(sorted({emotion for emotion, _ in wanted.values()}))
