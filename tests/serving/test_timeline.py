"""Segments, one answer for a file, and what is written of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from emodarts.bundle import load_bundle, save_bundle
from emodarts.errors import BundleError, EmodartsError, WriteError
from emodarts.serving.model import Answer, Model
from emodarts.serving.shipped import card_summary, find_model, shipped_models
from emodarts.serving.timeline import (
    segments,
    text_grid,
    whole,
    write_audformat,
    write_text_grids,
)


def answer(start: float, end: float, joy: float | None, file: str = "a.wav") -> Answer:
    if joy is None:
        return Answer(file, start, end, "", {}, "silent")
    label = "joy" if joy > 0.5 else "calm"
    return Answer(file, start, end, label, {"calm": 1 - joy, "joy": joy})


WINDOWS = [answer(0, 4, 0.9), answer(2, 6, 0.7), answer(4, 8, 0.1), answer(8, 12, None)]


def test_neighbours_of_one_label_are_a_segment_that_ends_in_the_middle_of_an_overlap() -> None:
    found = segments(WINDOWS)
    assert [(a.start, a.end, a.label) for a in found] == [
        (0, 5, "joy"),
        (5, 8, "calm"),
        (8, 12, ""),
    ]
    assert found[0].probabilities["joy"] == pytest.approx(0.8)
    assert found[2].note == "silent"
    assert segments(found) == found
    assert segments([]) == []


def test_the_answer_for_a_file_is_the_mean_of_windows_with_speech() -> None:
    found = whole(WINDOWS)
    assert (found.start, found.end, found.label) == (0, 12, "joy")
    assert found.probabilities["joy"] == pytest.approx(1.7 / 3)
    assert whole(WINDOWS[3:]) == WINDOWS[3]


def test_too_little_confidence_is_uncertain() -> None:
    labels = [a.or_uncertain(0.8).label for a in WINDOWS]
    assert labels == ["joy", "uncertain", "calm", ""]
    assert WINDOWS[1].or_uncertain(0.7).label == "joy"


def test_a_text_grid_has_no_gap_and_quotes_labels(tmp_path: Path) -> None:
    odd = Answer("b/x.wav", 1.5, 3.0, 'so "so"', {'so "so"': 1.0})
    text = text_grid([odd])
    assert 'text = "so ""so"""' in text
    assert text.index("xmax = 1.5") < text.index("xmin = 1.5")
    assert "intervals: size = 2" in text
    write_text_grids(tmp_path, [WINDOWS, [odd]])
    assert (tmp_path / "a.TextGrid").read_text().count('text = "') == 3
    with pytest.raises(EmodartsError, match=r"both be x\.TextGrid"):
        write_text_grids(tmp_path, [[odd], [answer(0, 1, 1.0, "c/x.wav")]])


@pytest.mark.filterwarnings("ignore")  # of audformat about pandas
def test_audformat_reads_what_was_written(tmp_path: Path) -> None:
    audformat = pytest.importorskip("audformat")
    odd = answer(3661.25, 90000.5, 0.6, "b, c.wav").or_uncertain(0.7)
    write_audformat(tmp_path, ("calm", "joy"), [*WINDOWS, odd])
    table = audformat.Database.load(str(tmp_path))["emotion"].get()
    files, starts, ends = (table.index.get_level_values(k) for k in range(3))
    assert list(files) == ["a.wav"] * 4 + ["b, c.wav"]
    assert starts.total_seconds().tolist() == [0, 2, 4, 8, 3661.25]
    assert ends.total_seconds().tolist() == [4, 6, 8, 12, 90000.5]
    assert table["emotion"].astype(object).where(table["emotion"].notna(), "").tolist() == [
        "joy",
        "joy",
        "calm",
        "",
        "uncertain",
    ]
    np.testing.assert_allclose(table["confidence"].iloc[[0, 4]], [0.9, 0.6])


@pytest.mark.filterwarnings("ignore")  # of audformat about pandas
def test_a_name_that_is_not_utf8_is_explained(tmp_path: Path) -> None:
    pytest.importorskip("audformat")
    with pytest.raises(WriteError, match="x"):
        write_audformat(tmp_path, ("joy",), [answer(0, 1, 1.0, "x\udcff.wav")])


def test_a_model_is_a_folder_or_a_shipped_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "emodb" in shipped_models()
    folder = find_model("emodb")
    assert sum(p.stat().st_size for p in folder.iterdir()) < 3e6
    assert "ten German actors" in card_summary(folder)
    (tmp_path / "emodb").mkdir()  # e.g. of the corpus
    assert find_model("emodb") == folder
    save_bundle(tmp_path / "emodb", load_bundle(folder))
    assert find_model("emodb") == Path("emodb")
    with pytest.raises(BundleError, match="did you mean 'emodb'"):
        find_model("emodbb")


def test_the_shipped_model_answers_alike_in_threads_and_names_what_it_cannot_read(
    tmp_path: Path,
) -> None:
    model = Model.load("emodb")
    assert model.classes == ("anger", "happiness", "neutral", "sadness")
    rng = np.random.default_rng(0)
    for k in range(4):
        gate = np.clip(np.sin(np.arange(24000) / 900), 0, None)
        soundfile.write(tmp_path / f"{k}.wav", 0.2 * gate * rng.standard_normal(24000), 16000)
    (tmp_path / "2.wav").write_bytes(b"RIFF")
    paths = sorted(tmp_path.glob("*.wav"))
    alone, together = (list(model.predict_many(paths, 0.5, jobs=jobs)) for jobs in (1, 3))
    assert isinstance(alone[2], EmodartsError)
    assert isinstance(together[2], EmodartsError)
    assert [alone[k] for k in (0, 1, 3)] == [together[k] for k in (0, 1, 3)]
    assert all(a.label == "uncertain" for a in model.predict(paths[0], abstain=1.0))
