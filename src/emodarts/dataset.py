"""Utterances with their feature maps: from audio to the store, and from the store to a network."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emodarts import files
from emodarts.audio.augment import variants_of
from emodarts.audio.store import fill, read, stored_bytes
from emodarts.corpora.utterance import Corpus, Utterance
from emodarts.errors import AudioError, RunError, list_some
from emodarts.progress import Progress
from emodarts.recipe import Recipe
from emodarts.splits import Indices
from emodarts.training.batches import (
    MappedRows,
    Normalisation,
    Part,
    class_indices,
    gender_indices,
)
from emodarts.training.views import Views

#: Columns of the utterance table: all of an utterance but where its audio lies, which other
#: machines do not share.
_COLUMNS = tuple(f.name for f in fields(Utterance) if f.name != "path")
_NUMBERS = ("start", "end", "valence", "arousal", "dominance")


@dataclass(frozen=True)
class Listing:
    """Usable utterances of a corpus, whose features the store holds.

    Attributes
    ----------
    corpus : name of the reader.
    notice : warning to show beside scores, or ``""``.
    classes : in the order of the logits.
    utterances : N of them.
    contents : SHA-256 of the audio file of each.
    sounds : :class:`~emodarts.audio.duplicates.SoundDigest` of each.
    fingerprints : of each input, what decides its features beside their spec, e.g. a checkpoint.
    """

    corpus: str
    notice: str
    classes: tuple[str, ...]
    utterances: tuple[Utterance, ...]
    contents: tuple[str, ...]
    sounds: tuple[str, ...]
    fingerprints: Mapping[str, str]

    def rows(self) -> list[dict[str, Any]]:
        """The utterance table, one dictionary an utterance."""
        return [
            {**{name: getattr(u, name) for name in _COLUMNS}, "sha256": content, "sound": sound}
            for u, content, sound in zip(self.utterances, self.contents, self.sounds, strict=True)
        ]

    @classmethod
    def from_rows(cls, header: Mapping[str, Any], rows: Sequence[Mapping[str, str]]) -> Listing:
        """The inverse of :meth:`rows`, from ``data.json`` and a CSV file; paths are left empty.

        Raises
        ------
        RunError
            If a column is missing, or a number is none.
        """
        utterances = []
        for row in rows:
            try:
                values: dict[str, Any] = {name: row[name] or None for name in _COLUMNS}
                for name in _NUMBERS:
                    values[name] = None if values[name] is None else float(values[name])
            except (KeyError, ValueError) as error:
                raise RunError(f"the utterance table is broken: {error}") from error
            values["start"] = values["start"] or 0.0
            utterances.append(Utterance(path=Path(), **values))
        return cls(
            header["corpus"],
            header["notice"],
            tuple(header["classes"]),
            tuple(utterances),
            tuple(row["sha256"] for row in rows),
            tuple(row["sound"] for row in rows),
            header["fingerprints"],
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 over classes, fingerprints, and names, contents, labels and all else."""
        return files.digest_of(
            {
                "classes": self.classes,
                "utterances": self.rows(),
                "fingerprints": dict(self.fingerprints),
            }
        )


@dataclass(frozen=True, eq=False)
class Maps:
    """One of the feature maps that a system takes, of M pieces of utterances.

    Attributes
    ----------
    features : float32 (M, C, F, T), not normalised.
    variants : V augmented versions of all features.
    mapped : whether they are on the disk and only mapped into memory.
    """

    features: Tensor
    variants: tuple[Tensor, ...] = ()
    mapped: bool = False


@dataclass(frozen=True, eq=False)
class Dataset:
    """Utterances of a corpus with their feature maps.

    Attributes
    ----------
    listing : N utterances and the classes.
    maps : by the name of the input, with equal numbers of rows.
    owners : (M,) utterance of each row, ascending; None where each utterance is one piece.
    """

    listing: Listing
    maps: Mapping[str, Maps]
    owners: Tensor | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Labels in the order of the logits."""
        return self.listing.classes

    @property
    def utterances(self) -> tuple[Utterance, ...]:
        """All of them, those of the test fold included."""
        return self.listing.utterances

    def labels(self, indices: Indices) -> list[str]:
        """Labels of some utterances."""
        return [self.utterances[i].known_label() for i in indices]

    def targets(self, indices: Indices) -> Tensor:
        """Class indices ``(N,)`` of some utterances."""
        return class_indices(self.labels(indices), self.classes)

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

    def inputs(self, indices: Indices) -> dict[str, Tensor]:
        """Maps ``(M, C, F, T)`` of the pieces of some utterances, by the name of the input."""
        rows, _ = self.rows(indices)
        return {name: maps.features[rows] for name, maps in self.maps.items()}

    def normalisation(self, indices: Indices, name: str = "features") -> Normalisation:
        """Statistics of one input over the pieces of some utterances."""
        return Normalisation.fit(self.maps[name].features, self.rows(indices)[0])

    def part(
        self,
        indices: Indices,
        normalisation: Normalisation,
        device: torch.device,
        *,
        varied: bool = False,
        views: Views | None = None,
        name: str = "features",
    ) -> Part:
        """One input, normalised, and emotions and genders of some utterances, on the device.

        ``varied`` includes augmented versions, for data that trains the discrete network. ``views``
        draw what batches are made of.
        """
        maps = self.maps[name]
        rows, position = self.rows(indices)

        def of_rows(targets: Tensor) -> Tensor:
            return (targets if position is None else targets[position]).to(device)

        def chosen(features: Tensor) -> Tensor | MappedRows:
            if maps.mapped:
                return MappedRows(features, rows, normalisation, device)
            return normalisation.apply(features[rows]).to(device)

        return Part(
            chosen(maps.features),
            of_rows(self.targets(indices)),
            None if position is None else position.to(device),
            tuple(map(chosen, maps.variants)) if varied else (),
            views,
            of_rows(gender_indices([self.utterances[i].gender for i in indices])),
        )


def fill_store(
    recipe: Recipe,
    corpus: Corpus,
    store: Path,
    device: torch.device,
    progress: Progress,
    *,
    skip_bad: bool = False,
) -> tuple[Listing, tuple[tuple[str, str], ...]]:
    """Compute and store what a recipe needs of a corpus; memory does not grow with the corpus.

    Parameters
    ----------
    corpus : with the classes and styles of the recipe.
    store : folder of the feature store.
    skip_bad : leave unusable audio out instead of raising.

    Returns
    -------
    The usable utterances, and the others as ``(name, reason)``.

    Raises
    ------
    AudioError
        Naming all unusable audio together, or a class that has none left.
    """
    variants = variants_of(recipe.training.augmentation)
    progress.start("features", len(corpus) * len(recipe.inputs) * (1 + len(variants)))
    utterances: tuple[Utterance, ...] = corpus.utterances
    contents: tuple[str, ...] = ()
    sounds: tuple[str, ...] = ()
    bad: tuple[tuple[str, str], ...] = ()
    fingerprints: dict[str, str] = {}
    for name, spec in recipe.inputs.items():
        for variant in (None, *variants):
            filled = fill(
                utterances,
                spec,
                store,
                skip_bad=skip_bad,
                on_done=progress.advance,
                device=device,
                variant=variant,
            )
            bad += filled.bad
            fingerprints[name] = filled.fingerprint
            usable = [
                (u, content, sound)
                for u, content, sound in zip(
                    utterances, filled.contents, filled.sounds, strict=True
                )
                if content is not None and sound is not None
            ]
            utterances = tuple(u for u, _, _ in usable)
            contents = tuple(content for _, content, _ in usable)
            sounds = tuple(sound for _, _, sound in usable)
    lost = sorted(set(corpus.classes) - {u.known_label() for u in utterances})
    if lost:
        raise AudioError(
            f"no utterance of class {list_some(lost)} has usable audio; repair some of its files, "
            "or keep the other classes only (recipe key labels)"
        )
    listing = Listing(
        corpus.name, corpus.notice, corpus.classes, utterances, contents, sounds, fingerprints
    )
    return listing, bad


def load_dataset(recipe: Recipe, listing: Listing, store: Path, device: torch.device) -> Dataset:
    """Read the feature maps of a recipe from a store that :func:`fill_store` filled.

    They are left on the disk if ``compute.features`` is ``mapped``, or if it is ``auto`` and they
    are larger than a quarter of the machine's memory. Results do not depend on it.

    Raises
    ------
    AudioError
        If the store lacks features, or if the pieces of two inputs do not correspond.
    """
    variants = variants_of(recipe.training.augmentation)
    mapped = recipe.compute.features == "mapped" or (
        recipe.compute.features == "auto" and _are_large(recipe, listing, store, device)
    )
    maps: dict[str, Maps] = {}
    owners: Tensor | None = None
    for name, spec in recipe.inputs.items():
        found = [
            read(
                listing.utterances,
                listing.contents,
                listing.fingerprints[name],
                spec,
                store,
                device=device,
                variant=variant,
                mapped=mapped,
            )
            for variant in (None, *variants)
        ]
        original, *versions = found
        if owners is not None and not torch.equal(owners, original.owners):
            raise AudioError(
                f"input {name!r} divides utterances into other pieces than the input before it; "
                "give all inputs the same duration and length"
            )
        owners = original.owners
        maps[name] = Maps(original.features, tuple(v.features for v in versions), mapped)
    in_pieces = any(spec.length == "segments" for spec in recipe.inputs.values())
    return Dataset(listing, maps, owners if in_pieces else None)


def _are_large(recipe: Recipe, listing: Listing, store: Path, device: torch.device) -> bool:
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names:  # on Windows
        return False
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    of_originals = sum(
        stored_bytes(
            listing.utterances, listing.contents, listing.fingerprints[name], spec, store, device
        )
        for name, spec in recipe.inputs.items()
    )
    versions = 1 + len(variants_of(recipe.training.augmentation))
    return of_originals * versions > memory / 4
