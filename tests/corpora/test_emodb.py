"""EmoDB's file names, and everything else that may lie between them."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from emodarts.corpora import READERS, load_corpus
from emodarts.errors import CorpusError

# As the corpus documents its speakers.
MEN, WOMEN = {"03", "10", "11", "12", "15"}, {"08", "09", "13", "14", "16"}


def put(root: Path, *names: str) -> Path:
    """Make files that are no sound: listing must not open them."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"not audio")
    return root


def test_real_corpus(emodb_root: Path) -> None:
    corpus = load_corpus("emodb", emodb_root)
    counts = Counter(u.label for u in corpus)
    assert {k: counts[k] for k in ("anger", "happiness", "neutral", "sadness")} == {
        "anger": 127,
        "happiness": 71,
        "neutral": 79,
        "sadness": 62,
    }
    assert corpus.classes == tuple(sorted(counts))
    assert {u.speaker for u in corpus if u.gender == "male"} == MEN
    assert {u.speaker for u in corpus if u.gender == "female"} == WOMEN
    assert all(u.path.is_file() for u in corpus)


def test_every_part_of_a_name(tmp_path: Path) -> None:
    (utterance,) = load_corpus("emodb", put(tmp_path, "03a01Wa.wav"))
    assert utterance.name == "03a01Wa"
    assert utterance.path == tmp_path / "03a01Wa.wav"
    assert utterance.label == "anger"
    assert utterance.speaker == "03"
    assert utterance.gender == "male"
    assert (utterance.start, utterance.end) == (0.0, None)
    assert utterance.session is None
    assert utterance.dialogue is None


@pytest.mark.parametrize(
    ("letter", "label"),
    [("W", "anger"), ("L", "boredom"), ("E", "disgust"), ("A", "fear"), ("F", "happiness"),
     ("N", "neutral"), ("T", "sadness")],
)  # fmt: skip
def test_letters(tmp_path: Path, letter: str, label: str) -> None:
    corpus = load_corpus("emodb", put(tmp_path, f"16b10{letter}d.wav"))
    assert corpus.classes == (label,)
    assert corpus.utterances[0].gender == "female"


def test_classes_and_utterances_are_sorted(tmp_path: Path) -> None:
    put(tmp_path, *(f"03a01{letter}a.wav" for letter in "WTNLFEA"))
    corpus = load_corpus("emodb", tmp_path)
    assert corpus.classes == (
        "anger", "boredom", "disgust", "fear", "happiness", "neutral", "sadness",
    )  # fmt: skip
    assert [u.name for u in corpus] == sorted(u.name for u in corpus)


@pytest.mark.parametrize("below", [".", "wav", "some/where/deep"])
def test_any_depth(tmp_path: Path, below: str) -> None:
    put(tmp_path, f"{below}/03a01Wa.wav", f"{below}/08a02Nb.WAV")
    assert [u.name for u in load_corpus("emodb", tmp_path)] == ["03a01Wa", "08a02Nb"]


def test_debris_is_listed(tmp_path: Path) -> None:
    put(tmp_path, "wav/03a01Wa.wav", "wav/._03a01Wa.wav", "wav/hello.wav", "07a01Wa.wav",
        "03a01Xa.wav", "03a01Wab.wav", "erkennung.txt", "03a02Wa.lablaut")  # fmt: skip
    corpus = load_corpus("emodb", tmp_path)
    assert [u.name for u in corpus] == ["03a01Wa"]
    reasons = dict(corpus.skipped)
    assert set(reasons) == {
        str(Path("wav", "._03a01Wa.wav")), str(Path("wav", "hello.wav")),
        "07a01Wa.wav", "03a01Xa.wav", "03a01Wab.wav",
    }  # fmt: skip
    assert "macOS" in reasons[str(Path("wav", "._03a01Wa.wav"))]
    assert "no such speaker: 07" in reasons["07a01Wa.wav"]
    assert "not named like 03a01Wa.wav" in reasons["03a01Xa.wav"]


def test_same_file_twice(tmp_path: Path) -> None:
    put(tmp_path, "wav/03a01Wa.wav", "copy/wav/03a01Wa.wav")
    corpus = load_corpus("emodb", tmp_path)
    assert len(corpus) == 1
    assert corpus.skipped[0][1] == "copy of another file"
    (tmp_path / "wav" / "03a01Wa.wav").write_bytes(b"other")
    with pytest.raises(CorpusError, match="have the same name but different sizes"):
        load_corpus("emodb", tmp_path)


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("none", "no such folder"),
        ("text/readme.txt", "is a file"),
        ("empty", "is empty"),
        ("text", "has no EmoDB file"),
    ],
)
def test_wrong_folders(tmp_path: Path, folder: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    put(tmp_path, "text/readme.txt", "text/hello.wav")
    with pytest.raises(CorpusError, match=message) as caught:
        load_corpus("emodb", tmp_path / folder)
    assert str(tmp_path / folder) in str(caught.value)
    assert "03a01Wa.wav" in str(caught.value)


def test_unknown_corpus() -> None:
    with pytest.raises(CorpusError, match=r"'emdb' \(did you mean 'emodb'\?\); allowed: .*emodb"):
        load_corpus("emdb", None)


def test_import_is_light() -> None:
    heavy = "{'torch', 'librosa', 'scipy', 'soundfile', 'sklearn', 'pydantic'}"
    code = f"import sys, emodarts.corpora; sys.exit(str({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr.strip() == "set()"


@pytest.mark.parametrize("name", sorted(READERS.keys() - {"synthetic"}))
def test_readers_of_real_corpora_need_a_folder(name: str) -> None:
    with pytest.raises(CorpusError, match="--root"):
        load_corpus(name, None)
