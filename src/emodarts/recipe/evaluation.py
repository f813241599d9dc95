"""Sections ``labels``, ``evaluation`` and ``compute``: classes, folds, seeds, and where to run."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from emodarts.recipe.search import Precision
from emodarts.recipe.section import PositiveInt, Section


class EvaluationSpec(Section):
    """Folds, seeds, and what each part of a training fold is used for."""

    #: Every split that is allowed, as a pattern and in words; ``emodarts.splits`` makes them.
    SPLITS: ClassVar[str] = (
        r"speaker|session|groups:{k}|official(:.+)?|column|emobox|speaker-dependent(:{k})?|.+\.json"
    ).replace("{k}", "([2-9]|[1-9][0-9]{1,8})")
    LEGAL_SPLITS: ClassVar[str] = (
        "speaker, session, groups:K, official, official:PART, column, emobox, speaker-dependent, "
        "speaker-dependent:K, or a fold file FILE.json; K is at least 2"
    )

    split: str = "groups:5"
    """``speaker`` or ``session`` (leave one out), ``groups:K`` (of speakers, or of sessions whose
    partners share dialogues), ``official`` or ``official:PART`` (the publishers' parts), ``column``
    (the user's), ``emobox`` (published folds), a fold file ``FILE.json``, or ``speaker-dependent``
    or ``speaker-dependent:K`` (random utterances, 5 folds by default)."""
    allow_speaker_overlap: bool = False
    """Accept given folds (official, column, emobox, a fold file) although their test shares
    speakers, sessions or dialogues with the rest, or although that cannot be checked; every table
    says so."""
    allow_duplicates: bool = False
    """Accept folds in which an utterance of the test sounds exactly as one outside it, such as a
    copied file; every table says so."""
    protocol: Literal["paper", "full"] = "full"
    """Use of a training fold. ``paper``: 70 % of it for the search and 30 % for training; the
    search part chooses the epoch. ``full``: all of it for search and training; where
    ``training.select`` chooses the epoch, some speakers choose it and do not train. Where the split
    has a validation part of its own, as official ones do, ``full`` never trains a network on
    that part; linear systems, which choose no epoch, are fitted to it, too."""
    search_halves: Literal["speakers", "utterances"] = "speakers"
    """What divides the search data into the half that trains weights and the half that judges
    architectures: whole speakers, so that alphas are judged on unseen voices, where there are at
    least 4 of them and each half has every class; else utterances, as in the papers."""
    folds: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Indices of the folds to run; by default all."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**31)], ...], Field(min_length=1)] = (0,)
    """Seeds; each fold runs once for each of them."""

    @model_validator(mode="after")
    def _possible(self) -> EvaluationSpec:
        if not re.fullmatch(self.SPLITS, self.split):
            raise ValueError(f"split {self.split!r}; allowed: {self.LEGAL_SPLITS}")
        given = r"official(:.+)?|column|emobox|.+\.json"
        if self.allow_speaker_overlap and not re.fullmatch(given, self.split):
            raise ValueError(
                f"allow_speaker_overlap does nothing with split {self.split!r}; it belongs to "
                "official, column, emobox and fold files"
            )
        for name in ("folds", "seeds"):
            values = getattr(self, name)
            if values is not None and len(set(values)) != len(values):
                raise ValueError(f"{name} {list(values)} lists a number twice")
        if self.folds is not None and not self.folds:
            raise ValueError("folds is empty; give at least one, or leave it out for all")
        return self


class ComputeSpec(Section):
    """Where and how a run is computed."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """``auto`` takes CUDA, else MPS, else the CPU."""
    threads: PositiveInt | None = None
    """Threads of each trial; by default all cores, divided by the number of trials side by side.
    It is recorded, since results depend on it bit by bit."""
    fast: bool = True
    """Compute cells and fixed LSTMs and RNNs in a faster order of sums: by compiled loops on a CPU,
    cells by fewer calls on a GPU. ``false`` computes edge by edge. The way is recorded, as
    ``threads`` is."""
    precision: Precision = "fp32"
    """Precision of maps in search and training. ``bf16`` halves their memory and is meant for GPUs;
    it is recorded, since results differ, and works with ``search.order`` 1 only. Weights, losses,
    features and test scores are float32 in any case."""
    features: Literal["auto", "memory", "mapped"] = "auto"
    """Where features are during search and training: in memory, or on the disk and read batch by
    batch (``mapped``), for corpora that are larger than memory, or on a GPU than its memory.
    ``auto`` maps what is larger than a quarter of the machine's memory. Results are the same."""
    mlflow: str | None = None
    """Store that MLflow (extra ``mlflow``) tracks each trial in: ``sqlite:////PATH/mlflow.db``, or
    the address of a server. A store that fails gives a warning and does not stop the run."""


LABEL_SCHEMES: dict[str, tuple[str, ...] | None] = {
    "own": None,
    "four": ("anger", "happiness", "neutral", "sadness"),
    "four-merged": ("anger", "happiness=happiness,excitement", "neutral", "sadness"),
    "five": ("anger", "excitement", "happiness", "neutral", "sadness"),
}
"""Label sets by name: those of the corpus, the papers' four, those with excitement merged into
happiness, and with excitement as a class."""


def _label_entries(value: Any) -> Any:
    """Bring every way of writing labels to a tuple of ``name`` and ``name=source,source``."""
    if isinstance(value, dict):
        pairs = [(k, v if isinstance(v, list) else [v]) for k, v in value.items()]
        return tuple(f"{name}={','.join(map(str, sources))}" for name, sources in pairs)
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        return tuple(texts) if isinstance(texts, list) else texts
    if len(texts) == 1 and texts[0] in LABEL_SCHEMES:
        return LABEL_SCHEMES[texts[0]]
    entries = [[text] if "=" in text else text.split(",") for text in texts]
    return tuple(entry.strip() for group in entries for entry in group)


LabelSet = Annotated[tuple[str, ...] | None, BeforeValidator(_label_entries)]
