"""Fold files: those of a run repeat it, hand-made ones are checked, all faults explained."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy_corpora import LABELS, corpus, unknown, values

from emodarts.corpora.utterance import Corpus
from emodarts.errors import SplitError
from emodarts.splits import Protocol, make_folds, make_parts


def write(path: Path, value: Any) -> str:
    path.write_text(json.dumps(value))
    return str(path)


def as_recorded(source: Corpus, split: str, protocol: Protocol, seeds: Sequence[int]) -> Any:
    """What a run writes to folds.json."""
    return {
        "split": split,
        "protocol": protocol,
        "folds": [
            {"fold": fold.index, "seed": seed}
            | make_parts(source.utterances, fold, protocol, seed).names(source.utterances)
            for fold in make_folds(source, split, split == "official").folds[1:]
            for seed in seeds
        ],
    }


@pytest.mark.parametrize("split", ["groups:4", "session", "speaker-dependent"])
@pytest.mark.parametrize("protocol", ["paper", "full"])
def test_the_fold_file_of_a_run_repeats_its_parts(
    split: str, protocol: Protocol, tmp_path: Path
) -> None:
    source = corpus(sessions=split == "session")
    seeds = (3, 7)
    file = write(tmp_path / "folds.json", as_recorded(source, split, protocol, seeds))
    if split == "speaker-dependent":
        with pytest.raises(SplitError, match=r"in test and training.*--allow-speaker-overlap"):
            make_folds(source, file)
    made = make_folds(source, file, split == "speaker-dependent")
    assert (split == "speaker-dependent") == bool(made.warnings)
    originals = make_folds(source, split).folds[1:]
    # Folds that did not run are not in the file; the others keep their numbers.
    assert [fold.index for fold in made.folds] == [fold.index for fold in originals]
    for fold, original in zip(made.folds, originals, strict=True):
        assert (fold.test, fold.development) == (original.test, original.development)
        for seed in seeds:
            expected = make_parts(source.utterances, original, protocol, seed)
            assert make_parts(source.utterances, fold, protocol, seed) == expected
    other: Protocol = "full" if protocol == "paper" else "paper"
    there = rf"fold 1 has no parts .* it has {protocol} with seed 3, {protocol} with seed 7"
    for wrong, seed in ((protocol, 0), (other, 3)):
        with pytest.raises(SplitError, match=there):
            make_parts(source.utterances, made.folds[0], wrong, seed)


def test_unknown_speakers_of_a_recorded_test_are_left_out_of_its_parts(tmp_path: Path) -> None:
    known = corpus()
    file = write(tmp_path / "folds.json", as_recorded(known, "groups:4", "full", (0,)))
    whose = sorted(values(known, make_folds(known, file).folds[0].test, "speaker"))[0]
    source = unknown(known, whose)
    for allow, n in ((False, 24), (True, 48)):
        fold = make_folds(source, file, allow).folds[0]
        assert make_parts(source.utterances, fold, "full", 0).test == fold.test
        assert len(fold.test) == n


def by_hand(source: Corpus, *folds: dict[str, str]) -> dict[str, Any]:
    """A hand-made file of speakers' utterances, by part."""
    return {
        "folds": [
            {
                part: [u.name for u in source if u.speaker and u.speaker[1] in speakers]
                for part, speakers in fold.items()
            }
            for fold in folds
        ]
    }


def test_a_fold_file_can_be_made_by_hand(tmp_path: Path) -> None:
    source = corpus()
    value = by_hand(source, {"train": "0123", "validation": "4", "test": "56"})
    value["folds"] += by_hand(source, {"train": "12345", "test": "07"})["folds"]
    made = make_folds(source, file := write(tmp_path / "mine.json", value))
    first, second = made.folds
    assert values(source, first.validation, "speaker") == {"04"}
    assert values(source, second.test, "speaker") == {"00", "07"}
    assert made.warnings[0].startswith(f"split '{file}' leaves 48 utterances out")
    for seed in (0, 9):
        assert make_parts(source.utterances, first, "full", seed).validation == first.validation
        assert len(make_parts(source.utterances, second, "paper", seed).train) == 36
    # What the run leaves out may be named: unselected labels, unusable audio.
    chosen = source.select(LABELS[:3])
    bad, *good = chosen.utterances
    seen = replace(
        chosen, utterances=tuple(good), skipped=(*chosen.skipped, (bad.name, "unusable audio"))
    )
    fewer = make_folds(seen, file)
    assert fewer.warnings[0].startswith("49 utterances of ")
    assert len(fewer.folds[0].train) == 4 * 18 - 1
    with pytest.raises(SplitError, match=r"mine.json names 1 .*toy.* not have: '00-anger-0'"):
        make_folds(replace(seen, skipped=chosen.skipped), file)


#: A change of a good file (hand-made, or recorded) and what the error says.
FAULTS: list[tuple[bool, Callable[[Any], Any], str]] = [
    (False, lambda v: v | {"fold": []}, "unknown key 'fold' .did you mean 'folds'"),
    (False, lambda v: v | {"protocol": "full"}, "protocol 'full', but folds without seeds"),
    (False, lambda v: v | {"split": 3}, "split 3 must be a string"),
    (False, lambda v: v | {"folds": []}, "at least one fold"),
    (False, lambda v: v | {"folds": v}, "at least one fold"),
    (False, lambda v: v | {"folds": [[]]}, "objects with names by part"),
    (False, lambda v: v["folds"], "not a JSON object"),
    (False, lambda v: {}, "has no folds"),
    (False, lambda v: v["folds"][0].pop("test") and v, "fold 0: missing test"),
    (False, lambda v: v["folds"][0].update(valid=[]) or v, "fold 0: unknown key 'valid'"),
    (False, lambda v: v["folds"][0].update(test="x") or v, "fold 0: test must be a list of"),
    (False, lambda v: v["folds"][0].update(test=[1]) or v, "fold 0: test must be a list of"),
    (False, lambda v: v["folds"][0]["train"].append("00-anger-0") or v, "train names '00-anger-0'"),
    (False, lambda v: v["folds"][0]["train"].append("05-anger-0") or v, "test and the rest share"),
    (False, lambda v: v["folds"][0]["train"].append("04-anger-0") or v, "train and validation"),
    (False, lambda v: v["folds"][0].update(train=[]) or v, "mine.json, fold 0 .*class anger"),
    (
        False,
        lambda v: v["folds"][0].update(test=[]) or v,
        "mine.json, fold 0 has no test utterances",
    ),
    (False, lambda v: v | {"folds": v["folds"] * 2}, "tested in .*fold 0 and in .*fold 1"),
    (False, lambda v: v["folds"][0]["test"].append("who") or v, "names 1 .*not have: 'who'"),
    (True, lambda v: v | {"protocol": "best"}, "protocol 'best'.*allowed: paper, full"),
    (True, lambda v: v | {"folds": v["folds"] * 2}, "fold 1, seed 0 is given twice"),
    (True, lambda v: v["folds"][0].update(seed=True) or v, "entry 0: seed True must be an integer"),
    (True, lambda v: v["folds"][0].update(fold=-1) or v, "entry 0: fold -1 must be an integer"),
    (True, lambda v: v["folds"][0].pop("seed") is None or v, "entry 0: missing seed"),
    (True, lambda v: v["folds"][0]["test"].pop() and v, "fold 1: test differs between seeds"),
    (
        True,
        lambda v: v["folds"][0].update(search_alphas=v["folds"][0]["search_weights"]) or v,
        "search_weights and search_alphas share",
    ),
    (
        True,
        lambda v: v["folds"][0].update(search_weights=v["folds"][0]["search_weights"][:1]) or v,
        "fold 1, seed 0: search_weights has no utterance of class happiness, neutral, sadness",
    ),
    (
        True,
        lambda v: v["folds"][0]["validation"].append(v["folds"][0]["train"][0]) or v,
        "seed 0: train and validation share",
    ),
    (
        True,
        lambda v: v["folds"][0]["train"].append(v["folds"][0]["test"][0]) or v,
        "fold 1: test and the rest share utterance",
    ),
]


@pytest.mark.parametrize("allow", [False, True])
@pytest.mark.parametrize(("recorded", "change", "message"), FAULTS)
def test_every_fault_of_a_fold_file_is_explained(
    recorded: bool, change: Callable[[Any], Any], message: str, allow: bool, tmp_path: Path
) -> None:
    source = corpus()
    if recorded:
        good = as_recorded(source, "groups:4", "full", (0, 1))
    else:
        good = by_hand(source, {"train": "0123", "validation": "4", "test": "56"})
    file = write(tmp_path / "mine.json", good)
    assert make_folds(source, file).folds
    broken = write(tmp_path / "mine.json", change(json.loads(json.dumps(good))))
    with pytest.raises(SplitError, match=message):
        make_folds(source, broken, allow)


def test_a_missing_fold_file(tmp_path: Path) -> None:
    with pytest.raises(SplitError, match=r"no such file: .*missing\.json"):
        make_folds(corpus(), str(tmp_path / "missing.json"))


SMALL = corpus(4, each=2, labels=LABELS[:2])


NAMES = st.sampled_from([u.name for u in SMALL] + ["who", "\ud800"])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | st.text(max_size=3) | NAMES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["folds", "seed", "train", "test"]), inner, max_size=4)
    ),
    max_leaves=8,
)


PART = st.lists(NAMES, max_size=16, unique=True) | JSON


ENTRY = st.fixed_dictionaries(
    {"train": PART, "test": PART},
    optional={
        **dict.fromkeys(("validation", "search_weights", "search_alphas"), PART),
        "fold": JSON,
        "seed": JSON,
    },
)


FILE = st.fixed_dictionaries(
    {"folds": st.lists(ENTRY, max_size=2) | JSON},
    optional={"protocol": st.sampled_from(["full", "paper"]) | JSON, "split": JSON},
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(JSON | FILE, st.booleans())
def test_any_json_gives_folds_or_a_split_error(tmp_path: Path, value: Any, allow: bool) -> None:
    file = write(tmp_path / "any.json", value)
    try:
        made = make_folds(SMALL, file, allow)
    except SplitError:
        return
    for fold in made.folds:
        assert fold.test
        assert set(fold.development).isdisjoint(fold.test)
