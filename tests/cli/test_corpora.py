"""The real command line on corpora of every shape: tables, lists, folds, features, bad input."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from commands import emodarts, refused

#: Seconds instead of minutes: no search, two epochs.
QUICK = ("--set", "search={strategy: random}", "--set", "training.epochs=2")
SPEAKERS = ("03", "08", "09", "10", "11", "13")
EMOTIONS = {"W": "angry", "F": "happy", "N": "neutral", "T": "sad"}


def result_of(run: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((run / "result.json").read_text())
    return value


def write_table(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="session")
def table(tiny_emodb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tiny_emodb`` as a table from Windows, with a split, and speaker 13 without labels."""
    folder = tmp_path_factory.mktemp("table")
    shutil.copytree(tiny_emodb, folder / "wav")
    rows = [
        {
            "file": f"wav\\{path.name}",
            "who": path.name[:2],
            "label": "" if path.name[:2] == "13" else EMOTIONS[path.name[5]],
            "split": {"11": "Dev", "10": "Test1", "13": "Test3"}.get(path.name[:2], "Train"),
        }
        for path in sorted((folder / "wav").iterdir())
    ]
    return write_table(folder / "speech.csv", rows)


COLUMNS = ("--corpus-option", "speaker=who", "--corpus-option", "emotion=label")


def test_a_corpus_at_a_glance(tiny_emodb: Path) -> None:
    facts = json.loads(
        emodarts("corpora", "--corpus", "emodb", "--root", tiny_emodb, "--json").stdout
    )
    assert facts["corpus"] == "emodb"
    assert facts["utterances"] == 72
    assert facts["classes"] == dict.fromkeys(("anger", "happiness", "neutral", "sadness"), 18)
    assert facts["speakers"] == dict.fromkeys(SPEAKERS, 12)
    assert facts["duration_s"] == 72.0
    assert facts["skipped"] == []
    page = emodarts("corpora", "--corpus", "emodb", "--root", tiny_emodb).stdout
    for part in ("anger", "female", "8,000 Hz (72)", "0:01:12 of audio", "█"):
        assert part in page


def test_labels_are_merged_in_the_order_asked_for(table: Path) -> None:
    where = ("--corpus", "table", "--root", table, *COLUMNS)
    labels = ("--labels", "up=happiness,angry", "--labels", "rest=neutral,sad")
    facts = json.loads(emodarts("corpora", *where, *labels, "--json").stdout)
    assert list(facts["classes"].items()) == [("up", 30), ("rest", 30)]
    assert Counter(s["reason"] for s in facts["skipped"]) == {"no label": 12}
    assert "did you mean 'happy'" in refused("corpora", *where, "--labels", "hapy,sad")


def test_check_names_every_bad_file(tiny_emodb: Path, tmp_path: Path) -> None:
    for name in ("03a01Wa.wav", "08a01Fa.wav", "09a01Na.wav"):
        shutil.copy(tiny_emodb / name, tmp_path / name)
    where = ("corpora", "--corpus", "emodb", "--root", tmp_path)
    assert json.loads(emodarts(*where, "--check", "--json").stdout)["bad"] == []
    assert "all 3 utterances have usable audio" in emodarts(*where, "--check").stdout
    (tmp_path / "03a01Wa.wav").write_bytes(b"")
    (tmp_path / "08a01Fa.wav").write_text("text")
    assert "files with an unreadable header: 2; --check shows" in emodarts(*where).stdout
    done = emodarts(*where, "--check", code=2)
    assert "2 of 3 utterances have unusable audio" in done.stderr
    assert "03a01Wa.wav: is empty" in done.stderr
    assert "08a01Fa.wav: cannot be decoded" in done.stderr
    assert done.stderr.count("03a01Wa") == 1
    assert "files with an unreadable header: 2\n" in done.stdout
    assert "usable audio" not in done.stdout


def test_a_recording_under_two_speakers_is_named_and_not_tested_on(
    tiny_recipe_file: Path, tiny_emodb: Path, cache: Path, tmp_path: Path
) -> None:
    """A copy in another format with silence around it, said to be of another speaker."""
    root = tmp_path / "wav"
    shutil.copytree(tiny_emodb, root)
    sound, rate = soundfile.read(root / "03a01Wa.wav", dtype="int16")
    silence = np.zeros(400, np.int16)
    soundfile.write(root / "13a02Wa.flac", np.concatenate([silence, sound, silence]), rate)
    where = ("--corpus", "emodb", "--root", root)
    listed = json.loads(emodarts("corpora", *where, "--json").stdout)
    assert (listed["utterances"], listed["same_sound"]) == (73, [])
    checked = json.loads(emodarts("corpora", *where, "--check", "--json").stdout)
    assert checked["same_sound"] == [["03a01Wa", "13a02Wa"]]
    assert "03a01Wa = 13a02Wa" in emodarts("corpora", *where, "--check").stdout
    out = tmp_path / "run"
    run = ("run", tiny_recipe_file, *where, "--cache", cache, *QUICK, "--out", out)
    error = refused(*run, "--split", "speaker", "--folds", "0")
    assert "03a01Wa (speaker 03) = 13a02Wa (speaker 13)" in error
    assert "--allow-duplicates" in error
    assert not out.exists()
    shown = emodarts(*run, "--split", "speaker", "--folds", "0", "--allow-duplicates").stdout
    (warning,) = (w for w in result_of(out)["warnings"] if "under different names" in w)
    for text in (shown, (out / "report" / "report.md").read_text()):
        assert warning in text
    # Speaker 08 shares no sound with the others.
    emodarts(*run[:-1], tmp_path / "other", "--split", "speaker", "--folds", "1")


def test_labels_that_differ_in_case_are_warned_of_beside_the_scores(
    tiny_recipe_file: Path, tiny_emodb: Path, cache: Path, tmp_path: Path
) -> None:
    spelt = {**EMOTIONS, "N": "Neutral", "T": "neutral"}
    rows = [
        {"file": str(path), "speaker": path.name[:2], "emotion": spelt[path.name[5]]}
        for path in sorted(tiny_emodb.iterdir())
    ]
    where = ("--corpus", "table", "--root", write_table(tmp_path / "speech.csv", rows))
    advice = "--labels Neutral=Neutral,neutral --labels angry --labels happy"
    assert advice in emodarts("corpora", *where).stdout
    assert "differ" not in emodarts("corpora", *where, *advice.split()).stdout
    out = tmp_path / "run"
    run = ("run", tiny_recipe_file, *where, "--cache", cache, *QUICK, "--out", out)
    emodarts(*run, "--folds", "0")
    assert any(advice in warning for warning in result_of(out)["warnings"])


def test_a_table_of_ones_own_from_listing_to_unlabelled_speech(
    tiny_recipe_file: Path, table: Path, cache: Path, tmp_path: Path
) -> None:
    corpus = ("--corpus", "table", "--root", table, *COLUMNS)
    out = tmp_path / "run"
    emodarts(
        *("run", tiny_recipe_file, *corpus, "--cache", cache, "--out", out, *QUICK),
        *("--labels", "four", "--split", "official"),
    )
    folds = json.loads((out / "folds.json").read_text())
    (fold,) = folds["folds"]
    assert {name[4:6] for name in fold["test"]} == {"10"}
    assert {name[4:6] for name in fold["validation"]} == {"11"}
    assert {name[4:6] for name in fold["train"]} == {"03", "08", "09"}
    assert result_of(out)["classes"] == ["anger", "happiness", "neutral", "sadness"]
    assert not any("left out" in warning for warning in result_of(out)["warnings"][1:])
    model = out / "fold-0" / "seed-0" / "model"
    printed = emodarts("predict", model, *corpus, "--part", "Test3", "--format", "json").stdout
    files = [Path(json.loads(line)["file"]).name for line in printed.splitlines()]
    assert len(files) == 12
    assert all(name.startswith("13") for name in files)
    error = refused("predict", model, *corpus, "--part", "Test4")
    assert "no part 'Test4'; its parts: Dev, Test1, Test3, Train" in error


def test_missing_files_are_named_beside_the_scores(
    tiny_recipe_file: Path, tiny_emodb: Path, cache: Path, tmp_path: Path
) -> None:
    gone = (tmp_path / "03a01Wz.wav", tmp_path / "08a01Fz.wav")
    rows = [
        {"file": str(path), "speaker": path.name[:2], "emotion": EMOTIONS[path.name[5]]}
        for path in (*sorted(tiny_emodb.iterdir()), *gone)
    ]
    table = write_table(tmp_path / "speech.csv", rows)
    out = tmp_path / "run"
    shown = emodarts(
        *("run", tiny_recipe_file, "--corpus", "table", "--root", table, "--cache", cache),
        *("--out", out, "--folds", "0", *QUICK),
    ).stdout
    (warning,) = (w for w in result_of(out)["warnings"] if "reader" in w)
    assert warning.endswith("left out 2: 2 no such file")
    assert warning in shown


def test_a_fold_file_is_all_that_is_needed_to_repeat_a_split(
    tiny: tuple[str | Path, ...], tmp_path: Path
) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    emodarts("run", *tiny, *QUICK, "--out", first, "--seeds", "3")
    file = ("--split", first / "folds.json", "--seeds", "3")
    emodarts("run", *tiny, *QUICK, "--out", again, *file)
    assert (first / "predictions.csv").read_bytes() == (again / "predictions.csv").read_bytes()
    for run in (first, again):
        folds = json.loads((run / "folds.json").read_text())["folds"]
        assert len(folds) == 3
        assert sorted(name for fold in folds for name in fold["test"]) == sorted(
            f"{s}a01{e}{v}" for s in SPEAKERS for e in EMOTIONS for v in "abc"
        )
    other = refused("run", *tiny, *QUICK, "--out", tmp_path / "x", *file[:2], "--seeds", "4")
    assert "seed 4" in other
    changed = json.loads((first / "folds.json").read_text())
    changed["folds"][0]["train"].pop()
    (first / "folds.json").write_text(json.dumps(changed))
    assert "other folds" in refused("run", *tiny, *QUICK, "--out", again, "--resume", *file)


def test_random_utterance_folds_say_so_in_every_table(
    tiny: tuple[str | Path, ...], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shown = emodarts(
        "run", *tiny, *QUICK, "--out", out, "--split", "speaker-dependent:2", "--folds", "0"
    ).stdout
    (warning,) = (w for w in result_of(out)["warnings"] if "speaker-dependent" in w)
    for text in (shown, (out / "report" / "report.md").read_text()):
        assert warning in text
    assert warning in emodarts("report", out, out).stdout


def emobox_lists(folder: Path, tiny_emodb: Path, test: str) -> Path:
    """EmoBox lists of ``tiny_emodb`` whose test part is the speakers or versions in ``test``."""
    rows = [
        {"key": f"emodb-{p.stem}", "dataset": "emodb", "wav": f"downloads/emodb/wav/{p.name}",
         "emo": EMOTIONS[p.name[5]]}
        for p in sorted(tiny_emodb.iterdir())
    ]  # fmt: skip
    (folder / "fold_1").mkdir(parents=True)
    shutil.copytree(tiny_emodb, folder / "downloads" / "emodb" / "wav")
    for part in ("train", "test"):
        chosen = [r for r in rows if any(t in r["key"] for t in test.split()) == (part == "test")]
        text = "".join(json.dumps(row) + "\n" for row in chosen)
        (folder / "fold_1" / f"emodb_{part}_fold_1.jsonl").write_text(text)
    return folder


def test_published_folds_that_share_speakers_are_loaded_on_demand_only(
    tiny_recipe_file: Path, tiny_emodb: Path, cache: Path, tmp_path: Path
) -> None:
    shared = emobox_lists(tmp_path / "shared", tiny_emodb, "Wc Fc Nc Tc")
    run = ("run", tiny_recipe_file, "--cache", cache, *QUICK, "--corpus", "emobox")
    published = ("--split", "emobox")
    out = tmp_path / "out"
    error = refused(*run, "--root", shared, *published, "--out", out)
    assert "speaker 03" in error
    assert "--allow-speaker-overlap" in error
    assert not out.exists()
    shown = emodarts(
        *run, "--root", shared, *published, "--out", out, "--allow-speaker-overlap"
    ).stdout
    assert any("higher than for unseen speakers" in w for w in result_of(out)["warnings"])
    assert all(w in shown for w in result_of(out)["warnings"])
    apart = emobox_lists(tmp_path / "apart", tiny_emodb, "-03 -08")
    emodarts(*run, "--root", apart, *published, "--out", tmp_path / "honest")
    assert [f["test_speakers"] for f in result_of(tmp_path / "honest")["folds"]] == [["03", "08"]]


def test_features_are_prepared_once_for_all_runs(
    tiny: tuple[str | Path, ...], tmp_path: Path
) -> None:
    own = ("--cache", tmp_path / "cache")
    versions = (
        *("--set", "training.augmentation.copies=2"),
        *("--set", "training.augmentation.noise=[5.0, 20.0]"),
    )
    command = ("prepare", *tiny[:-2], *own, *versions, "--json")
    facts = json.loads(emodarts(*command).stdout)
    assert (facts["utterances"], facts["versions"], facts["bad"]) == (72, 3, [])
    stored = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*.f32")}
    assert len(stored) == 3 * 72
    emodarts(*command)
    emodarts("run", *tiny[:-2], *own, *versions, *QUICK, "--folds", "0", "--out", tmp_path / "run")
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*.f32")} == stored


@pytest.mark.parametrize(
    "features",
    [
        "{kind: mfcc, sample_rate: 8000, duration: 0.4, length: segments, n_fft: 256, "
        "hop_length: 64, n_mels: 16, deltas: 2}",
        "{kind: stft, sample_rate: 8000, duration: 1.5, length: repeat, n_fft: 64, "
        "win_length: 60, hop_length: 50, window: hamming}",
        "{kind: waveform, sample_rate: 4000, duration: 1.0, frame_length: 50}",
    ],
)
def test_any_feature_runs_from_sound_to_prediction(
    features: str, tiny: tuple[str | Path, ...], tiny_emodb: Path, tmp_path: Path
) -> None:
    recipe = Path(tiny[0]).read_text().splitlines()
    lines = [f"features: {features}" if line.startswith("features:") else line for line in recipe]
    path = tmp_path / "recipe.yaml"
    path.write_text("\n".join(lines))
    out = tmp_path / "run"
    extra = ("--set", "training.mixup=0.2", "--set", "search.epochs=2", "--set", "search.order=1")
    emodarts("run", path, *tiny[1:], "--folds", "0", "--out", out, *extra, *QUICK[2:])
    with (out / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24  # every test utterance once, whatever its number of pieces
    utterance = next(tiny_emodb.glob(f"{rows[0]['name']}.wav"))
    model = out / "fold-0" / "seed-0" / "model"
    (line,) = emodarts("predict", model, utterance, "--format", "json").stdout.splitlines()
    answer = json.loads(line)["probabilities"]
    for name, probability in answer.items():
        assert probability == pytest.approx(float(rows[0][f"p_{name}"]), abs=1e-5)


@pytest.fixture(scope="session")
def wrong_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tables that cannot be used."""
    folder = tmp_path_factory.mktemp("wrong")
    write_table(folder / "none.csv", [{"file": "a.wav", "speaker": "a"}])
    outside = {"file": "../a.wav", "speaker": "a", "emotion": "calm"}
    write_table(folder / "out.csv", [outside])
    late = {"speaker": "a", "emotion": "calm", "start": "late"}
    write_table(folder / "many.csv", [{"file": f"{k}.wav", **late} for k in range(10_000)])
    return folder


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ("table --root {table}", "speaker"),
        ("table --root {wrong}/none.csv", "emotion"),
        ("table --root {wrong}/out.csv", "../a.wav"),
        ("table --root {wrong}/many.csv", "10000"),
        ("table --root {table} --corpus-option speker=who", "did you mean 'speaker'"),
        ("table --root {table} --corpus-option speaker", "allowed: KEY=VALUE"),
        ("iemocap --root {table.parent}", "Session1"),
        ("msp-podcast --root {table.parent}", "labels_consensus.csv"),
    ],
)
def test_bad_corpora_are_refused(
    tiny: tuple[str | Path, ...],
    table: Path,
    wrong_tables: Path,
    tmp_path: Path,
    corpus: str,
    message: str,
) -> None:
    arguments = corpus.format(table=table, wrong=wrong_tables).split()
    error = refused("run", tiny[0], "--out", tmp_path / "out", "--corpus", *arguments)
    assert message in error
    assert len(error) < 2000
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--styles sung", "no utterance of style sung"),
        ("--split session", "session"),
        ("--split official", "official"),
        ("--split folds.txt", "allowed: speaker"),
        ("--split no.json", "no.json"),
        ("--allow-speaker-overlap", "allow_speaker_overlap"),
    ],
)
def test_choices_that_a_corpus_does_not_allow_are_refused(
    tiny: tuple[str | Path, ...], tmp_path: Path, options: str, message: str
) -> None:
    assert message in refused("run", *tiny, "--out", tmp_path / "out", *options.split())
    assert not (tmp_path / "out").exists()
