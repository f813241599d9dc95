"""CREMA-D's file names, and the labels that listeners gave."""

from __future__ import annotations

import csv
import json
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emodarts.corpora.crema_d import EMOTIONS, TABLE, parse_name, read_crema_d
from emodarts.corpora.utterance import Utterance
from emodarts.errors import CorpusError

DATA = Path(__file__).parents[3] / "shared" / "data"
HEADER = '"","FileName","VoiceVote","VoiceLevel","FaceVote","FaceLevel"'


def put(root: Path, *names: str, content: str = "") -> Path:
    """Make files that are no sound: listing must not open them."""
    for folder in {(root / name).parent for name in names}:
        folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    return root


def table(*votes: str, header: str = HEADER, end: str = "\n") -> str:
    """A summary table of rows like ``1001_IEO_NEU_XX=A:N``."""
    rows = (vote.partition("=") for vote in votes)
    lines = (f'"{k}","{n}","{v}","69.1","N","92.22"' for k, (n, _, v) in enumerate(rows, 1))
    return end.join([header, *lines, ""])


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All real names as empty files, with the real tables."""
    listed = DATA / "emobox" / "cremad" / "cremad.jsonl"
    if not listed.is_file() or not (DATA / "cremad").is_dir():
        pytest.skip(f"no EmoBox list of CREMA-D at {listed}, or no {DATA / 'cremad'}")
    root = tmp_path_factory.mktemp("crema-d")
    wavs = [json.loads(line)["wav"] for line in listed.read_text().splitlines()]
    put(root, *(wav.removeprefix("downloads/cremad/") for wav in wavs))
    text = (DATA / "cremad" / TABLE).read_text()
    return put(root, f"processedResults/{TABLE}", content=text)


def test_real_names(real: Path) -> None:
    corpus = read_crema_d(real)
    assert corpus.count("label", corpus.classes) == {
        "ANG": 1271, "DIS": 1271, "FEA": 1271, "HAP": 1271, "NEU": 1087, "SAD": 1271,
    }  # fmt: skip
    fewer = {"1002": 81, "1008": 76, "1009": 76, "1019": 76, "1076": 81}
    everyone = dict.fromkeys((str(actor) for actor in range(1001, 1092)), 82)
    assert corpus.count("speaker") == everyone | fewer
    assert corpus.skipped == ()


def test_genders_are_those_of_the_demographics(real: Path) -> None:
    with (DATA / "cremad" / "VideoDemographics.csv").open(newline="") as file:
        found = {row["ActorID"]: row["Sex"].lower() for row in csv.DictReader(file)}
    assert {u.speaker: u.gender for u in read_crema_d(real)} == found
    assert Counter(found.values()) == {"male": 48, "female": 43}


def test_real_votes(real: Path) -> None:
    """Single letters of the column, as counted in the file with another tool."""
    corpus = read_crema_d(real, labels="voice")
    assert corpus.count("label", corpus.classes) == {
        "ANG": 986, "DIS": 547, "FEA": 645, "HAP": 353, "NEU": 3897, "SAD": 370,
    }  # fmt: skip
    assert len(corpus) == 7442
    assert sum(u.label is None for u in corpus) == 644
    assert len(corpus.select()) == 7442 - 644
    assert corpus.skipped == ()


def test_every_part_of_a_name(tmp_path: Path) -> None:
    put(tmp_path, "AudioWAV/1002_IEO_ANG_HI.WAV", "AudioMP3/1002_IEO_ANG_HI.mp3")
    (utterance,) = read_crema_d(tmp_path)
    assert utterance == Utterance(
        name="1002_IEO_ANG_HI",
        path=tmp_path / "AudioWAV" / "1002_IEO_ANG_HI.WAV",
        label="ANG",
        speaker="1002",
        gender="female",
    )
    assert read_crema_d(tmp_path).emotions["ANG"] == "anger"


def test_a_misspelt_level(tmp_path: Path) -> None:
    put(tmp_path, "1040_ITH_SAD_X.wav")
    put(tmp_path, TABLE, content=table("1040_ITH_SAD_XX=N"))
    (utterance,) = read_crema_d(tmp_path, labels="voice")
    assert (utterance.name, utterance.label) == ("1040_ITH_SAD_XX", "NEU")
    assert utterance.path.name == "1040_ITH_SAD_X.wav"


def test_what_is_left_out(tmp_path: Path) -> None:
    put(tmp_path, "1001_IEO_NEU_XX.wav", "._1001_IEO_NEU_XX.wav", "1000_IEO_NEU_XX.wav",
        "1092_IEO_NEU_XX.wav", "1001_IEO_SUR_XX.wav", "1001_IEO_NEU_XXX.wav",
        "a/1001_IEO_NEU_XX.wav")  # fmt: skip
    corpus = read_crema_d(tmp_path)
    assert [u.name for u in corpus] == ["1001_IEO_NEU_XX"]
    reasons = dict(corpus.skipped)
    assert len(reasons) == 6
    assert "macOS" in reasons["._1001_IEO_NEU_XX.wav"]
    assert reasons["1000_IEO_NEU_XX.wav"] == "no such actor: 1000; allowed: 1001 to 1091"
    assert "no such actor" in reasons["1092_IEO_NEU_XX.wav"]
    assert "not named like" in reasons["1001_IEO_SUR_XX.wav"]
    assert "not named like" in reasons["1001_IEO_NEU_XXX.wav"]
    assert reasons["a/1001_IEO_NEU_XX.wav"] == "copy of another file"


@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_perceived_labels(tmp_path: Path, bom: str, end: str) -> None:
    put(tmp_path, *(f"1001_IEO_{e}_LO.wav" for e in ("ANG", "DIS", "FEA", "HAP")))
    rows = ("ANG_LO=N", "DIS_LO=A:N", "FEA_LO=F", "FEA_LO=F", "SAD_LO=S")
    votes = table(*(f"1001_IEO_{row}" for row in rows), end=end)
    put(tmp_path, f"processedResults/{TABLE}", content=bom + votes)
    corpus = read_crema_d(tmp_path, labels="voice")
    assert {u.name[9:12]: u.label for u in corpus} == {"ANG": "NEU", "DIS": None, "FEA": "FEA"}
    assert corpus.classes == ("FEA", "NEU")
    assert corpus.skipped == (
        ("1001_IEO_HAP_LO", f"not in {TABLE}"),
        ("1001_IEO_SAD_LO", "no such file"),
    )


def test_two_votes_for_one_file_name_both_places(tmp_path: Path) -> None:
    put(tmp_path, "1001_IEO_ANG_LO.wav")
    put(tmp_path, TABLE, content=table("1001_IEO_ANG_LO=A"))
    put(tmp_path, f"a/{TABLE}", content=table("1001_IEO_ANG_MD=D", "1001_IEO_ANG_LO=N"))
    with pytest.raises(CorpusError, match="'N', but 'A'") as caught:
        read_crema_d(tmp_path, labels="voice")
    assert f"{tmp_path / 'a' / TABLE}, line 3" in str(caught.value)
    assert f"{tmp_path / TABLE}, line 2" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (table("=A"), "line 2: FileName '', VoiceVote 'A'"),
        (table("1001_IEO_ANG_LO=A:X"), "VoiceVote 'A:X'"),
        (table("1001_IEO_ANG_LO="), "VoiceVote ''"),
        (table(*(f"{n}=X" for n in range(10_000))), "has 10000 error"),
        (table("1001_IEO_ANG_LO=A", header='"","File","VoiceVote"'), "no column FileName"),
        ("", "no column FileName and no column VoiceVote"),
        (HEADER + '\n"1","a"b","A"\n', "line 2: not CSV"),
        ("\udcff", "not UTF-8"),
    ],
)
def test_a_malformed_table(tmp_path: Path, content: str, fault: str) -> None:
    put(tmp_path, "1001_IEO_ANG_LO.wav")
    put(tmp_path, TABLE, content=content)
    with pytest.raises(CorpusError, match=fault) as caught:
        read_crema_d(tmp_path, labels="voice")
    assert str(tmp_path / TABLE) in str(caught.value)
    assert len(str(caught.value)) < 1500
    assert len(read_crema_d(tmp_path)) == 1


def test_options(tmp_path: Path) -> None:
    put(tmp_path, "1001_IEO_ANG_LO.wav")
    with pytest.raises(
        CorpusError, match=r"'voices' \(did you mean 'voice'\?\); allowed: intended"
    ):
        read_crema_d(tmp_path, labels="voices")
    with pytest.raises(CorpusError, match=r"has no summaryTable\.csv in it or below it"):
        read_crema_d(tmp_path, labels="voice")
    with pytest.raises(CorpusError, match=r"needs its folder \(--root\)"):
        read_crema_d(None, labels="voice")


parts = st.tuples(
    st.integers(990, 1100).map(str),
    st.sampled_from(["IEO", "MTI"]),
    st.sampled_from([*EMOTIONS, "SUR"]),
    st.sampled_from(["LO", "MD", "HI", "XX", "X", "HIGH"]),
)


@given(st.text() | parts.map("_".join))
def test_any_name_is_an_utterance_or_a_reason(stem: str) -> None:
    parsed = parse_name(Path(f"{stem}.wav"))
    if isinstance(parsed, Utterance):
        actor, _, emotion, level = parsed.name.split("_")
        assert (parsed.speaker, parsed.label) == (actor, emotion)
        assert level in ("LO", "MD", "HI", "XX")
    else:
        assert parsed


@given(st.binary() | st.text().map(lambda t: f"{HEADER}\n{t}".encode("utf-8", "surrogatepass")))
def test_any_table_gives_labels_or_a_corpus_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    root = tmp_path_factory.getbasetemp() / "any-table"
    put(root, "1001_IEO_ANG_LO.wav")
    (root / TABLE).write_bytes(content)
    with suppress(CorpusError):
        assert set(read_crema_d(root, labels="voice").classes) <= set(EMOTIONS)
