"""What two parts share is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_corpora import changed, corpus

from emodarts.corpora.utterance import Utterance
from emodarts.errors import SplitError
from emodarts.splits import Fold, Parts, check_disjoint, make_parts


@pytest.mark.parametrize("attribute", ["name", "speaker", "session", "dialogue"])
def test_an_overlap_raises_and_is_named(attribute: str) -> None:
    shared = {"name": "same", "speaker": "same", "session": "same", "dialogue": "same"}
    first, second = (
        Utterance(
            **{  # type: ignore[arg-type]
                **{key: f"{key} {k}" for key in shared},
                attribute: "same",
                "path": Path("x.wav"),
                "label": "anger",
            }
        )
        for k in range(2)
    )
    with pytest.raises(SplitError, match=rf"{attribute} same is on both sides"):
        check_disjoint([first, second], (0,), (1,), "fold 0")
    # Whatever made the fold, its parts are looked at again.
    if attribute == "name":
        source, half = corpus(4), tuple(range(48))
        recorded = {("paper", 0): Parts(half, half, half, half, half)}
        fold = Fold(0, tuple(range(96)), tuple(range(47, 96)), recorded=recorded)
    else:
        source = changed(corpus(4), lambda u: {attribute: "same"})
        fold = Fold(0, tuple(range(96)), tuple(range(48, 96)))
    with pytest.raises(SplitError, match=f"fold 0, search_weights: {attribute}"):
        make_parts(source.utterances, fold, "paper", 0)
