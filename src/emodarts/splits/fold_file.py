"""Fold files: ``folds.json`` of a run, or a file made by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from emodarts import files
from emodarts.corpora.utterance import Corpus, Utterance
from emodarts.errors import SplitError, did_you_mean, list_some
from emodarts.splits.checks import check_classes, refuse_in_both
from emodarts.splits.fold import PARTS, Fold, Folds, Indices, Parts, Protocol, as_indices
from emodarts.splits.given import given_fold, warn_of_unused

_FILE_KEYS = ("split", "protocol", "folds")
_RECORDED_KEYS = ("fold", "seed", *PARTS)
_HAND_MADE_KEYS = ("train", "validation", "test")


@dataclass(frozen=True)
class _Entry:
    """One fold of a hand-made file, or one fold with one seed of a run's file."""

    where: str
    fold: int
    names: dict[str, list[str]]
    seed: int = 0

    def parts(self, rows: Mapping[str, int]) -> dict[str, Indices]:
        """Indices by part, of the names that the run uses."""
        return {
            part: as_indices(rows[name] for name in names if name in rows)
            for part, names in self.names.items()
        }


def read_fold_file(corpus: Corpus, path: Path) -> Folds:
    """Read folds from a JSON file.

    A run writes ``{"split", "protocol", "folds": [{"fold", "seed", "search_weights",
    "search_alphas", "train", "validation", "test"}]}``; by hand it is ``{"folds": [{"train",
    "validation", "test"}]}``, numbered from 0, ``validation`` optional. Every part is a list of
    utterance names.
    """
    value = files.read_object(path, SplitError, "folds")
    _check_keys(value, _FILE_KEYS, ("folds",), str(path))
    listed, split, protocol = value["folds"], value.get("split"), value.get("protocol")
    if not isinstance(listed, list) or not listed:
        raise SplitError(f"{path}: folds must be a list of at least one fold")
    if not all(isinstance(entry, dict) for entry in listed):
        raise SplitError(f"{path}: folds must be a list of objects with names by part")
    if not isinstance(split, str | None):
        raise SplitError(f"{path}: split {split!r} must be a string")
    recorded = any("seed" in entry for entry in listed)
    if recorded and protocol not in get_args(Protocol):
        raise SplitError(
            f"{path}: protocol {protocol!r}; folds with seeds need one, allowed: "
            f"{', '.join(get_args(Protocol))}"
        )
    if not recorded and protocol is not None:
        raise SplitError(
            f"{path}: protocol {protocol!r}, but folds without seeds use the protocol of the "
            "recipe; leave it out"
        )
    read = _recorded_entry if recorded else _hand_made_entry
    entries = [read(entry, position, path) for position, entry in enumerate(listed)]
    warnings = _warn_of_absent(corpus, path, entries)
    rows = {u.name: i for i, u in enumerate(corpus.utterances)}
    if recorded:
        folds = _recorded_folds(corpus.utterances, rows, path, value["protocol"], entries)
    else:
        folds = _hand_made_folds(corpus.utterances, rows, path, entries)
    return Folds(folds, warnings + warn_of_unused(corpus.utterances, folds, str(path)))


def _recorded_entry(entry: Mapping[str, Any], position: int, path: Path) -> _Entry:
    place = f"{path}, entry {position}"
    _check_keys(entry, _RECORDED_KEYS, _RECORDED_KEYS, place)
    for key in ("fold", "seed"):
        if type(entry[key]) is not int or entry[key] < 0:
            raise SplitError(f"{place}: {key} {entry[key]!r} must be an integer from 0")
    fold, seed = entry["fold"], entry["seed"]
    where = f"{path}, fold {fold}, seed {seed}"
    return _Entry(where, fold, _name_lists(entry, where), seed)


def _hand_made_entry(entry: Mapping[str, Any], position: int, path: Path) -> _Entry:
    where = f"{path}, fold {position}"
    _check_keys(entry, _HAND_MADE_KEYS, ("train", "test"), where)
    return _Entry(where, position, _name_lists(entry, where))


def _check_keys(
    value: Mapping[str, Any], allowed: Sequence[str], needed: Sequence[str], where: str
) -> None:
    for key in value:
        if key not in allowed:
            raise SplitError(
                f"{where}: unknown key {key!r}{did_you_mean(key, allowed)}; "
                f"allowed: {', '.join(allowed)}"
            )
    if missing := [key for key in needed if key not in value]:
        raise SplitError(f"{where}: missing {', '.join(missing)}")


def _name_lists(entry: Mapping[str, Any], where: str) -> dict[str, list[str]]:
    lists = {part: entry[part] for part in PARTS if part in entry}
    for part, names in lists.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise SplitError(f"{where}: {part} must be a list of utterance names")
        if twice := [name for name, n in Counter(names).items() if n > 1]:
            raise SplitError(f"{where}: {part} names {list_some(map(repr, twice))} more than once")
    return lists


def _warn_of_absent(corpus: Corpus, path: Path, entries: Sequence[_Entry]) -> tuple[str, ...]:
    """Warn of named utterances that the run leaves out; refuse names of another corpus."""
    named = {name for entry in entries for names in entry.names.values() for name in names}
    absent = sorted(named - {u.name for u in corpus.utterances})
    strangers = sorted(set(absent) - {name for name, _ in corpus.skipped})
    if strangers:
        raise SplitError(
            f"{path} names {len(strangers)} utterance(s) that corpus {corpus.name!r} does not "
            f"have: {list_some(map(repr, strangers))}; was it made for another corpus?"
        )
    if not absent:
        return ()
    return (
        f"{len(absent)} utterances of {path} are left out, as their labels are not selected or "
        f"their audio is unusable, e.g. {absent[0]}",
    )


def _hand_made_folds(
    utterances: Sequence[Utterance], rows: Mapping[str, int], path: Path, entries: Sequence[_Entry]
) -> tuple[Fold, ...]:
    folds = []
    for entry in entries:
        parts = entry.parts(rows)
        train, validation, test = parts["train"], parts.get("validation", ()), parts["test"]
        folds.append(given_fold(utterances, entry.fold, train, validation, test, str(path)))
    return tuple(folds)


def _recorded_folds(
    utterances: Sequence[Utterance],
    rows: Mapping[str, int],
    path: Path,
    protocol: Protocol,
    entries: Sequence[_Entry],
) -> tuple[Fold, ...]:
    classes = {u.known_label() for u in utterances}
    recorded: dict[int, dict[tuple[Protocol, int], Parts]] = {}
    for entry in entries:
        by_seed = recorded.setdefault(entry.fold, {})
        if (protocol, entry.seed) in by_seed:
            raise SplitError(f"{entry.where} is given twice")
        parts = Parts(**entry.parts(rows))
        _check_recorded(utterances, parts, classes, entry.where)
        by_seed[protocol, entry.seed] = parts
    folds = []
    for index, by_seed in sorted(recorded.items()):
        tests = {parts.test for parts in by_seed.values()}
        if len(tests) > 1:
            raise SplitError(f"{path}, fold {index}: test differs between seeds")
        developed = as_indices(
            {i for parts in by_seed.values() for name in PARTS[:-1] for i in getattr(parts, name)}
        )
        fold = given_fold(utterances, index, developed, (), tests.pop(), str(path))
        folds.append(replace(fold, recorded=by_seed))
    return tuple(folds)


def _check_recorded(
    utterances: Sequence[Utterance], parts: Parts, classes: set[str], where: str
) -> None:
    for pair in (("search_weights", "search_alphas"), ("train", "validation")):
        first, second = (getattr(parts, name) for name in pair)
        refuse_in_both(utterances, first, second, f"{where}: {' and '.join(pair)}")
    for name in ("search_weights", "search_alphas", "train"):
        check_classes(utterances, getattr(parts, name), classes, f"{where}: {name}")
