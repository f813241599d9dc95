"""MSP-IMPROV's tree and evaluation file in the exact syntax, with all that lies between them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from emodarts.corpora.msp_improv import read_msp_improv
from emodarts.corpora.utterance import COMMON_EMOTIONS
from emodarts.errors import CorpusError

RATERS = (
    "P13; Angry; Frustrated,Disgusted,Angry; A:4.000000; V:2.000000; D:4.000000; N:4.000000;\n"
    "WK-02; Other (UTD-IMPROV-like); Bored; A:3.000000; V:3.000000; D:NaN; N:NaN;\n\n"
)
CLIP = "S01A-F01-S-FM01"


def block(clip: str, letter: str = "N", ratings: str = "A:3.000000; V:3.500000; D:2.500000") -> str:
    return f"UTD-IMPROV-{clip}.avi; {letter}; {ratings} ; N:4.000000;\n{RATERS}"


def put(path: Path, text: str = "not audio") -> Path:
    """Make a file that is no sound: listing must not open it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")
    return path


def sound(root: Path, *clips: str, below: str = "Audio") -> None:
    for clip in clips:
        sentence, speaker, scenario, _ = clip.split("-")
        folder = root / below / f"session{speaker[2]}" / sentence / scenario
        put(folder / f"MSP-IMPROV-{clip}.wav")


def test_every_field_of_a_turn(tmp_path: Path) -> None:
    put(tmp_path / "Evaluation.txt", block(CLIP))
    sound(tmp_path, CLIP)
    (turn,) = read_msp_improv(tmp_path)
    assert turn.name == f"MSP-IMPROV-{CLIP}"
    assert turn.path == tmp_path / "Audio/session1/S01A/S" / f"MSP-IMPROV-{CLIP}.wav"
    # The raters' label, not the anger (A) that the actor intended.
    assert turn.label == "N"
    assert (turn.speaker, turn.gender, turn.session) == ("F01", "female", "session1")
    assert (turn.style, turn.split) == ("S", None)
    assert (turn.arousal, turn.valence, turn.dominance) == (3.0, 3.5, 2.5)
    assert (turn.start, turn.end) == (0.0, None)


def test_letters_have_common_names_and_one_order(tmp_path: Path) -> None:
    clips = [f"S20H-M06-P-MF0{i}" for i in range(6)]
    texts = (block(clip, letter) for clip, letter in zip(clips, "XSONHA", strict=True))
    put(tmp_path / "Evaluation.txt", "".join(texts))
    sound(tmp_path, *clips)
    corpus = read_msp_improv(tmp_path)
    assert [u.label for u in corpus] == [None, *"SONHA"]
    assert corpus.classes == tuple("AHNOS")
    assert set(corpus.emotions.values()) <= set(COMMON_EMOTIONS)
    assert all(common[0].upper() == letter for letter, common in corpus.emotions.items())
    four = corpus.select(("anger", "happiness", "neutral", "sadness"))
    assert four.count("label") == {"anger": 1, "happiness": 1, "neutral": 1, "sadness": 1}
    assert dict(four.skipped)[f"MSP-IMPROV-{clips[0]}"] == "no label"


def test_scenarios_can_be_selected(tmp_path: Path) -> None:
    clips = [f"S03S-F02-{letter}-FM01" for letter in "PRST"]
    put(tmp_path / "Evaluation.txt", "".join(map(block, clips)))
    sound(tmp_path, *clips)
    corpus = read_msp_improv(tmp_path)
    assert corpus.count("style") == {"P": 1, "R": 1, "S": 1, "T": 1}
    assert corpus.select(styles=("S", "T")).count("style") == {"S": 1, "T": 1}


def test_dialogues_of_two_sessions_have_two_names(tmp_path: Path) -> None:
    """All sessions play the same sentences: S01A of session 1 is not S01A of session 2."""
    clips = [f"S01A-{who}0{n}-S-FM01" for n in range(1, 7) for who in "FM"]
    put(tmp_path / "Evaluation.txt", "".join(map(block, clips)))
    sound(tmp_path, *clips)
    corpus = read_msp_improv(tmp_path)
    assert len(corpus.count("speaker")) == 12
    assert len(corpus.count("session")) == 6
    pairs = {(u.dialogue, u.session): set() for u in corpus}
    assert len(pairs) == len(corpus.count("dialogue")) == 6
    for u in corpus:
        pairs[u.dialogue, u.session].add(u.speaker)
    assert sorted(map(sorted, pairs.values())) == [[f"F0{n}", f"M0{n}"] for n in range(1, 7)]


@pytest.mark.parametrize(
    "head",
    [
        "UTD-IMPROV-{}.avi; N; A:3.000000; V:3.500000; D:2.500000 ; N:4.000000;",
        "UTD-IMPROV-{}.AVI;N;A:3.000000;V:3.500000;D:2.500000;N:4.000000;",
        "MSP-IMPROV-{}.wav ; N ; A: 3.0 ; V:3.5\t; D:2.5 ; N:NaN",
        "  utd-improv-{}.mp4; N; A:3.000000; V:3.500000; D:2.500000;",
    ],
)
@pytest.mark.parametrize("name", ["Evaluation.txt", "Evalution.txt", "MSP-IMPROV/evalution.TXT"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_spellings_of_the_label_file(tmp_path: Path, head: str, name: str, end: str) -> None:
    text = f"{head.format(CLIP)}\n{RATERS}"
    put(tmp_path / name, "\ufeff" + text.replace("\n", end))
    sound(tmp_path, CLIP)
    (turn,) = read_msp_improv(tmp_path)
    assert (turn.label, turn.arousal, turn.valence, turn.dominance) == ("N", 3.0, 3.5, 2.5)


def test_a_missing_rating(tmp_path: Path) -> None:
    put(tmp_path / "Evaluation.txt", block(CLIP, "O", "A:NaN; V:1.500000; D:NaN"))
    sound(tmp_path, CLIP)
    (turn,) = read_msp_improv(tmp_path)
    assert (turn.arousal, turn.valence, turn.dominance) == (None, 1.5, None)


@pytest.mark.parametrize("below", [".", "Audio", "MSP-IMPROV/Audio"])
def test_debris_between_the_files(tmp_path: Path, below: str) -> None:
    text = block(CLIP) + block("S02H-M03-R-MM01", "H")
    put(tmp_path / "Evaluation.txt", text)
    put(tmp_path / "._Evaluation.txt").write_bytes(b"\x00\x05\x16\x07\xff\xfe")
    sound(tmp_path, CLIP, "S02H-M03-T-MM01", below=below)
    sound(tmp_path, CLIP, below="zcopy/Audio")
    folder = tmp_path / below / "session1/S01A/S"
    put(folder / f"MSP-IMPROV-{CLIP}.avi")
    put(folder / f"._MSP-IMPROV-{CLIP}.wav")
    put(folder / "slate.WAV")
    (folder / f"MSP-IMPROV-{CLIP}.wav").rename(folder / f"MSP-IMPROV-{CLIP}.WAV")
    corpus = read_msp_improv(tmp_path)
    (turn,) = corpus
    assert turn.path == folder / f"MSP-IMPROV-{CLIP}.WAV"
    reasons = {Path(name).name: reason for name, reason in corpus.skipped}
    assert reasons.pop(f"MSP-IMPROV-{CLIP}.wav") == "copy of another file"
    assert reasons.pop("MSP-IMPROV-S02H-M03-R-MM01") == "no audio file"
    assert reasons.pop("MSP-IMPROV-S02H-M03-T-MM01.wav") == "not in the label files"
    assert "macOS" in reasons.pop(f"._MSP-IMPROV-{CLIP}.wav")
    assert "not named like" in reasons.pop("slate.WAV")
    assert reasons == {}


def test_a_folder_of_another_session_is_not_believed(tmp_path: Path) -> None:
    put(tmp_path / "Evaluation.txt", block(CLIP) + block("S01A-F02-S-FM01"))
    sound(tmp_path, "S01A-F02-S-FM01")
    file = f"Audio/session2/S01A/S/MSP-IMPROV-{CLIP}.wav"
    put(tmp_path / file)
    corpus = read_msp_improv(tmp_path)
    assert [u.speaker for u in corpus] == ["F02"]
    assert dict(corpus.skipped)[file] == "in a folder of session 2"


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        (None, "--root"),
        ("none", "no such folder"),
        ("other", "does not hold MSP-IMPROV"),
        ("silent", "none of the 1 labelled turns"),
    ],
)
def test_wrong_folders(tmp_path: Path, folder: str | None, message: str) -> None:
    put(tmp_path / "other/readme.txt")
    put(tmp_path / "silent/Evaluation.txt", block(CLIP))
    with pytest.raises(CorpusError, match=message) as caught:
        read_msp_improv(None if folder is None else tmp_path / folder)
    assert "Evaluation.txt" in str(caught.value)


@pytest.mark.parametrize(
    "other", [block(CLIP, "A"), block(CLIP, ratings="A:1.0; V:3.5; D:2.5")], ids=["label", "rating"]
)
def test_two_label_files_may_agree_but_not_contradict(tmp_path: Path, other: str) -> None:
    put(tmp_path / "Evaluation.txt", block(CLIP) * 2)
    put(tmp_path / "Evalution.txt", "\n" + block(CLIP))
    sound(tmp_path, CLIP)
    assert len(read_msp_improv(tmp_path)) == 1
    put(tmp_path / "Evalution.txt", "\n" + other)
    with pytest.raises(CorpusError) as caught:
        read_msp_improv(tmp_path)
    assert f"Evalution.txt, line 2: MSP-IMPROV-{CLIP}" in str(caught.value)
    assert "Evaluation.txt, line 1" in str(caught.value)


@pytest.mark.parametrize(
    ("head", "fault"),
    [
        (f"UTD-IMPROV-{CLIP}.avi; Neutral; A:3; V:3; D:3;", "emotion 'Neutral'"),
        (f"UTD-IMPROV-{CLIP}.avi", "emotion ''"),
        (f"UTD-IMPROV-{CLIP}.avi; N; A:3; D:3;", "A, V and D of .* are not numbers"),
        (f"UTD-IMPROV-{CLIP}.avi; N; A:3; V:inf; D:3;", "A, V and D of .* are not numbers"),
        ("UTD-IMPROV-S01A-F07-S-FM01.avi; N; A:3; V:3; D:3;", "not the name of a clip"),
        ("UTD-IMPROV-S01A-F01-Q-FM01.avi; N; A:3; V:3; D:3;", "not the name of a clip"),
    ],
)
def test_malformed_line(tmp_path: Path, head: str, fault: str) -> None:
    put(tmp_path / "Evaluation.txt", f"\n{head}\n{RATERS}")
    with pytest.raises(CorpusError, match=fault) as caught:
        read_msp_improv(tmp_path)
    assert "Evaluation.txt, line 2: " in str(caught.value)
    assert "A, H, N, O, S, X" in str(caught.value)


def test_many_faults_are_summed_up(tmp_path: Path) -> None:
    put(tmp_path / "Evaluation.txt", block(CLIP, "?") * 10_000)
    with pytest.raises(CorpusError, match=r"10000 error\(s\)") as caught:
        read_msp_improv(tmp_path)
    assert len(str(caught.value).splitlines()) < 10


head = st.tuples(
    st.sampled_from([f"UTD-IMPROV-{CLIP}.avi", f"msp-improv-{CLIP}", "UTD-IMPROV-", "P13", ""]),
    st.sampled_from(["N", "A", "X", "n", "Angry"]),
    st.sampled_from(["A:3.0", "A:NaN", "A:-inf", "A", ":", "V:1"]),
    st.sampled_from(["V:3.0 ", " V:1e400", "V::"]),
    st.sampled_from(["D:2.5", "D:2.5;", ""]),
).map(";".join)


@given(st.binary() | st.text().map(str.encode) | st.lists(head).map("\n".join).map(str.encode))
@example(block(CLIP).encode())
def test_any_label_file_gives_turns_or_a_corpus_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    root = tmp_path_factory.getbasetemp() / "any-improv"
    put(root / "Evaluation.txt").write_bytes(content)
    sound(root, CLIP)
    try:
        corpus = read_msp_improv(root)
    except CorpusError:
        return
    assert [u.name for u in corpus] == [f"MSP-IMPROV-{CLIP}"]
    assert corpus.utterances[0].label in (None, *"AHNOS")


@given(st.text(max_size=40) | st.from_regex(r"S\d\d[AHNS]-[FM]\d\d-[PRSTX]-[FM]{2}\d\d"))
def test_any_name_of_a_clip_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, clip: str
) -> None:
    root = tmp_path_factory.getbasetemp() / "any-clip"
    text = f"UTD-IMPROV-{clip}.avi; N; A:3; V:3; D:3;\n".encode("utf-8", "replace")
    put(root / "Evaluation.txt").write_bytes(block(CLIP).encode() + text)
    sound(root, CLIP)
    try:
        corpus = read_msp_improv(root)
    except CorpusError:
        return
    assert f"MSP-IMPROV-{CLIP}" in {u.name for u in corpus}
    assert all(u.speaker and u.session and u.speaker[-1] == u.session[-1] for u in corpus)
