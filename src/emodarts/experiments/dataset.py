"""From a corpus to features and targets in memory, or only in the store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emodarts import files
from emodarts.audio.augment import variants_of
from emodarts.audio.store import extract, fill
from emodarts.batches import Normalisation, Part, class_indices
from emodarts.cache import default_cache_folder
from emodarts.corpora.utterance import Corpus, Utterance
from emodarts.errors import AudioError, list_some
from emodarts.progress import Progress
from emodarts.recipe import Recipe
from emodarts.splits import Indices


@dataclass(frozen=True, eq=False)
class Dataset:
    """Utterances of a corpus with their features.

    Attributes
    ----------
    corpus : name of the reader.
    notice : warning to show beside scores, or ``""``.
    classes : in the order of the logits.
    utterances : N of them.
    features : float32 (M, C, F, T), not normalised, one row for each piece of an utterance.
    digest : SHA-256 over names, contents, labels and all else in the utterance table, and the
        fingerprint.
    fingerprint : what decides the features beside their spec, e.g. a checkpoint.
    owners : (M,) utterance of each row, ascending; None where each is one piece.
    variants : (V, M, C, F, T) augmented versions of every row, or None.
    """

    corpus: str
    notice: str
    classes: tuple[str, ...]
    utterances: tuple[Utterance, ...]
    features: Tensor
    digest: str
    fingerprint: str = ""
    owners: Tensor | None = None
    variants: Tensor | None = None

    def labels(self, indices: Indices) -> list[str]:
        """Labels of some utterances."""
        return [self.utterances[i].known_label() for i in indices]

    def rows(self, indices: Indices) -> tuple[Tensor, Tensor | None]:
        """Rows of some utterances, and the position in ``indices`` that each belongs to."""
        chosen = torch.tensor(indices, dtype=torch.long)
        if self.owners is None:
            return chosen, None
        edges = torch.searchsorted(self.owners, torch.arange(len(self.utterances) + 1))
        lengths = edges.diff()[chosen]
        position = torch.repeat_interleave(torch.arange(len(chosen)), lengths)
        before = lengths.cumsum(0) - lengths
        return edges[chosen][position] + torch.arange(len(position)) - before[position], position

    def per_utterance(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean over the pieces of each utterance: ``(M, D)`` -> ``(N, D)``."""
        if self.owners is None:
            return values
        owners = self.owners.numpy()
        first = np.flatnonzero(np.diff(owners, prepend=-1))
        sums: NDArray[np.float64] = np.add.reduceat(values, first, axis=0)
        return sums / np.bincount(owners)[:, None]

    def normalisation(self, indices: Indices) -> Normalisation:
        """Statistics of the pieces of some utterances."""
        return Normalisation.fit(self.features[self.rows(indices)[0]])

    def part(
        self,
        indices: Indices,
        normalisation: Normalisation,
        device: torch.device,
        *,
        varied: bool = False,
    ) -> Part:
        """Normalised features and targets of some utterances, on the device.

        ``varied`` takes their augmented versions along, for what trains the discrete network.
        """
        rows, position = self.rows(indices)
        targets = class_indices(self.labels(indices), self.classes)
        variants = None
        if varied and self.variants is not None:
            variants = normalisation.apply(self.variants[:, rows]).to(device)
        return Part(
            normalisation.apply(self.features[rows]).to(device),
            (targets if position is None else targets[position]).to(device),
            None if position is None else position.to(device),
            variants,
        )


def prepare(
    recipe: Recipe,
    corpus: Corpus,
    device: torch.device,
    progress: Progress,
    *,
    cache: Path | None = None,
    skip_bad: bool = False,
) -> dict[str, Any]:
    """Fill the feature store with what a recipe needs; memory does not grow with the corpus.

    Returns
    -------
    JSON values: ``corpus utterances versions bad store``.

    Raises
    ------
    AudioError
        Naming all unusable audio together.
    """
    corpus = corpus.select(recipe.labels, recipe.styles)
    variants = variants_of(recipe.training.augmentation)
    folder = _store_folder(cache)
    progress.start("features", len(corpus) * (1 + len(variants)))
    utterances: tuple[Utterance, ...] = corpus.utterances
    bad: tuple[tuple[str, str], ...] = ()
    for variant in (None, *variants):
        filled = fill(
            utterances,
            recipe.features,
            folder,
            skip_bad=skip_bad,
            on_done=progress.advance,
            device=device,
            variant=variant,
        )
        bad += filled.bad
        usable = zip(utterances, filled.contents, strict=True)
        utterances = tuple(u for u, content in usable if content is not None)
    return {
        "corpus": corpus.name,
        "utterances": len(utterances),
        "versions": 1 + len(variants),
        "bad": [{"name": name, "reason": reason} for name, reason in bad],
        "store": str(folder),
    }


def load_dataset(
    recipe: Recipe,
    corpus: Corpus,
    device: torch.device,
    progress: Progress,
    *,
    cache: Path | None = None,
    skip_bad: bool = False,
) -> tuple[Dataset, dict[str, Any]]:
    """Extract features of a corpus; return them and the contents of ``data.json``.

    Raises
    ------
    AudioError
        Naming all unusable files together, or a class that none is left of.
    """
    variants = variants_of(recipe.training.augmentation)
    folder = _store_folder(cache)
    progress.start("features", len(corpus) * (1 + len(variants)))
    extracted = extract(
        corpus.utterances,
        recipe.features,
        folder,
        skip_bad=skip_bad,
        on_done=progress.advance,
        device=device,
    )
    lost = sorted(set(corpus.classes) - {u.known_label() for u in extracted.utterances})
    if lost:
        raise AudioError(
            f"no utterance of class {list_some(lost)} has usable audio; mend some of its files, "
            "or keep the other classes only (recipe key labels)"
        )
    versions = [
        extract(
            extracted.utterances,
            recipe.features,
            folder,
            on_done=progress.advance,
            device=device,
            variant=variant,
        ).features
        for variant in variants
    ]
    rows = [
        {
            "name": u.name,
            "label": u.label,
            "speaker": u.speaker,
            "gender": u.gender,
            "session": u.session,
            "dialogue": u.dialogue,
            "style": u.style,
            "split": u.split,
            "start": u.start,
            "end": u.end,
            "valence": u.valence,
            "arousal": u.arousal,
            "dominance": u.dominance,
            "sha256": content,
        }
        for u, content in zip(extracted.utterances, extracted.contents, strict=True)
    ]
    digest = files.digest_of(
        {"classes": corpus.classes, "utterances": rows, "fingerprint": extracted.fingerprint}
    )
    header = {
        "corpus": corpus.name,
        "notice": corpus.notice,
        "digest": digest,
        "classes": list(corpus.classes),
        "n_utterances": len(extracted.utterances),
        "n_speakers": len({u.speaker for u in extracted.utterances} - {None}),
        "skipped": [list(pair) for pair in corpus.skipped],
        "bad": [list(pair) for pair in extracted.bad],
        "utterances": rows,
    }
    data = Dataset(
        corpus.name,
        corpus.notice,
        corpus.classes,
        extracted.utterances,
        extracted.features,
        digest,
        extracted.fingerprint,
        extracted.owners if recipe.features.length == "segments" else None,
        torch.stack(versions) if versions else None,
    )
    return data, header


def _store_folder(cache: Path | None) -> Path:
    return (cache or default_cache_folder()) / "features"
