"""IEMOCAP's tree and label files in the exact syntax, with all that lies between them."""

from __future__ import annotations

import json
import shutil
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from emodarts.corpora.iemocap import read_iemocap
from emodarts.corpora.utterance import COMMON_EMOTIONS, Corpus
from emodarts.errors import CorpusError

HEADER = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
RATERS = (
    "C-E2:\tNeutral;\t()\nC-E3:\tNeutral; Frustration;\t()\nC-F1:\tOther;\t([sic] tired)\n"
    "A-E3:\tval 3; act 2; dom  2;\t()\nA-F1:\tval 2; act 3; dom  1;\t()\n\n"
)


def block(turn: str, code: str = "neu", ratings: str = "2.5000, 3.0000, 3.5000") -> str:
    return f"[6.2901 - 8.2357]\t{turn}\t{code}\t[{ratings}]\n{RATERS}"


def put(path: Path, text: str = "not audio") -> Path:
    """Make a file that is no sound: listing must not open it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")
    return path


def labels(root: Path, dialogue: str, text: str) -> Path:
    return put(root / f"Session{dialogue[4]}/dialog/EmoEvaluation/{dialogue}.txt", text)


def sound(root: Path, *turns: str) -> None:
    for turn in turns:
        put(root / f"Session{turn[4]}/sentences/wav/{turn.rsplit('_', 1)[0]}/{turn}.wav")


class Row(NamedTuple):
    turn: str
    code: str


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Names and consensus of the real corpus' turns in the five classes that most papers use."""
    lists = Path(__file__).resolve().parents[3] / "shared/data/emobox/iemocap/iemocap.jsonl"
    if not lists.is_file():
        pytest.skip(f"no list of IEMOCAP's turns here: {lists}")
    records = [json.loads(line) for line in lists.read_text().splitlines()]
    return [Row(record["key"].removeprefix("iemocap-"), record["emo"]) for record in records]


@pytest.fixture(scope="module")
def real(rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    root = tmp_path_factory.mktemp("iemocap")
    texts: dict[str, str] = defaultdict(lambda: HEADER)
    for turn, code in rows:
        texts[turn.rsplit("_", 1)[0]] += block(turn, code)
    for dialogue, text in texts.items():
        labels(root, dialogue, text)
    sound(root, *(row.turn for row in rows))
    return read_iemocap(root)


def test_real_names_and_counts(real: Corpus, rows: list[Row]) -> None:
    assert real.count("label") == {"ang": 1103, "exc": 1041, "hap": 595, "neu": 1708, "sad": 1084}
    assert real.classes == ("ang", "exc", "hap", "neu", "sad")
    assert real.skipped == ()
    assert [u.name for u in real] == sorted(row.turn for row in rows)
    assert real.count("session") == Counter(f"Session{row.turn[4]}" for row in rows)
    letters = Counter(f"{row.turn[:5]}_{row.turn.rsplit('_', 1)[1][0]}" for row in rows)
    assert real.count("speaker") == letters
    assert len(letters) == 10
    assert {(u.speaker or "")[-1] + (u.gender or "") for u in real} == {"Ffemale", "Mmale"}
    # Both dialogues of a number, each with turns of both speakers.
    assert len(real.count("dialogue")) == 151
    for dialogue in ("Ses01F_impro01", "Ses01M_impro01"):
        assert len({u.speaker for u in real if u.dialogue == dialogue}) == 2


def test_selections_of_the_papers(real: Corpus) -> None:
    four = ("anger", "happiness=hap,exc", "neutral", "sadness")
    counts = {"anger": 1103, "happiness": 1636, "neutral": 1708, "sadness": 1084}
    assert real.select(four).count("label") == counts
    assert real.select(four).classes == tuple(counts)
    # 2280 improvised turns without excitement, as papers on this part report.
    plain = real.select(("anger", "happiness", "neutral", "sadness"), styles=("improvised",))
    assert plain.count("label") == {"anger": 289, "happiness": 284, "neutral": 1099, "sadness": 608}
    assert set(real.count("style")) == {"improvised", "scripted"}


def test_every_field_of_a_turn(tmp_path: Path) -> None:
    labels(tmp_path, "Ses01F_impro01", HEADER + block("Ses01F_impro01_M000", "fru"))
    sound(tmp_path, "Ses01F_impro01_M000")
    (turn,) = read_iemocap(tmp_path)
    assert turn.name == "Ses01F_impro01_M000"
    assert turn.path == tmp_path / "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_M000.wav"
    assert (turn.label, turn.speaker, turn.gender) == ("fru", "Ses01_M", "male")
    # Times in the label file are the dialogue's; the turn has a file of its own.
    assert (turn.start, turn.end) == (0.0, None)
    assert (turn.session, turn.dialogue) == ("Session1", "Ses01F_impro01")
    assert (turn.style, turn.split) == ("improvised", None)
    assert (turn.valence, turn.arousal, turn.dominance) == (2.5, 3.0, 3.5)


def test_codes_have_common_names_and_one_order(tmp_path: Path) -> None:
    codes = ["xxx", "sur", "sad", "oth", "neu", "hap", "fru", "fea", "exc", "dis", "ang"]
    turns = [f"Ses05M_script01_1b_F{i:03d}" for i in range(len(codes))]
    texts = (block(turn, code) for turn, code in zip(turns, codes, strict=True))
    labels(tmp_path, "Ses05M_script01_1b", "".join(texts))
    sound(tmp_path, *turns)
    corpus = read_iemocap(tmp_path)
    assert [u.label for u in corpus] == [None, *codes[1:]]
    assert corpus.classes == tuple(sorted(codes[1:]))
    assert set(corpus.emotions) == set(codes[1:])
    assert set(corpus.emotions.values()) <= set(COMMON_EMOTIONS)
    assert all(common.startswith(code) for code, common in corpus.emotions.items())
    assert dict(corpus.select().skipped) == {turns[0]: "no label"}


def test_debris_between_the_files(tmp_path: Path) -> None:
    text = HEADER + block("Ses02F_impro01_F000") + block("Ses02F_impro01_F001", "ang", "NaN, 1, 2")
    path = labels(tmp_path, "Ses02F_impro01", "\ufeff" + text.replace("\n", "\r\n"))
    wrong = block("Ses02F_impro01_F000", "sad")
    for folder in ("Attribute", "Categorical", "Self-evaluation"):
        put(path.parent / folder / "Ses02F_impro01_e1_cat.txt", wrong)
    put(path.parent / "._Ses02F_impro01.txt").write_bytes(b"\x00\x05\x16\x07\xff\xfe")
    put(path.parent / ".DS_Store", wrong)
    put(tmp_path / "Session2/dialog/wav/Ses02F_impro01.wav")
    sound(tmp_path, "Ses02F_impro01_F000", "Ses02F_impro01_M009", "Ses02F_impro09/._x_F000")
    wav = tmp_path / "Session2/sentences/wav"
    shutil.copytree(wav / "Ses02F_impro01", wav / "wav/Ses02F_impro01")
    corpus = read_iemocap(tmp_path)
    assert [(u.name, u.label, u.path.parent.parent) for u in corpus] == [
        ("Ses02F_impro01_F000", "neu", wav)
    ]
    below = "Session2/sentences/wav/"
    reasons = {name.removeprefix(below): reason for name, reason in corpus.skipped}
    assert reasons.pop("Ses02F_impro01_F001") == "no audio file"
    assert reasons.pop("Ses02F_impro01/Ses02F_impro01_M009.wav") == "not in the label files"
    assert "macOS" in reasons.pop(next(name for name in reasons if "._" in name))
    assert len(reasons) == 2
    assert set(reasons.values()) == {"copy of another file"}


@pytest.mark.parametrize("folder", ["session4", "SESSION4"])
def test_any_case_of_the_sessions(tmp_path: Path, folder: str) -> None:
    labels(tmp_path, "Ses04F_impro01", block("Ses04F_impro01_F000"))
    sound(tmp_path, "Ses04F_impro01_F000")
    (tmp_path / "Session4").rename(tmp_path / folder)
    (turn,) = read_iemocap(tmp_path)
    assert (turn.session, turn.path.is_file()) == ("Session4", True)


def test_sound_that_is_no_turn(tmp_path: Path) -> None:
    labels(tmp_path, "Ses04F_impro01", block("Ses04F_impro01_F000"))
    sound(tmp_path, "Ses04F_impro01_F000", "Ses04F_slate")
    (left,) = read_iemocap(tmp_path).skipped
    assert left == (
        "Session4/sentences/wav/Ses04F/Ses04F_slate.wav", "not named like Ses01F_impro01_F000.wav",
    )  # fmt: skip


def test_wrong_case_of_endings(tmp_path: Path) -> None:
    labels(tmp_path, "Ses03M_impro02", block("Ses03M_impro02_F000", ratings="NaN, 1.5, 5.5"))
    folder = tmp_path / "Session3/dialog/EmoEvaluation"
    (folder / "Ses03M_impro02.txt").rename(folder / "Ses03M_impro02.TXT")
    put(tmp_path / "Session3/sentences/wav/Ses03M_impro02/Ses03M_impro02_F000.WAV")
    (turn,) = read_iemocap(tmp_path)
    assert (turn.valence, turn.arousal, turn.dominance) == (None, 1.5, 5.5)


@pytest.mark.parametrize(
    "release", ["IEMOCAP_full_release", "IEMOCAP", "IEMOCAP/IEMOCAP_full_release"]
)
def test_folder_above_the_sessions(tmp_path: Path, release: str) -> None:
    labels(tmp_path / release, "Ses04F_impro01", block("Ses04F_impro01_F000"))
    sound(tmp_path / release, "Ses04F_impro01_F000")
    (turn,) = read_iemocap(tmp_path)
    assert turn.path.is_file()


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        (None, "--root"),
        ("none", "no such folder"),
        ("other", "does not hold IEMOCAP"),
        ("silent", "none of the 1 labelled turns"),
    ],
)
def test_wrong_folders(tmp_path: Path, folder: str | None, message: str) -> None:
    put(tmp_path / "other/readme.txt")
    labels(tmp_path / "silent", "Ses01F_impro01", block("Ses01F_impro01_F000"))
    with pytest.raises(CorpusError, match=message) as caught:
        read_iemocap(None if folder is None else tmp_path / folder)
    assert "dialog/EmoEvaluation" in str(caught.value)


def test_repeats_may_agree_but_not_contradict(tmp_path: Path) -> None:
    turn = "Ses01F_impro01_F000"
    labels(tmp_path, "Ses01F_impro01", block(turn) * 2)
    sound(tmp_path, turn)
    assert len(read_iemocap(tmp_path)) == 1
    labels(tmp_path, "Ses01M_impro01", HEADER + block(turn, "hap"))
    with pytest.raises(CorpusError) as caught:
        read_iemocap(tmp_path)
    assert "EmoEvaluation/Ses01F_impro01.txt, line 1" in str(caught.value)
    assert f"EmoEvaluation/Ses01M_impro01.txt, line 3: {turn}" in str(caught.value)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("[6.2901 - 8.2357]\tSes01F_impro01_F000\tneutral\t[2.5, 2.5, 2.5]", "emotion 'neutral'"),
        ("[6.2901 - 8.2357]\tSes06F_impro01_F000\tneu\t[2.5, 2.5, 2.5]", "'Ses06F_impro01_F000'"),
        (
            "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5, x, 2.5]",
            "a rating of .* is not a number",
        ),
        (
            "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5, inf, 2.5]",
            "a rating of .* is not a number",
        ),
        (
            "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5, 2_5, 2.5]",
            "a rating of .* is not a number",
        ),
        (
            "[6.2901 - 8.2357]\tx/Ses01F_impro01_F000\tneu\t[2.5, 2.5, 2.5]",
            "not the name of a turn",
        ),
        ("[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5, 2.5]", "not a labelled turn"),
        ("[6.2901 - 8.23", "not a labelled turn"),
    ],
)
def test_malformed_line(tmp_path: Path, line: str, fault: str) -> None:
    labels(tmp_path, "Ses01F_impro01", HEADER + line + "\n")
    with pytest.raises(CorpusError, match=fault) as caught:
        read_iemocap(tmp_path)
    assert "Ses01F_impro01.txt, line 3: " in str(caught.value)
    assert "ang, dis, exc" in str(caught.value)


def test_many_faults_are_summed_up(tmp_path: Path) -> None:
    labels(tmp_path, "Ses01F_impro01", "[broken\n" * 10_000)
    with pytest.raises(CorpusError, match=r"10000 error\(s\)") as caught:
        read_iemocap(tmp_path)
    assert "9995 more" in str(caught.value)
    assert len(str(caught.value).splitlines()) < 10


line = st.tuples(
    st.sampled_from(["[6.2901 - 8.2357]", "[", "% [", "C-E2:"]),
    st.sampled_from(["Ses01F_impro01_F000", "Ses01F_impro01_M000", "Ses09F_impro01_F000", ""]),
    st.sampled_from(["neu", "xxx", "NEU", "Neutral;"]),
    st.sampled_from(["[2.5000, 2.5000, 2.5000]", "[NaN, 1e9, -0]", "[inf, 1, 2]", "[1, 2]", "()"]),
).map("\t".join)


@given(st.binary() | st.text().map(str.encode) | st.lists(line).map("\n".join).map(str.encode))
@example(block("Ses01F_impro01_F000").encode())
def test_any_label_file_gives_turns_or_a_corpus_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    root = tmp_path_factory.getbasetemp() / "any-iemocap"
    labels(root, "Ses01F_impro01", "").write_bytes(content)
    sound(root, "Ses01F_impro01_F000", "Ses01F_impro01_M000")
    try:
        corpus = read_iemocap(root)
    except CorpusError:
        return
    assert {u.speaker for u in corpus} <= {"Ses01_F", "Ses01_M"}
    assert all(u.path.stem == u.name for u in corpus)


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), max_size=40))
@example("Ses01F_impro01_F000")
def test_any_name_of_a_turn_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    root = tmp_path_factory.getbasetemp() / "any-turn"
    labels(root, "Ses01F_impro02", block("Ses01F_impro02_F000") + block(name))
    sound(root, "Ses01F_impro02_F000")
    try:
        corpus = read_iemocap(root)
    except CorpusError:
        return
    assert {u.name for u in corpus} | {name for name, _ in corpus.skipped} == {
        "Ses01F_impro02_F000",
        name,
    }
