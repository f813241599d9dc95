"""MSP-Podcast's tree and label table, of old and new releases, with all that lies between."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from emodarts.corpora.msp_podcast import COLUMNS, read_msp_podcast
from emodarts.corpora.utterance import COMMON_EMOTIONS
from emodarts.errors import CorpusError

HEADER = "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set\n"
TURN = "MSP-PODCAST_0001_0008"
ROW = f"{TURN}.wav,N,2.200000,4.000000,2.600000,30,Male,Test1\n"


def put(path: Path, text: str = "not audio") -> Path:
    """Make a file that is no sound: listing must not open it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")
    return path


def table(root: Path, text: str) -> Path:
    return put(root / "Labels/labels_consensus.csv", text)


def sound(root: Path, *turns: str) -> None:
    for turn in turns:
        put(root / "Audios" / f"{turn}.wav")


def test_every_field_of_a_turn(tmp_path: Path) -> None:
    table(tmp_path, HEADER + ROW)
    sound(tmp_path, TURN)
    (turn,) = read_msp_podcast(tmp_path)
    assert turn.name == TURN
    assert turn.path == tmp_path / "Audios" / f"{TURN}.wav"
    assert (turn.label, turn.speaker, turn.gender, turn.split) == ("N", "30", "male", "Test1")
    assert (turn.arousal, turn.valence, turn.dominance) == (2.2, 4.0, 2.6)
    assert (turn.start, turn.end, turn.session, turn.style) == (0.0, None, None, None)


def test_letters_have_common_names_and_one_order(tmp_path: Path) -> None:
    """Letters, and the words that the tables of single raters use."""
    cells = [*"XUSONHFDCA", "Angry", "Surprise", "contempt", "No agreement", "", "NaN"]
    turns = [f"MSP-PODCAST_0002_{i:04d}" for i in range(len(cells))]
    rows = (f"{t}.wav,{c},1,2,3,9,Female,Train\n" for t, c in zip(turns, cells, strict=True))
    table(tmp_path, HEADER + "".join(rows))
    sound(tmp_path, *turns)
    corpus = read_msp_podcast(tmp_path)
    assert [u.label for u in corpus] == [None, *"USONHFDCA", *"AUC", None, None, None]
    assert corpus.classes == tuple("ACDFHNOSU")
    assert len(set(corpus.emotions.values()) & set(COMMON_EMOTIONS)) == len(corpus.classes)
    assert corpus.select(("anger", "surprise")).count("label") == {"anger": 2, "surprise": 2}


def test_unknown_speakers_are_none(tmp_path: Path) -> None:
    who = ["Unknown", "unknown", "", "N/A", "127"]
    gender = ["Unknown", "", "FEMALE", "Male", "Male"]
    rows = [
        f"T{i},H,,NaN,4.5,{speaker},{sex},Train\n"
        for i, (speaker, sex) in enumerate(zip(who, gender, strict=True))
    ]
    table(tmp_path, HEADER + "".join(rows))
    sound(tmp_path, *(f"T{i}" for i in range(5)))
    corpus = read_msp_podcast(tmp_path)
    assert [u.speaker for u in corpus] == [None, None, None, None, "127"]
    assert [u.gender for u in corpus] == [None, None, "female", "male", "male"]
    assert {(u.arousal, u.valence, u.dominance) for u in corpus} == {(None, None, 4.5)}


def test_one_number_is_one_speaker_of_one_gender(tmp_path: Path) -> None:
    """What was a column of numbers has 1.0 for 1."""
    ids = ["1", "1.0", "1.00", "10", "1.5", "a.0"]
    rows = [f"T{i},H,1,1,1,{speaker},Male,Train\n" for i, speaker in enumerate(ids)]
    table(tmp_path, HEADER + "".join(rows))
    sound(tmp_path, *(f"T{i}" for i in range(len(ids))))
    speakers = [u.speaker for u in read_msp_podcast(tmp_path)]
    assert speakers == ["1", "1", "1", "10", "1.5", "a.0"]
    rows[1] = rows[1].replace("Male", "Female")
    path = table(tmp_path, HEADER + "".join(rows)).relative_to(tmp_path)
    wanted = f"{path}, line 3: speaker '1' is female here and male in {path}, line 2;"
    with pytest.raises(CorpusError, match=re.escape(wanted)):
        read_msp_podcast(tmp_path)
    table(tmp_path, HEADER + "".join(rows).replace("1.0,Female", "1.0,Unknown"))
    assert len(read_msp_podcast(tmp_path)) == len(ids)


def test_official_partitions_may_share_a_podcast(tmp_path: Path) -> None:
    rows = (
        f"MSP-PODCAST_0001_000{i}.wav,A,1,1,1,{i},Male,{split}\n"
        for i, split in enumerate(
            ("Train", "development", "Validation", "Test1", "Test2", "Test3", "")
        )
    )
    table(tmp_path, HEADER + "".join(rows))
    sound(tmp_path, *(f"MSP-PODCAST_0001_000{i}" for i in range(7)))
    corpus = read_msp_podcast(tmp_path)
    splits = ["Train", "Development", "Validation", "Test1", "Test2", "Test3", None]
    assert [u.split for u in corpus] == splits
    # Or the partitions, which share no speaker, could not be used as they were published.
    assert {(u.session, u.dialogue) for u in corpus} == {(None, None)}


def test_hidden_labels(tmp_path: Path) -> None:
    """Test3 has sound and, by release, rows without labels or no rows at all."""
    hidden = "MSP-PODCAST_test3_0001"
    table(tmp_path, HEADER + ROW + "MSP-PODCAST_test3_0002.wav,,,,,,,Test3\n")
    sound(tmp_path, TURN, hidden, "MSP-PODCAST_test3_0002", "MSP-PODCAST_test3_x")
    corpus = read_msp_podcast(tmp_path)
    assert [(u.name, u.label, u.speaker) for u in corpus if u.split == "Test3"] == [
        (hidden, None, None),
        ("MSP-PODCAST_test3_0002", None, None),
    ]
    assert [u.name for u in corpus.select()] == [TURN]
    file = str(Path("Audios", "MSP-PODCAST_test3_x.wav"))
    assert corpus.skipped == ((file, "not in the label files"),)


@pytest.mark.parametrize(
    "labels",
    ["Labels/labels_concensus.csv", "labels_consensus.csv", "Labels/Labels/Labels_Consensus.CSV"],
)
@pytest.mark.parametrize("file", ["Audio/{}.wav", "Audios/Audios/{}.WAV", "Audios/0001/{}.wav"])
def test_layouts_of_the_releases(tmp_path: Path, labels: str, file: str) -> None:
    reordered = (
        '\ufeffSplit_Set, spkrid ,Transcript,GENDER,emodom,emoval,emoact,emoclass,filename\r\n'
        f'Test1,30,"well, ""no""\r\nyes",male,2.6,4.0,2.2,n,{TURN}.wav\r\n\r\n'
    )  # fmt: skip
    put(tmp_path / labels, reordered)
    put(tmp_path / file.format(TURN))
    put(tmp_path / "Labels/labels_detailed.csv", "never,read\n")
    (turn,) = read_msp_podcast(tmp_path)
    assert turn.path == tmp_path / file.format(TURN)
    assert (turn.label, turn.speaker, turn.gender, turn.split) == ("N", "30", "male", "Test1")
    assert (turn.arousal, turn.valence, turn.dominance) == (2.2, 4.0, 2.6)


def test_debris_between_the_files(tmp_path: Path) -> None:
    table(tmp_path, HEADER + ROW + ROW.replace("_0008", "_0009"))
    put(tmp_path / "Labels/._labels_consensus.csv").write_bytes(b"\x00\x05\x16\x07\xff\xfe")
    sound(tmp_path, TURN, f"._{TURN}", f"Audios/{TURN}", "MSP-PODCAST_0001_0010")
    put(tmp_path / "Transcripts" / f"{TURN}.txt")
    corpus = read_msp_podcast(tmp_path)
    assert [u.path for u in corpus] == [tmp_path / "Audios" / f"{TURN}.wav"]
    assert dict(corpus.skipped) == {
        "MSP-PODCAST_0001_0009": "no audio file",
        f"Audios/._{TURN}.wav": "resource fork of macOS, not audio",
        f"Audios/Audios/{TURN}.wav": "copy of another file",
        "Audios/MSP-PODCAST_0001_0010.wav": "not in the label files",
    }


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        (None, "--root"),
        ("none", "no such folder"),
        ("other", "does not hold MSP-Podcast"),
        ("silent", "none of the 1 labelled turns"),
    ],
)
def test_wrong_folders(tmp_path: Path, folder: str | None, message: str) -> None:
    put(tmp_path / "other/readme.txt")
    table(tmp_path / "silent", HEADER + ROW)
    with pytest.raises(CorpusError, match=message) as caught:
        read_msp_podcast(None if folder is None else tmp_path / folder)
    assert "labels_consensus.csv" in str(caught.value)


@pytest.mark.parametrize("column", COLUMNS)
def test_every_column_is_needed_once(tmp_path: Path, column: str) -> None:
    table(tmp_path, HEADER.replace(column, f"{column}s") + ROW)
    with pytest.raises(CorpusError, match=f"no columns {column} .did you mean") as caught:
        read_msp_podcast(tmp_path)
    assert "labels_consensus.csv" in str(caught.value)
    table(tmp_path, HEADER.replace("FileName", f"{column},FileName") + ROW)
    with pytest.raises(CorpusError, match=f"2 columns {column}"):
        read_msp_podcast(tmp_path)


def test_rows_may_agree_but_not_contradict(tmp_path: Path) -> None:
    table(tmp_path, HEADER + ROW + ROW.replace(".wav", ".WAV"))
    sound(tmp_path, TURN)
    put(tmp_path / "Labels/labels_concensus.csv", HEADER + ROW)
    assert len(read_msp_podcast(tmp_path)) == 1
    put(tmp_path / "Labels/labels_concensus.csv", HEADER + ROW.replace(",N,", ",S,"))
    with pytest.raises(CorpusError) as caught:
        read_msp_podcast(tmp_path)
    assert "labels_consensus.csv, line 2" in str(caught.value)
    assert "labels_concensus.csv, line 2" in str(caught.value)
    assert TURN in str(caught.value)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (ROW.replace(",N,", ",B,"), "EmoClass 'B'"),
        (ROW.replace(",N,", ",Calm,"), "EmoClass 'Calm'"),
        (ROW.replace("Male", "robot"), "Gender 'robot'"),
        (ROW.replace("Test1", "Test9"), "Split_Set 'Test9'"),
        (ROW.replace("4.000000", "high"), "EmoDom of .* are not numbers.*'high'"),
        (ROW.replace("4.000000", "inf"), "EmoDom of .* are not numbers.*'inf'"),
        (ROW.replace(f"{TURN}.wav", ".wav"), "no FileName"),
        (ROW.replace(",30", ""), "cells than the header"),
        (ROW.replace("\n", ",\n"), "cells than the header"),
    ],
)
def test_malformed_row(tmp_path: Path, row: str, fault: str) -> None:
    table(tmp_path, HEADER + ROW + "\n" + row)
    with pytest.raises(CorpusError, match=fault) as caught:
        read_msp_podcast(tmp_path)
    assert "labels_consensus.csv, line 4: " in str(caught.value)
    assert "Train, Development, Validation" in str(caught.value)


def test_many_faults_are_summed_up(tmp_path: Path) -> None:
    table(tmp_path, HEADER + "wrong\n" * 10_000)
    with pytest.raises(CorpusError, match=r"10000 error\(s\)") as caught:
        read_msp_podcast(tmp_path)
    assert len(str(caught.value).splitlines()) < 10


def test_each_file_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One walk through the folders: a look at every one of 200,000 files would take minutes."""
    turns = [f"MSP-PODCAST_{i:04d}_0001" for i in range(200)]
    table(tmp_path, HEADER + "".join(ROW.replace(TURN, turn) for turn in turns))
    sound(tmp_path, *turns, f"copy/{turns[0]}")
    looks = []
    look = Path.stat

    def count(path: Path, *, follow_symlinks: bool = True) -> object:
        looks.append(path)
        return look(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", count)
    corpus = read_msp_podcast(tmp_path)
    assert [u.name for u in corpus] == turns
    assert len(looks) < 10
    assert [path.stem for path in looks].count(turns[0]) == 2  # are they copies?
    assert turns[1] not in [path.stem for path in looks]


cell = st.sampled_from(
    [f"{TURN}.wav", "N", "X", "Angry", "", "2.5", "NaN", "inf", "Unknown", "Male", "Train", '"']
)  # fmt: skip
rows = st.lists(st.lists(cell, min_size=7, max_size=9).map(",".join)).map("\n".join)
valid = st.tuples(
    st.sampled_from([f"{TURN}.wav", "other.wav"]),
    st.sampled_from(["N", "X", "angry", ""]),
    *(st.sampled_from(["1", "NaN", ""]) for _ in range(3)),
    st.sampled_from(["1", "Unknown"]),
    st.sampled_from(["Male", ""]),
    st.sampled_from(["Train", "Test3", ""]),
).map(",".join)


@given(
    st.binary()
    | st.text().map(str.encode)
    | (rows | st.text() | valid).map(lambda text: (HEADER + text).encode("utf-8", "replace"))
)
@example((HEADER + ROW).encode())
@example((HEADER + '"' + "x" * 200_000).encode())
@example((HEADER + "\0").encode())
def test_any_label_file_gives_turns_or_a_corpus_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    root = tmp_path_factory.getbasetemp() / "any-podcast"
    table(root, "").write_bytes(content)
    sound(root, TURN)
    try:
        corpus = read_msp_podcast(root)
    except CorpusError:
        return
    assert [u.name for u in corpus] == [TURN]
    assert corpus.utterances[0].label in (None, *"ACDFHNOSU")
