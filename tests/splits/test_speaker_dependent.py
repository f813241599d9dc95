"""Random folds: every utterance once, stratified, always the same, and marked."""

from __future__ import annotations

from collections import Counter

from toy_corpora import corpus, unknown

from emodarts.splits import make_folds


def test_a_speaker_dependent_split_needs_no_speakers_and_gives_a_warning() -> None:
    nameless = unknown(corpus())
    made = make_folds(nameless, "speaker-dependent")
    assert len(made.folds) == 5
    assert made == make_folds(nameless, "speaker-dependent:5")
    assert sorted(i for fold in made.folds for i in fold.test) == list(range(len(nameless)))
    assert "test speakers also occur in training" in made.warnings[0]
    for fold in made.folds:
        counts = Counter(nameless.utterances[i].label for i in fold.test)
        assert max(counts.values()) - min(counts.values()) <= 1
        assert not fold.speakers_apart
    tests = {fold.test for fold in make_folds(corpus(), "speaker-dependent:3").folds}
    assert len(tests) == 3
