"""A trained model scored on a labelled corpus, without the audio that it was trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emodarts import files
from emodarts.audio.survey import check_all
from emodarts.bundle import Bundle
from emodarts.corpora.spelling import common_emotion
from emodarts.corpora.utterance import Corpus, Utterance
from emodarts.errors import (
    AudioError,
    BundleError,
    CorpusError,
    did_you_mean,
    list_lines,
    list_some,
)
from emodarts.progress import Progress
from emodarts.scoring.metrics import aggregate
from emodarts.scoring.predictions import Prediction
from emodarts.serving.model import Model

_NAMED = 100


@dataclass(frozen=True)
class Evaluation:
    """Outcome of :func:`evaluate`.

    Attributes
    ----------
    result : JSON values: ``corpus``, ``notices``, the ``mapping`` from labels to classes, what was
        ``left_out`` and why, ``warnings``, and the scores of
        :func:`emodarts.scoring.metrics.aggregate`.
    predictions : of every utterance that was scored.
    """

    result: dict[str, Any]
    predictions: tuple[Prediction, ...]


def evaluate(
    model: Model,
    corpus: Corpus,
    progress: Progress,
    labels: Sequence[str] | None = None,
    *,
    skip_trained: bool = False,
    skip_bad: bool = False,
) -> Evaluation:
    """Classify the utterances of a corpus as :meth:`Model.predict` does, and score the answers.

    Parameters
    ----------
    labels : classes of the model and the labels that they stand for, as in :meth:`Corpus.select`;
        by default labels and classes are matched by their common names, see :func:`match_labels`.
    skip_trained : leave out utterances that the model was trained on instead of raising.
    skip_bad : leave out unusable audio instead of raising.

    Raises
    ------
    CorpusError
        If no label of the corpus has a class, or ``labels`` names a class that is none.
    BundleError
        If the model was trained on some of the utterances, or on all of them.
    AudioError
        Naming all unusable audio together.
    """
    bundle = model.bundle
    mapping = match_labels(corpus, bundle)
    left_out: Counter[str] = Counter()
    if labels is not None:
        selected = corpus.select(labels)
        left_out.update(reason for _, reason in selected.skipped[len(corpus.skipped) :])
        corpus, mapping = selected, _as_given(selected, bundle)
    left_out.update(
        "no label" if u.label is None else f"label {u.label} is no class of the model"
        for u in corpus
        if u.label not in mapping
    )
    chosen = [u for u in corpus if u.label in mapping]
    unseen = _without_trained(chosen, bundle, skip_trained, progress)
    if len(unseen) < len(chosen):
        left_out["the model was trained on it"] = len(chosen) - len(unseen)
    answered: dict[str, Prediction] = {}
    bad = []
    progress.start("evaluate", len(unseen))
    for utterance in sorted(unseen, key=lambda u: (u.path, u.start)):  # decodes files in one pass
        try:
            answered[utterance.name] = _classify(model, utterance, mapping)
        except AudioError as error:
            bad.append(str(error))
        progress.advance()
    predictions = [answered[u.name] for u in unseen if u.name in answered]
    if bad and (not skip_bad or not predictions):
        raise AudioError(
            f"{len(bad)} of {len(unseen)} utterances have unusable audio:{list_lines(bad, _NAMED)}"
        )
    if bad:
        left_out["unusable audio"] = len(bad)
    scores = aggregate(predictions, bundle.classes)
    [fold] = scores.pop("folds")
    absent = fold["absent_classes"]
    return Evaluation(
        {
            "corpus": corpus.name,
            "notices": [n for n in (bundle.origin.get("notice"), corpus.notice) if n],
            "origin": {k: bundle.origin.get(k) for k in ("corpus", "recipe", "fold", "seed")},
            "mapping": {
                label: {"class": mapping[label], "utterances": n}
                for label, n in Counter(u.known_label() for u in unseen).items()
            },
            "left_out": dict(left_out),
            "warnings": [f"no utterance of class {list_some(absent)} was scored"] if absent else [],
            **{k: v for k, v in scores.items() if not k.endswith(("_sd_folds", "_sd_seeds"))},
        },
        tuple(predictions),
    )


def match_labels(corpus: Corpus, bundle: Bundle) -> dict[str, str]:
    """Classes of a model by the labels of a corpus; labels without a class are left out.

    A label and a class match by their common name if both have one that no other class has, else
    by their spelling.
    """
    names = {name: _common_names(name, bundle) for name in bundle.classes}
    classes: dict[str, list[str]] = {}
    for name, common in names.items():
        for each in common:
            classes.setdefault(each, []).append(name)
    found = {}
    for label in corpus.classes:
        same = classes.get(corpus.emotions.get(label) or common_emotion(label) or "", [])
        if len(same) == 1:
            found[label] = same[0]
        elif label in names and (label in same or not names[label]):
            found[label] = label
    return found


def _common_names(name: str, bundle: Bundle) -> Sequence[str]:
    if bundle.emotions.get(name):
        return bundle.emotions[name]
    common = common_emotion(name)
    return () if common is None else (common,)


def _as_given(corpus: Corpus, bundle: Bundle) -> dict[str, str]:
    for name in corpus.classes:
        if name not in bundle.classes:
            raise CorpusError(
                f"{name!r} is no class of the model{did_you_mean(name, bundle.classes)}; allowed: "
                f"{', '.join(bundle.classes)}, e.g. --labels {bundle.classes[0]}=LABEL"
            )
    return {name: name for name in corpus.classes}


def _without_trained(
    chosen: Sequence[Utterance], bundle: Bundle, skip: bool, progress: Progress
) -> list[Utterance]:
    """Utterances none of whose audio the model was trained on, by file and by sound."""
    if not chosen:
        raise CorpusError(
            f"no label of the corpus is a class of the model ({', '.join(bundle.classes)}); give "
            f"--labels {bundle.classes[0]}=LABEL and so on for each class"
        )
    progress.start("compare", len(chosen))
    sounds = check_all(chosen, progress.advance).sounds
    contents: dict[Any, str] = {}
    trained = []
    for utterance, sound in zip(chosen, sounds, strict=True):
        if utterance.path not in contents:
            contents[utterance.path] = _content(utterance)
        trained.append(bundle.was_trained_on(contents[utterance.path], utterance, sound))
    unseen = [u for u, seen in zip(chosen, trained, strict=True) if not seen]
    if len(unseen) == len(chosen) or (skip and unseen):
        return unseen
    names = [u.name for u, seen in zip(chosen, trained, strict=True) if seen]
    what = "leave them out with --skip-trained" if unseen else "give another corpus"
    raise BundleError(
        f"the model was trained on {len(names):,} of these {len(chosen):,} utterances "
        f"({list_some(names)}), and its answers to them say nothing about others; {what}"
    )


def _content(utterance: Utterance) -> str:
    """SHA-256 of the audio file; empty if it cannot be read, which the classification explains."""
    try:
        return files.sha256_of(utterance.path)
    except OSError:
        return ""


def _classify(model: Model, utterance: Utterance, mapping: Mapping[str, str]) -> Prediction:
    [answer] = model.predict(utterance.path, start=utterance.start, end=utterance.end)
    if not answer.label:
        raise AudioError(f"{utterance.path}: no speech")
    return Prediction(
        name=utterance.name,
        speaker=utterance.speaker,
        fold=model.bundle.origin.get("fold") or 0,
        seed=model.bundle.origin.get("seed") or 0,
        label=mapping[utterance.known_label()],
        predicted=answer.label,
        probabilities=tuple(answer.probabilities.values()),
    )
