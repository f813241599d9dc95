"""The real command line, in processes of its own: help, runs, answers, bad input."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from typer.main import get_command

from commands import emodarts, refused
from emodarts.cli.app import app
from emodarts.cost import MEASURED

COMMANDS = (
    *("demo", "corpora", "prepare", "run", "search", "train", "headroom", "predict", "evaluate"),
    *("recipes", "report", "grid", "watch", "serve", "models", "export", "explain"),
)


@pytest.fixture(scope="session")
def finished(tiny: tuple[str | Path, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "run"
    emodarts("run", *tiny, "--out", out)
    return out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_and_describes_every_option(command: str) -> None:
    assert f"Example:  emodarts {command}" in emodarts(command, "--help").stdout
    known = getattr(get_command(app), "commands", {})
    for parameter in known[command].params:
        assert parameter.help, f"{command} {parameter.name}"


def test_help_of_the_whole_lists_every_command_and_loads_nothing_heavy() -> None:
    text = emodarts("--help").stdout
    assert all(re.search(rf"^  {command} ", text, re.M) for command in COMMANDS)
    code = (
        "import sys, emodarts.cli\n"
        "try: emodarts.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'scipy', 'sklearn', 'matplotlib', 'pydantic', 'yaml',"
        " 'soundfile'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_version() -> None:
    assert re.fullmatch(r"emodarts \d+\.\d+\.\d+\n", emodarts("--version").stdout)


def test_corpora_lists_readers_and_their_options() -> None:
    readers = json.loads(emodarts("corpora", "--json").stdout)
    assert {"emodb", "iemocap", "table", "synthetic"} <= set(readers)
    assert "emotion" in readers["table"]["options"]
    assert "Berlin Database" in emodarts("corpora").stdout


def test_recipes_are_listed_with_system_strategy_size_and_paper() -> None:
    found = json.loads(emodarts("recipes", "--json").stdout)
    assert found["cnn-he"] == {
        "title": "Hand-engineered CNN: a baseline of both papers",
        "paper": "arXiv 2305.14402",
        "system": "cnn",
        "strategy": None,
        "parameters": 35017,
        "classes": 4,
    }
    assert (found["cells"]["strategy"], found["cells"]["parameters"]) == ("darts", None)
    lines = emodarts("recipes").stdout.splitlines()
    assert len(lines) == 1 + len(found)
    [row] = [line for line in lines if line.startswith("cnn-he ")]
    assert re.search(r" cnn +35,017 +arXiv 2305.14402$", row)


def test_run_ends_with_a_table_that_defines_its_scores(finished: Path) -> None:
    done = emodarts("report", finished)
    for text in ("UA: unweighted accuracy", "WA: weighted accuracy", "chance", "majority"):
        assert text in done.stdout
    reported = re.search(r"Report: (\S+)", done.stdout)
    assert reported is not None
    report = Path(reported[1])
    images = re.findall(r"\]\(([^)]+\.png)\)", report.read_text())
    assert images
    assert all((report.parent / image).read_bytes()[:4] == b"\x89PNG" for image in images)


def test_same_recipe_with_trials_side_by_side_gives_the_same_result(
    finished: Path, tiny: tuple[str | Path, ...], tmp_path: Path
) -> None:
    done = emodarts("run", *tiny, "--jobs", "2", "--out", tmp_path / "again", "--json")
    assert json.loads(done.stdout) == json.loads((finished / "result.json").read_text())
    assert same_outcome(finished, tmp_path / "again")


def same_outcome(a: Path, b: Path) -> bool:
    """Whether two runs found the same genotypes, scores, predictions and weights."""
    names = ["result.json", "predictions.csv"]
    trials = sorted(p.parent.relative_to(a) for p in a.glob("fold-*/seed-*/result.json"))
    for trial in trials:
        names += [
            str(trial / name)
            for name in (
                "genotype.json",
                "alphas.json",
                "predictions.csv",
                "model/model.safetensors",
                "model/model.json",
            )
        ]

    def results(run: Path) -> list[dict[str, Any]]:
        found = [json.loads((run / trial / "result.json").read_text()) for trial in trials]
        return [{k: v for k, v in result.items() if k not in MEASURED} for result in found]

    assert trials
    assert results(a) == results(b)
    return all((a / name).read_bytes() == (b / name).read_bytes() for name in names)


def lines_of(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.is_file() else 0


@pytest.mark.slow
def test_a_run_that_is_killed_and_resumed_ends_as_one_never_killed(
    tiny: tuple[str | Path, ...], tmp_path: Path
) -> None:
    """SIGKILL in the search of fold 0, in its training, and in the search of fold 1."""
    longer = ("--set", "search.epochs=8", "--set", "training.epochs=20", "--folds", "0,1")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    emodarts("run", *tiny, *longer, "--out", whole)
    command = [sys.executable, "-m", "emodarts", "run", *map(str, tiny), *longer, "--out", killed]
    moments = [
        ("fold-0/seed-0/search.csv", 4, "fold-0/seed-0/genotype.json"),
        ("fold-0/seed-0/training.csv", 6, "fold-0/seed-0/result.json"),
        ("fold-1/seed-0/search.csv", 3, "fold-1/seed-0/genotype.json"),
    ]
    for watched, lines, not_yet in moments:
        with subprocess.Popen(
            [str(part) for part in command] + (["--resume"] if killed.exists() else []),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            deadline = time.monotonic() + 300
            while lines_of(killed / watched) < lines:
                assert process.poll() is None, "the run ended before it could be killed"
                assert time.monotonic() < deadline
                time.sleep(0.01)
            os.kill(process.pid, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert not (killed / not_yet).exists(), "killed too late to show anything"
    emodarts("run", *tiny, *longer, "--out", killed, "--resume")
    assert same_outcome(whole, killed)


def test_search_and_train_are_the_halves_of_a_run(
    finished: Path, tiny: tuple[str | Path, ...], tmp_path: Path
) -> None:
    out = tmp_path / "halves"
    printed = emodarts("search", *tiny, "--out", out).stdout.split()
    assert printed == [str(out / f"fold-{k}" / "seed-0" / "genotype.json") for k in range(3)]
    assert all(Path(p).with_name("cells.png").read_bytes()[:4] == b"\x89PNG" for p in printed)
    emodarts("train", *tiny, "--out", out, "--resume")
    assert same_outcome(finished, out)


def test_train_makes_the_model_to_deploy(
    finished: Path, tiny: tuple[str | Path, ...], tiny_emodb: Path, tmp_path: Path
) -> None:
    genotype = finished / "fold-0" / "seed-0" / "genotype.json"
    done = emodarts(
        "train", *tiny, "--genotype", genotype, "--all-data", "--out", tmp_path / "deploy"
    )
    model = Path(done.stdout.strip())
    assert model == tmp_path / "deploy" / "seed-0" / "model"
    emodarts("predict", model, next(tiny_emodb.iterdir()))


@pytest.fixture(scope="session")
def model(finished: Path) -> Path:
    return finished / "fold-0" / "seed-0" / "model"


def test_predict_in_three_formats(model: Path, tiny_emodb: Path) -> None:
    files = sorted(tiny_emodb.iterdir())[:3]
    lines = emodarts("predict", model, *files, "--format", "json").stdout.splitlines()
    objects = [json.loads(line) for line in lines]
    assert [o["file"] for o in objects] == [str(f) for f in files]
    for value in objects:
        assert set(value) == {"file", "start", "end", "label", "probabilities", "note"}
        assert (value["start"], value["end"]) == (0, 1)
        assert sum(value["probabilities"].values()) == pytest.approx(1)
        assert value["label"] == max(value["probabilities"], key=value["probabilities"].get)
    text = emodarts("predict", model, *files, "--format", "csv").stdout
    for row, value in zip(csv.DictReader(io.StringIO(text)), objects, strict=True):
        assert row["file"] == value["file"]
        assert float(row["p_anger"]) == value["probabilities"]["anger"]
    table = emodarts("predict", model, *files).stdout.splitlines()
    assert table[0].split() == ["file", "start", "end", "label", *objects[0]["probabilities"]]
    assert table[1].split()[3] == objects[0]["label"]


def test_evaluate_scores_what_the_model_was_not_trained_on(
    model: Path, finished: Path, tiny_emodb: Path, tmp_path: Path
) -> None:
    """On its own corpus: the rows of its test fold, with the columns of the run and of predict."""
    corpus = ("--corpus", "emodb", "--root", tiny_emodb)
    assert "was trained on 48 of these 72 utterances" in refused("evaluate", model, *corpus)
    out = tmp_path / "predictions.csv"
    done = emodarts("evaluate", model, *corpus, "--skip-trained", "--out", out, "--json")
    with (finished / "fold-0" / "seed-0" / "predictions.csv").open() as file:
        of_run = list(csv.DictReader(file))
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [list(row) for row in rows] == [list(row) for row in of_run]
    for row, expected in zip(rows, of_run, strict=True):
        assert (row["name"], row["label"]) == (expected["name"], expected["label"])
        assert float(row["p_anger"]) == pytest.approx(float(expected["p_anger"]), abs=1e-5)
    result = json.loads((finished / "fold-0" / "seed-0" / "result.json").read_text())
    assert json.loads(done.stdout)["confusion"] == result["confusion"]
    text = emodarts("predict", model, next(tiny_emodb.iterdir()), "--format", "csv").stdout
    [answer] = csv.DictReader(io.StringIO(text))
    assert answer["predicted"] in ("anger", "happiness", "neutral", "sadness")
    assert "label" not in answer


def test_predict_windows_and_folders(model: Path, tiny_emodb: Path, tmp_path: Path) -> None:
    parts = [soundfile.read(p)[0] for p in sorted(tiny_emodb.iterdir())[:5]]
    soundfile.write(tmp_path / "long.flac", np.concatenate(parts), 8000)
    done = emodarts("predict", model, tmp_path, "--window", "2", "--hop", "1.5", "--format", "json")
    spans = [(o["start"], o["end"]) for o in map(json.loads, done.stdout.splitlines())]
    assert spans == [(0, 2), (1.5, 3.5), (3, 5)]


def test_predict_answers_the_good_files_and_names_the_bad(
    model: Path, tiny_emodb: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.wav").write_text("not a sound")
    good = next(tiny_emodb.iterdir())
    (tmp_path / "b.wav").write_bytes(good.read_bytes())
    soundfile.write(tmp_path / "d.wav", np.zeros(8000), 8000)
    done = emodarts("predict", model, tmp_path, tmp_path / "c.wav", "--format", "json", code=2)
    assert [json.loads(line)["file"] for line in done.stdout.splitlines()] == [
        str(tmp_path / "b.wav"),
        str(tmp_path / "d.wav"),
    ]
    assert "a.wav: cannot be decoded" in done.stderr
    assert "c.wav: no such file" in done.stderr
    assert "2 inputs failed; 1 was classified; 1 without speech." in done.stderr
    assert "Traceback" not in done.stderr


def test_predict_answers_the_others_if_a_name_cannot_be_opened(
    model: Path, tiny_emodb: Path, tmp_path: Path
) -> None:
    first, last = sorted(tiny_emodb.iterdir())[:2]
    impossible = "x" * 300 + ".wav"  # longer than a file system allows
    done = emodarts("predict", model, first, impossible, last, "--format", "csv", code=2)
    assert [row["file"] for row in csv.DictReader(io.StringIO(done.stdout))] == [
        str(first),
        str(last),
    ]
    assert "cannot be read: File name too long" in done.stderr
    assert "1 input failed; 2 were classified." in done.stderr
    # A file without permission, also where root runs the tests and may read it.
    code = "import os, sys, emodarts.cli; os.access = lambda *_: False; emodarts.cli.main()"
    command = [sys.executable, "-c", code, "predict", tmp_path / "no model", first]
    error = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    assert "no such model" in error, "the parser refused the file, and with it all others"


def test_predict_of_a_folder_says_what_it_leaves_out(
    model: Path, tiny_emodb: Path, tmp_path: Path
) -> None:
    for name in ("a.m4a", "b.m4a", "c.amr"):
        (tmp_path / name).touch()
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nothing")
    (tmp_path / "good.wav").write_bytes(next(tiny_emodb.iterdir()).read_bytes())
    done = emodarts("predict", model, tmp_path, "--format", "json")
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr.splitlines() == [
        f"warning: {tmp_path}: not everything is read:",
        "  2 skipped: .m4a cannot be read; convert it: ffmpeg -i a.m4a a.wav: "
        f"{tmp_path / 'a.m4a'}, {tmp_path / 'b.m4a'}",
        "  1 skipped: .amr cannot be read; convert it: ffmpeg -i a.amr a.wav: "
        f"{tmp_path / 'c.amr'}",
        f"  1 skipped: link to nothing: {tmp_path / 'gone.wav'}",
    ]


def test_predict_gives_silence_no_label_and_a_note_in_every_format(
    model: Path, tiny_emodb: Path, tmp_path: Path
) -> None:
    talk, rate = soundfile.read(next(tiny_emodb.iterdir()))
    soundfile.write(tmp_path / "a.wav", np.concatenate([talk, np.zeros(2 * rate)]), rate)
    command = ("predict", model, tmp_path / "a.wav", "--window", "1", "--format")
    spoken, *silent = map(json.loads, emodarts(*command, "json").stdout.splitlines())
    assert spoken["label"] in spoken["probabilities"]
    assert spoken["note"] == ""
    for answer in silent:
        assert (answer["label"], answer["note"]) == ("", "silent")
        assert answer["probabilities"] == {}
    _, *rows = csv.DictReader(io.StringIO(emodarts(*command, "csv").stdout))
    for row in rows:
        assert {row[name] for name in row if name.startswith("p_")} == {""}
        assert (row["predicted"], row["note"]) == ("", "silent")
    head, first, *lines = emodarts(*command, "table").stdout.splitlines()
    assert head.split()[-1] == "note"
    assert spoken["label"] in first
    assert all(line.split()[1:] == [*line.split()[1:3], "silent"] for line in lines)


def test_names_on_several_lines_or_without_a_text_break_no_output(
    model: Path, tiny_emodb: Path, tmp_path: Path
) -> None:
    names = "a\nb.wav", "a\r\tb.wav", os.fsdecode(b"a\xff.wav")
    paths = [tmp_path / name for name in names]
    for path in paths:
        path.write_bytes(next(tiny_emodb.iterdir()).read_bytes())
    lines = emodarts("predict", model, *paths, "--format", "json").stdout.splitlines()
    assert [json.loads(line)["file"] for line in lines] == [str(path) for path in paths]
    text = subprocess.run(
        [sys.executable, "-m", "emodarts", "predict", model, *paths, "--format", "csv"],
        capture_output=True,
        check=True,
    ).stdout.decode()
    rows = csv.DictReader(io.StringIO(text, newline=""))
    written = [str(path).encode(errors="backslashreplace").decode() for path in paths]
    assert [row["file"] for row in rows] == written
    assert len(emodarts("predict", model, *paths).stdout.splitlines()) == 1 + len(paths)
    for path in paths:
        path.write_bytes(b"no sound")
    errors = emodarts("predict", model, *paths, code=2).stderr.splitlines()
    assert sum(": cannot be decoded" in error for error in errors) == len(paths)


@pytest.mark.slow
def test_a_real_utterance_sounds_the_same_in_any_format(emodb_root: Path, tmp_path: Path) -> None:
    """Search and train on real speech; the same sound as 48 kHz stereo FLAC and as MP3."""
    out = tmp_path / "run"
    emodarts(
        "run",
        "cells",
        *(
            "--labels",
            "four",
            "--corpus",
            "emodb",
            "--root",
            emodb_root,
            "--out",
            out,
            "--cache",
            tmp_path / "cache",
        ),
        *("--folds", "0", "--set", "search.epochs=3", "--set", "training.epochs=8"),
        *("--set", "network.cnn.channels=4"),
    )
    result = json.loads((out / "result.json").read_text())
    assert result["ua"] > 0.3  # chance is 0.25; after six epochs it has begun to learn
    speaker = result["folds"][0]["test_speakers"][0]
    utterance = sorted((emodb_root / "wav").glob(f"{speaker}*Wa.wav"))[0]
    sound, rate = soundfile.read(utterance)
    resampled = soxr.resample(sound, rate, 48000)
    soundfile.write(tmp_path / "a.flac", np.column_stack([resampled, resampled]), 48000)
    soundfile.write(tmp_path / "a.mp3", sound, rate)
    done = emodarts(
        "predict",
        out / "fold-0" / "seed-0" / "model",
        *(utterance, tmp_path / "a.flac", tmp_path / "a.mp3"),
        *("--format", "json"),
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({a["label"] for a in answers}) == 1
    # MP3 is lossy, and a network of six epochs unsteady.
    for answer, tolerance in zip(answers[1:], (0.02, 0.1), strict=True):
        for name, p in answer["probabilities"].items():
            assert p == pytest.approx(answers[0]["probabilities"][name], abs=tolerance)


def bad_recipe(folder: Path, text: str) -> Path:
    path = folder / "bad.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("serch: {epochs: 3}", "unknown key 'serch' (did you mean 'search'?)"),
        ("search: {epochs: many}", "search.epochs: 'many'"),
        ("network: {cnn: {cells: -1}}", "network.cnn.cells: -1"),
        ("features: {duration: 0.1, hop_length: 512, n_mels: 16}", "leave nothing of time"),
        ("search: [", "not valid YAML"),
    ],
)
def test_bad_recipes_are_refused(tiny_emodb: Path, tmp_path: Path, text: str, message: str) -> None:
    recipe = bad_recipe(tmp_path, text)
    error = refused(
        *("run", recipe, "--corpus", "emodb", "--root", tiny_emodb, "--out", tmp_path / "out")
    )
    assert message in error
    assert str(recipe) in error
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="session")
def places(
    tiny: tuple[str | Path, ...], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """What the commands of bad input name: good things and wrong ones."""
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "empty").mkdir()
    twice = folder / "twice"
    for place, content in ((twice, b"one"), (twice / "copy", b"another")):
        place.mkdir()
        (place / "03a01Wa.wav").write_bytes(content)
    cell = [[["max_pool_3x3", 0], ["skip_connect", 5]]]
    value: dict[str, Any] = {"format": "emodarts.genotype/1", "normal": cell, "reduction": cell}
    (folder / "future.json").write_text(json.dumps(value))
    return {
        "recipe": str(tiny[0]),
        "tiny": " ".join(map(str, tiny)),
        "future": str(folder / "future.json"),
        **{name: str(folder / name) for name in ("empty", "twice", "nowhere")},
    }


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("run {recipe} --corpus emodb --root {nowhere}", "nowhere"),
        ("run {recipe} --corpus emodb --root {empty}", "03a01Wa.wav"),
        ("run {recipe} --corpus emodb --root {twice}", "the same name but different sizes"),
        ("run {recipe} --corpus emobd", "did you mean 'emodb'?"),
        ("run --corpus emodb --set training.epoch=1", "default: unknown key 'training.epoch'"),
        ("run quik --corpus emodb", "cannot read recipe quik (did you mean 'quick'?): "),
        ("run {tiny} --split groups:7", "groups:2 to groups:6"),
        ("run {tiny} --split random", "--split: evaluation: split 'random'; allowed: speaker"),
        ("run {tiny} --folds 0,x", "--folds: evaluation.folds.1: 'x'"),
        ("run {tiny} --labels a,a", "--labels: labels ['a', 'a'] lists a class twice"),
        ("run {tiny} --set search.epochs", "--set 'search.epochs'; allowed: KEY=VALUE"),
        ("run {tiny} --set search.strategy=random", "'search={{strategy: random}}'"),
        ("train {tiny} --genotype {future}", "an edge from state 5"),
    ],
)
def test_runs_of_bad_input_are_refused(
    places: dict[str, str], tmp_path: Path, command: str, message: str
) -> None:
    arguments = command.format_map(places).split()
    assert message.format() in refused(*arguments, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("predict {empty} {recipe}", "model.json"),
        ("predict {empty}", "No input: name audio files or folders."),
        ("predict {empty} --part Test3", "need --corpus"),
        ("predict {empty} {recipe} --hop 1", "hop is given without window"),
        ("predict {empty} {recipe} --window 0", "window is 0.0 s; allowed: at least 0.01 s"),
        ("report {empty}", "{empty}"),
        ("corpora --root {empty}", "needs --corpus"),
        ("corpora --corpus table --corpus-option a", "--corpus-option 'a'; allowed: KEY=VALUE"),
    ],
)
def test_other_bad_input_is_refused(places: dict[str, str], command: str, message: str) -> None:
    error = refused(*command.format_map(places).split())
    assert message.format_map(places) in error


def test_a_folder_without_audio_is_refused(model: Path, tmp_path: Path) -> None:
    assert "holds no audio file that can be read; allowed: .wav" in refused(
        "predict", model, tmp_path
    )


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = emodarts("predict", tmp_path, tmp_path, "--debug", code=1)
    assert "Traceback" in done.stderr
    assert "BundleError" in done.stderr


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("run", "Missing option '--corpus'"),
        ("predict --nonsense", "No such option: --nonsense"),
        (
            "run quick --corpus emodb --epochs 3",
            "No such option: --epochs; keys of the recipe are set by --set search.epochs=3, --set "
            "training.epochs=3",
        ),
        ("dance", "No such command 'dance'"),
        ("run quick --corpus emodb --device tpu", "'auto', 'cpu', 'cuda', 'mps'"),
        ("run quick --corpus emodb --jobs many", "'--jobs': 'many'; allowed: a number, or auto"),
        ("predict model --format xml", "'table', 'json', 'csv'"),
    ],
)
def test_usage_errors_have_exit_code_2(command: str, message: str) -> None:
    error = emodarts(*command.split(), code=2).stderr
    assert message in error
    assert "\nerror: " in error


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("emodarts ev", ["evaluate"]),
        ("emodarts run qu", ["quick"]),
        ("emodarts run quick --corpus ie", ["iemocap"]),
        ("emodarts run quick --see", ["--seeds"]),
    ],
)
def test_the_tab_key_completes(words: str, expected: list[str]) -> None:
    """As bash asks for it after ``emodarts --install-completion``."""
    asked = {"_EMODARTS_COMPLETE": "complete_bash", "COMP_WORDS": words}
    done = subprocess.run(
        [sys.executable, "-m", "emodarts"],
        env={**os.environ, **asked, "COMP_CWORD": str(len(words.split()) - 1)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == expected, done.stderr


@pytest.mark.parametrize("kind", ["cnn", "svm"])
def test_a_system_without_a_search_has_a_row_a_report_and_a_model(
    kind: str, tiny_recipe_file: Path, tiny_emodb: Path, cache: Path, tmp_path: Path
) -> None:
    text = tiny_recipe_file.read_text()
    unused = {"cnn": ("network", "search"), "svm": ("network", "search", "training")}[kind]
    for section in unused:
        text = re.sub(rf"^{section}:.*\n(  .*\n)*", "", text, flags=re.M)
    recipe, out = tmp_path / "other.yaml", tmp_path / "run"
    text = text.replace("features: {", "features: {padding: zeros, ")
    recipe.write_text(f"{text}system: {{kind: {kind}}}\n")
    corpus = ("--corpus", "emodb", "--root", tiny_emodb, "--cache", cache)
    done = emodarts("run", recipe, *corpus, "--folds", "0,1", "--jobs", "2", "--out", out)
    assert re.search(r"^\| other +\|", done.stdout, re.M)
    report = (out / "report" / "report.md").read_text()
    assert f"| system          | {kind}" in report
    assert "Cells" not in report
    assert ("## Training" in report) is (kind == "cnn")
    answer = emodarts(
        "predict", out / "fold-1" / "seed-0" / "model", next(tiny_emodb.iterdir())
    ).stdout
    assert "anger" in answer
    refused("search", recipe, *corpus, "--out", tmp_path / "half")


def test_a_prediction_loads_no_part_of_scipy_or_matplotlib(tiny_emodb: Path) -> None:
    """Each takes as long to import as torch."""
    code = (
        "import sys, emodarts\n"
        f"emodarts.load('emodb').predict({str(next(tiny_emodb.iterdir()))!r})\n"
        "slow = {'scipy.signal', 'scipy.optimize', 'scipy.stats', 'sklearn', 'matplotlib'}\n"
        "sys.exit(str(slow & set(sys.modules)) if slow & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
