"""Random folds of utterances, whose test speakers also occur in training."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from emodarts.corpora.utterance import Utterance
from emodarts.errors import SplitError
from emodarts.splits.fold import Fold, Folds, as_indices

_DEFAULT_COUNT = 5
_SEED = 0


def speaker_dependent(utterances: Sequence[Utterance], choice: str) -> Folds:
    """Folds of split ``speaker-dependent:choice``, stratified by class."""
    from sklearn.model_selection import StratifiedKFold

    count = int(choice or _DEFAULT_COUNT)
    labels = [u.known_label() for u in utterances]
    splitter = StratifiedKFold(count, shuffle=True, random_state=_SEED)
    try:
        with warnings.catch_warnings():
            # A class may have fewer utterances than there are folds; callers check the result.
            warnings.simplefilter("ignore", UserWarning)
            tests = [test for _, test in splitter.split(labels, labels)]
    except ValueError as error:
        raise SplitError(
            f"split speaker-dependent:{count}: no class has {count} utterances "
            f"({len(labels)} utterances in all); use fewer folds"
        ) from error
    everything = tuple(range(len(utterances)))
    return Folds(
        tuple(
            Fold(index, everything, as_indices(test), speakers_apart=False)
            for index, test in enumerate(tests)
        ),
        (
            "speaker-dependent: test speakers also occur in training, so scores are higher than "
            "for unseen speakers and cannot be compared with speaker-independent ones",
        ),
    )
