"""The toy corpus: the same bits anywhere, safe on disk, and learnable only through time."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from emodarts import files
from emodarts.audio.store import extract
from emodarts.corpora import load_corpus, synthetic
from emodarts.corpora.synthetic import (
    EMOTIONS,
    GENERATOR_VERSION,
    MARKER,
    SPEAKERS,
    TAKES,
    synthesise,
)
from emodarts.corpora.utterance import Corpus
from emodarts.errors import CorpusError, WriteError
from emodarts.recipe import FeatureSpec


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return load_corpus("synthetic", tmp_path_factory.mktemp("synthetic") / "corpus")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One utterance for each speaker and emotion."""
    monkeypatch.setattr(synthetic, "TAKES", 1)


def digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.glob("*.wav")):
        total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()


def test_balanced(corpus: Corpus) -> None:
    assert corpus.classes == ("anger", "happiness", "neutral", "sadness")
    assert Counter((u.speaker, u.label) for u in corpus) == {
        (s.name, e): TAKES for s in SPEAKERS for e in EMOTIONS
    }
    assert Counter(s.gender for s in SPEAKERS) == {"female": 4, "male": 4}
    assert [u.name for u in corpus] == sorted(u.name for u in corpus)
    assert "toy" in corpus.notice
    assert "mean nothing for real speech" in corpus.notice


def test_files_are_16_bit_mono_and_none_is_clipped(corpus: Corpus) -> None:
    for utterance in corpus:
        info = soundfile.info(utterance.path)
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        assert info.frames == 2 * 16000
        samples, _ = soundfile.read(utterance.path)
        assert np.isfinite(samples).all()
        assert np.mean(np.abs(samples) > 0.999) < 1e-3
    assert len({u.path.read_bytes() for u in corpus}) == len(corpus)


def test_same_bits_in_another_process(corpus: Corpus, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from emodarts.corpora import load_corpus; "
        "load_corpus('synthetic', Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "other")], check=True)
    assert digest(tmp_path / "other") == digest(corpus.utterances[0].path.parent)


def test_second_reading_writes_nothing(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(path: Path, data: bytes) -> None:
        raise AssertionError(path)

    monkeypatch.setattr(files, "write_bytes", write)
    assert load_corpus("synthetic", corpus.utterances[0].path.parent) == corpus


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("change", [None, {"version": GENERATOR_VERSION - 1}, {"complete": False}])
def test_partial_or_outdated_folder_is_made_again(
    tmp_path: Path, change: dict[str, object] | None
) -> None:
    load_corpus("synthetic", tmp_path)
    whole = digest(tmp_path)
    if change is None:
        (tmp_path / "f1_anger_01.wav").unlink()
    else:
        (tmp_path / "f1_anger_01.wav").write_bytes(b"old")
        marker = json.loads((tmp_path / MARKER).read_text())
        (tmp_path / MARKER).write_text(json.dumps(marker | change))
    load_corpus("synthetic", tmp_path)
    assert digest(tmp_path) == whole


@pytest.mark.usefixtures("quick")
def test_killed_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, written = files.write_bytes, []

    def write(path: Path, data: bytes) -> None:
        written.append(path)
        if len(written) == 10:
            raise WriteError("disk full")
        original(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_bytes", write)
        with pytest.raises(WriteError):
            load_corpus("synthetic", tmp_path)
    assert not json.loads((tmp_path / MARKER).read_text())["complete"]
    assert len(load_corpus("synthetic", tmp_path)) == 32
    load_corpus("synthetic", tmp_path / "fresh")
    assert digest(tmp_path) == digest(tmp_path / "fresh")


def test_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(CorpusError, match="holds other files") as caught:
        load_corpus("synthetic", tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(CorpusError, match="is a file"):
        load_corpus("synthetic", tmp_path / "thesis.txt")


@pytest.mark.usefixtures("quick")
def test_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMODARTS_CACHE", str(tmp_path))
    folder = load_corpus("synthetic").utterances[0].path.parent
    assert folder == tmp_path / f"synthetic-v{synthetic.GENERATOR_VERSION}"


def test_bounded_and_different_for_every_seed() -> None:
    one, other = (
        synthesise(SPEAKERS[0], EMOTIONS["anger"], np.random.default_rng(seed)) for seed in (0, 1)
    )
    assert one.shape == other.shape == (32000,)
    assert max(np.abs(one).max(), np.abs(other).max()) <= 1.0
    assert not np.allclose(one, other)


def test_mean_spectrum_separates_less_than_its_movement(corpus: Corpus, tmp_path: Path) -> None:
    """A linear classifier on mean MFCC must not solve the demo, nor find nothing."""
    spec = FeatureSpec(
        sample_rate=16000, duration=2.0, n_fft=1024, hop_length=512, n_mels=128, n_mfcc=40, pool=1
    )
    maps = extract(corpus.utterances, spec, tmp_path).features[:, 0].numpy()
    labels = [u.label for u in corpus]
    groups = [u.speaker[1] for u in corpus if u.speaker]  # f1 with m1, f2 with m2, ...

    def ua(inputs: np.ndarray) -> float:
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        guesses = cross_val_predict(model, inputs, labels, groups=groups, cv=GroupKFold(4))
        return recall_score(labels, guesses, average="macro")

    mean, spread = maps.mean(2), maps.std(2)
    assert 0.5 <= ua(mean) <= 0.65
    assert ua(np.concatenate([mean, spread], 1)) >= ua(mean) + 0.1
