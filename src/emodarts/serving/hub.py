"""Models as folders for the Hugging Face Hub, and from there (the extra ``hub``)."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

from emodarts import files
from emodarts.bundle import DESCRIPTION, WEIGHTS, n_trained_on
from emodarts.errors import BundleError, ExportError, RunError
from emodarts.layout import RunFolder
from emodarts.reports.answers import gender_table
from emodarts.reports.markdown import to_markdown
from emodarts.scoring.predictions import read_predictions
from emodarts.serving.export import licence_note
from emodarts.serving.model import Model
from emodarts.serving.shipped import CARD

_NAME = r"\w[\w.-]*/\w[\w.-]*"


def write_folder(source: Path, folder: Path, run: Path | None = None) -> None:
    """Write what the Hub gets of a model: its two files, and a card.

    A card that the model has is kept, unless a run is given.

    Parameters
    ----------
    source : folder of the model.
    run : folder of a run of the same recipe, whose scores the card shall have.

    Raises
    ------
    BundleError
        If the model is broken.
    RunError
        If the run has no result, or is one of another recipe.
    WriteError
        If a file cannot be written.
    """
    model = Model.load(source)
    card = source / CARD
    if run is None and card.is_file():
        text = card.read_text(encoding="utf-8")
    else:
        text = make_card(model, run)
    for name in (WEIGHTS, DESCRIPTION):
        files.write_bytes(folder / name, (source / name).read_bytes())
    files.write_bytes(folder / CARD, text.encode())


def push(source: Path, repository: str, run: Path | None = None) -> str:
    """Put a model on the Hub, where the user is logged in; return its address.

    Raises
    ------
    ExportError
        If the extra is missing, the name is none, or the Hub refuses.
    """
    hub = _library(ExportError)
    _check_name(repository, ExportError)
    with tempfile.TemporaryDirectory() as place:
        write_folder(source, Path(place), run)
        try:
            api = hub.HfApi()
            url = api.create_repo(repository, exist_ok=True)
            api.upload_folder(repo_id=repository, folder_path=place)
        except Exception as error:  # the library's errors and those of its connections
            raise ExportError(f"cannot write {repository} to the Hub: {_first(error)}") from error
    return str(url)


def fetch(repository: str) -> Path:
    """Folder of a model of the Hub, which is downloaded unless it is there already.

    Raises
    ------
    BundleError
        If the extra is missing, the name is none, or the Hub has no such model.
    """
    hub = _library(BundleError)
    _check_name(repository, BundleError)
    try:
        return Path(hub.snapshot_download(repository, allow_patterns=[WEIGHTS, DESCRIPTION, CARD]))
    except Exception as error:
        raise BundleError(f"cannot read {repository} from the Hub: {_first(error)}") from error


def _library(kind: type[BundleError] | type[ExportError]) -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise kind(
            "huggingface_hub is missing; install the extra: pip install 'emodarts[hub]'"
        ) from error
    return huggingface_hub


def _check_name(repository: str, kind: type[BundleError] | type[ExportError]) -> None:
    if not re.fullmatch(_NAME, repository):
        raise kind(f"{repository!r} names no model of the Hub; allowed: USER/NAME")


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [repr(error)])[0]


def make_card(model: Model, run: Path | None = None) -> str:
    """The card of a model, in Markdown, from what its bundle and its run know.

    Raises
    ------
    RunError
        If the run has no result, or is one of another recipe.
    """
    origin = model.bundle.origin
    corpus, recipe = origin.get("corpus", "unknown"), origin.get("recipe", "unknown")
    [first, *_] = model.bundle.inputs.values()
    header = {
        "library_name": "emodarts",
        "pipeline_tag": "audio-classification",
        "tags": ["speech-emotion-recognition", "emodarts"],
        "license": "other",
        "license_name": "terms-of-the-training-data",
    }
    held_out = origin.get("fold")
    lines = [
        "---",
        *(f"{key}: {json.dumps(value)}" for key, value in header.items()),
        "---",
        "",
        f"# Speech emotion recognition: {recipe} on {corpus}",
        "",
        f"Names one of {len(model.classes)} emotions ({', '.join(model.classes)}) in recorded "
        f"speech. It was trained on {n_trained_on(model.bundle)} utterances of the corpus "
        f"{corpus} and knows no other voices, languages or ways of speaking.",
        "",
        "## Use",
        "",
        "```",
        "emodarts predict MODEL FILE",
        "```",
        "",
        "MODEL is this folder, or `hub:USER/NAME`. Audio may have any sample rate and length; the "
        f"model computes at {first.sample_rate} Hz.",
        "",
        "## Data and training",
        "",
        f"- Corpus: {corpus}. {licence_note(model)}",
        f"- Recipe: `{recipe}` (digest `{str(origin.get('recipe_digest', ''))[:16]}`), seed "
        f"{origin.get('seed', 0)}, {origin.get('parameters', 0):,} parameters.",
        "- Held out: "
        + (
            "nothing; it is the model to deploy, and scores are of models like it."
            if held_out is None
            else f"test fold {held_out}."
        ),
        f"- Temperature of the probabilities: {model.bundle.temperature:.3f}.",
        "",
        "## Scores",
        "",
        *_scores(model, run),
        "",
        "## Limits, intended use and misuse",
        "",
        "- The label is what speech sounds like by the standard of the corpus. It is not what a "
        "person feels.",
        "- Other languages, ages, microphones, rooms and spontaneous speech were not tested unless "
        "the scores say so. Expect far lower accuracy there, and different errors for different "
        "groups of people.",
        "- Intended for research, teaching and prototypes whose users know and agree.",
        "- Not for decisions about people: hiring, schools, policing, borders, credit, diagnosis, "
        "or surveillance. The EU AI Act prohibits emotion recognition at work and in education, "
        "except for medical or safety reasons. docs/limits.md of emodarts says more.",
    ]
    return "\n".join(lines) + "\n"


def _scores(model: Model, run: Path | None) -> list[str]:
    origin = model.bundle.origin
    if run is None:
        if "ua" not in origin:
            return ["None are known; give `--run` the folder of a run of the same recipe."]
        return [f"UA {100 * origin['ua']:.1f} % on {origin['n_test']} utterances of its test fold."]
    result = files.read_object(
        RunFolder(run).result, RunError, "name", "corpus", "ua", "pooled", "confusion"
    )
    found = (result["name"], result["corpus"], list(result["classes"]))
    wanted = (origin.get("recipe"), origin.get("corpus"), list(model.classes))
    if found != wanted:
        raise RunError(f"{run} is a run of {found}; the model is of {wanted}")
    pooled = result["pooled"]
    interval = ""
    if pooled["ua_interval"] is not None:
        low, high = pooled["ua_interval"]
        interval = (
            f" (95 % interval over {pooled['bootstrap_unit']}s "
            f"{100 * low:.1f} to {100 * high:.1f} %)"
        )
    lines = [
        f"Cross-validation of the same recipe, split `{result['split']}`, protocol "
        f"`{result['protocol']}`, {len(result['folds'])} folds, seeds {result['seeds']}, "
        f"{result['n_test']} utterances:",
        "",
        "| score | mean over folds | sd over folds | sd over seeds |",
        "|---|---|---|---|",
    ]
    for key, title in (("ua", "UA"), ("wa", "WA"), ("macro_f1", "macro F1")):
        values = (result[key], result[f"{key}_sd_folds"], result[f"{key}_sd_seeds"])
        cells = " | ".join("" if v is None else f"{100 * v:.1f} %" for v in values)
        lines.append(f"| {title} | {cells} |")
    lines += [
        "",
        f"Pooled UA {100 * pooled['ua']:.1f} %{interval}. UA is the mean of the class recalls.",
        "",
        "| class | utterances | recall |",
        "|---|---|---|",
    ]
    for k, (name, row) in enumerate(zip(model.classes, result["confusion"], strict=True)):
        n = sum(row)
        lines.append(f"| {name} | {n} | {'' if not n else f'{100 * row[k] / n:.1f} %'} |")
    predictions, classes = read_predictions(RunFolder(run).predictions)
    genders = gender_table(run, predictions, classes)
    if genders is not None:
        lines += ["", to_markdown(genders)]
    worst = min(result["folds"], key=lambda fold: float(fold["ua"]))
    lines += [
        "",
        f"The worst fold has UA {100 * worst['ua']:.1f} % (speakers "
        f"{', '.join(worst['test_speakers']) or 'unknown'}).",
    ]
    return lines
