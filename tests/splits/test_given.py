"""Parts that publishers or users assign are used as they are."""

from __future__ import annotations

from dataclasses import replace

import pytest
from toy_corpora import changed, corpus, parted, values

from emodarts.corpora.utterance import Corpus, PublishedFold
from emodarts.errors import SplitError
from emodarts.splits import make_folds, make_parts


@pytest.mark.parametrize("validation", ["Validation", "development", "DEV", "valid"])
def test_official_parts_are_used_as_published(validation: str) -> None:
    source = parted(corpus(), "Train", "train", "TRAIN", validation, "Test2", "test 1", "Test10")
    made = make_folds(source, "official")
    (fold,) = made.folds
    utterances = source.utterances
    assert values(source, fold.train, "speaker") == {"00", "01", "02"}
    assert values(source, fold.validation, "speaker") == {"03"}
    assert values(source, fold.test, "speaker") == {"05"}
    assert made.warnings == (
        "48 utterances of Test10 are left out: split 'official' tests on test 1",
        "24 utterances of Test2 are left out: split 'official' tests on test 1",
    )
    full = make_parts(utterances, fold, "full", 0)
    assert (full.train, full.validation) == (fold.train, fold.validation)
    assert set(full.search_weights) | set(full.search_alphas) == set(fold.train)
    paper = make_parts(utterances, fold, "paper", 0)
    assert set(paper.train) | set(paper.validation) == {*fold.train, *fold.validation}
    other = make_folds(source, "official:test2").folds[0]
    assert values(source, other.test, "speaker") == {"04"}
    # Tested on its validation part, it has none that chooses the epoch: some speakers do.
    on_validation = make_folds(source, f"official:{validation.upper()}").folds[0]
    assert on_validation.validation == ()
    inner = make_parts(utterances, on_validation, "full", 0)
    assert len(values(source, inner.validation, "speaker")) == 1
    assert make_folds(source, "column").folds == made.folds
    with pytest.raises(SplitError, match=r"no part 'Test3' .*: .*Test2, test 1, Test10"):
        make_folds(source, "official:Test3")
    with pytest.raises(SplitError, match="no part 'Train' to test on"):
        make_folds(source, "official:Train")


def test_a_column_of_folds_is_tested_value_by_value() -> None:
    source = changed(
        corpus(),
        lambda u: {"split": None if u.speaker == "07" else f"fold {2 * int(u.speaker or 0) // 3}"},
    )
    made = make_folds(source, "column")
    tested = [values(source, fold.test, "speaker") for fold in made.folds]
    assert tested == [{"00", "01"}, {"02"}, {"03", "04"}, {"05"}, {"06"}]
    assert all("07" not in values(source, fold.development, "speaker") for fold in made.folds)
    assert made.warnings[0].startswith("split 'column' leaves 24 utterances out of some folds")
    ten = changed(corpus(11), lambda u: {"split": f"fold {int(u.speaker or 0)}"})
    assert values(ten, make_folds(ten, "column").folds[2].test, "speaker") == {"02"}  # not 10
    alike = changed(
        corpus(4), lambda u: {"split": ("f1", "f01", "f001", "f2")[int(u.speaker or 0)]}
    )
    tested = [values(alike, fold.test, "speaker") for fold in make_folds(alike, "column").folds]
    assert tested == [{"02"}, {"01"}, {"00"}, {"03"}]


def published(source: Corpus, *folds: tuple[str, str, str]) -> Corpus:
    """Folds of train, validation and test speakers, as digits."""
    return replace(
        source,
        folds=tuple(
            PublishedFold(
                *(
                    tuple(u.name for u in source if u.speaker and u.speaker[1] in speakers)
                    for speakers in fold
                )
            )
            for fold in folds
        ),
    )


def test_published_folds_keep_their_parts() -> None:
    source = published(corpus(), ("0123", "45", "67"), ("4567", "", "01"))
    made = make_folds(source, "emobox")
    first, second = made.folds
    assert values(source, first.validation, "speaker") == {"04", "05"}
    assert values(source, first.test, "speaker") == {"06", "07"}
    assert values(source, second.development, "speaker") == {"04", "05", "06", "07"}
    assert made.warnings == (
        "split 'emobox' leaves 48 utterances out of some folds, as it assigns them no part, "
        "e.g. 02-anger-0",
    )
    # Names whose utterances were left out for their label or their audio are no fault.
    fewer = replace(source, utterances=source.utterances[1:])
    assert len(make_folds(fewer, "emobox").folds[0].train) == 95


@pytest.mark.parametrize("allow", [False, True])
@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ([("0123", "4", "46")], "test and the rest share utterance '04-anger-0'"),
        ([("01234", "4", "6")], "train and validation share utterance '04-anger-0'"),
        ([("0123", "", "67"), ("0123", "", "56")], "tested in fold 0 and in fold 1"),
        ([("0123", "", "")], "fold 0 has no test utterances"),
        ([], "no published folds"),
    ],
)
def test_wrong_published_folds(
    folds: list[tuple[str, str, str]], message: str, allow: bool
) -> None:
    with pytest.raises(SplitError, match=message):
        make_folds(published(corpus(), *folds), "emobox", allow)
