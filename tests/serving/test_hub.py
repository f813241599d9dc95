"""A model as a folder for the Hub, and there and back by a stand-in of the Hub."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from served import write
from stand_in_hub import TOKEN, stand_in_hub

from commands import emodarts
from emodarts import files
from emodarts.bundle import DESCRIPTION, WEIGHTS
from emodarts.errors import BundleError, ExportError, RunError
from emodarts.layout import RunFolder
from emodarts.scoring.predictions import Prediction, write_predictions
from emodarts.serving.hub import make_card, push, write_folder
from emodarts.serving.model import Model
from emodarts.serving.shipped import CARD, find_model

RESULT: dict[str, Any] = {
    "name": "default",
    "corpus": "emodb",
    "classes": ["anger", "happiness", "neutral", "sadness"],
    "split": "groups:5",
    "protocol": "full",
    "seeds": [0],
    "n_test": 40,
    **dict.fromkeys(("ua", "wa", "macro_f1"), 0.875),
    **{f"{k}_sd_folds": 0.0613 for k in ("ua", "wa", "macro_f1")},
    **{f"{k}_sd_seeds": None for k in ("ua", "wa", "macro_f1")},
    "pooled": {"ua": 0.88, "ua_interval": [0.81, 0.93], "bootstrap_unit": "speaker"},
    "confusion": [[7, 3, 0, 0], [1, 9, 0, 0], [0, 0, 10, 0], [0, 0, 0, 10]],
    "folds": [
        {"ua": 0.9, "test_speakers": ["03"]},
        {"ua": 0.85, "test_speakers": ["08", "09"]},
    ],
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    run = RunFolder(tmp_path / "run")
    run.result.write_text(json.dumps(RESULT))
    classes = RESULT["classes"]
    made, rows = [], []
    for k in range(40):  # one woman's anger in five is taken for happiness
        label = classes[k // 10]
        answer = "happiness" if k == 0 else label
        shares = tuple(float(name == answer) for name in classes)
        made.append(Prediction(f"u{k}", "03", k % 2, 0, label, answer, shares))
        rows.append({"name": f"u{k}", "gender": "female" if k % 10 < 5 else "male"})
    write_predictions(run.predictions, made, classes)
    files.write_csv(run.utterances, ["name", "gender"], rows)
    return run.path


def test_a_card_has_scores_with_spread_recall_limits_and_licence(run: Path) -> None:
    model = Model.load("emodb")
    card = make_card(model, run)
    assert card.startswith("---\nlibrary_name:")
    for words in (
        "87.5 % | 6.1 %",
        "81.0 to 93.0 %",
        "| anger | 10 | 70.0 % |",
        "85.0 % (speakers 08, 09)",
        "the terms of that corpus",
        "Not for decisions about people",
        "nothing; it is the model to deploy",
        "trained on 339 utterances",
    ):
        assert words in card, words
    table = [[cell.strip() for cell in line.split("|")] for line in card.splitlines()]
    assert ["", "female", "1", "20", "95.0", "95.0", "80.0", *["100.0"] * 3, ""] in table
    other = {**RESULT, "corpus": "ravdess"}
    (run / "result.json").write_text(json.dumps(other))
    with pytest.raises(RunError, match="ravdess"):
        make_card(model, run)


def test_a_folder_needs_no_network_and_is_a_model(tmp_path: Path, run: Path) -> None:
    shipped = find_model("emodb")
    write_folder(shipped, tmp_path / "plain")
    assert (tmp_path / "plain" / CARD).read_text() == (shipped / CARD).read_text()
    write_folder(shipped, tmp_path / "scored", run)
    assert "70.0 %" in (tmp_path / "scored" / CARD).read_text()
    assert Model.load(tmp_path / "scored").classes == Model.load(shipped).classes


def test_there_and_back_by_a_hub_on_loopback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """huggingface_hub itself asks a server, and knows none but this one."""
    pytest.importorskip("huggingface_hub")
    shipped, sound = find_model("emodb"), write(tmp_path / "a.wav")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with stand_in_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        done = emodarts("export", "emodb", "--hub", "me/small", "--json")
        assert json.loads(done.stdout) == {"where": f"{hub.url}/me/small"}
        names = (CARD, DESCRIPTION, WEIGHTS)
        sent = {name: (shipped / name).read_bytes() for name in names}
        assert hub.repositories == {"me/small": sent}
        found = emodarts("predict", "hub:me/small", sound, "--format", "json").stdout
        assert json.loads(found) == Model.load("emodb").predict(sound)[0].to_dict()
        # What the Hub refuses. Here the library may have been imported already, with its endpoint.
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        with pytest.raises(BundleError, match=r"cannot read me/none from the Hub.*404"):
            Model.load("hub:me/none")
        monkeypatch.setenv("HF_TOKEN", "hf_wrong")
        with pytest.raises(ExportError, match=r"cannot write me/small to the Hub.*401"):
            push(shipped, "me/small")


def test_names_and_a_missing_library_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BundleError, match="USER/NAME"):
        Model.load("hub:../etc/passwd")
    with pytest.raises(ExportError, match="USER/NAME"):
        push(find_model("emodb"), "small")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ExportError, match=r"emodarts\[hub\]"):
        push(find_model("emodb"), "me/small")
