"""Parts: pieces of utterances, their augmented versions, and how their answers are joined."""

from itertools import islice

import pytest
import torch
from torch.nn import functional

from emodarts.training.batches import (
    Normalisation,
    Part,
    class_weights,
    endless_batches,
    join_pieces,
    loss_and_ua,
    shuffled_batches,
)

OWNERS = torch.tensor([0, 0, 0, 1, 2, 2])


def test_pieces_answer_with_the_mean_of_their_probabilities() -> None:
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    joined = join_pieces(logits, OWNERS)
    probabilities = logits.double().softmax(dim=1)
    expected = torch.stack(
        [probabilities[:3].mean(dim=0), probabilities[3], probabilities[4:].mean(dim=0)]
    )
    torch.testing.assert_close(joined.exp(), expected)
    torch.testing.assert_close(joined.softmax(dim=1), expected)
    targets = torch.tensor([1, 0, 3])
    loss, _ = loss_and_ua(joined, targets)
    assert loss == pytest.approx(float(-expected[range(3), targets].log().mean()))


@pytest.mark.parametrize(("predicted", "expected"), [([0, 0, 2, 1], 0.75), ([1, 1, 1, 1], 0.0)])
def test_ua_is_the_mean_recall_of_the_classes_that_occur(
    predicted: list[int], expected: float
) -> None:
    logits = functional.one_hot(torch.tensor(predicted), 4).float()
    assert loss_and_ua(logits, torch.tensor([0, 0, 2, 2]))[1] == expected


def test_whole_utterances_answer_as_they_are() -> None:
    logits = torch.randn(5, 3)
    assert join_pieces(logits, None) is logits
    one_each = join_pieces(logits, torch.arange(5))
    torch.testing.assert_close(one_each, functional.log_softmax(logits.double(), dim=1))


def test_an_utterance_counts_once_however_many_pieces_it_has() -> None:
    part = Part(torch.zeros(6, 1, 2, 2), torch.tensor([2, 2, 2, 0, 1, 1]), OWNERS)
    assert part.utterance_targets.tolist() == [2, 0, 1]
    assert Part(part.features, part.targets).utterance_targets.tolist() == [2, 2, 2, 0, 1, 1]


def test_class_weights_undo_the_class_frequencies() -> None:
    targets = torch.tensor([0, 0, 0, 1, 2, 2])
    weights = class_weights(targets, 3)
    torch.testing.assert_close(weights, torch.tensor([6 / 9, 6 / 3, 6 / 6]))
    torch.testing.assert_close(weights[targets].mean(), torch.tensor(1.0))


@pytest.mark.parametrize(
    ("n", "size"), [(1, 4), (17, 16), (32, 16), (33, 16), (7, 100), (7, 2), (3, 2), (6, 2)]
)
def test_batches_hold_every_index_once_in_nearly_equal_sizes(n: int, size: int) -> None:
    batches = shuffled_batches(n, size, 0)
    assert sorted(torch.cat(batches).tolist()) == list(range(n))
    sizes = [len(b) for b in batches]
    assert max(sizes) <= (3 if size == 2 and n % 2 else size)
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) > 1 or n == 1  # batch norm has no variance of one row


def test_endless_batches_shuffle_every_cycle_anew() -> None:
    batches = islice(endless_batches(7, 3, lambda cycle: 10 + cycle), 9)
    expected = [batch for seed in (10, 11, 12) for batch in shuffled_batches(7, 3, seed)]
    assert all(torch.equal(a, b) for a, b in zip(batches, expected, strict=True))
    assert not torch.equal(torch.cat(expected[:3]), torch.cat(expected[3:6]))


def test_normalisation_is_of_each_coefficient() -> None:
    features = 5 * torch.randn(30, 1, 4, 9) + torch.arange(4.0).view(1, 1, 4, 1)
    normalisation = Normalisation.fit(features)
    out = normalisation.apply(features)
    torch.testing.assert_close(out.mean(dim=(0, 1, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std(dim=(0, 1, 3), correction=0), torch.ones(4))
    constant = Normalisation.fit(torch.zeros(3, 1, 2, 2)).apply(torch.zeros(3, 1, 2, 2))
    assert torch.isfinite(constant).all()


def test_a_batch_holds_the_versions_that_were_drawn() -> None:
    features = torch.arange(4.0).view(4, 1, 1, 1)
    part = Part(features, torch.arange(4), None, (features + 10, features + 20))
    assert part.n_versions == 3
    batch, targets = part.batch(torch.tensor([3, 1, 0]), torch.tensor([2, 0, 1]))
    assert batch.flatten().tolist() == [23.0, 1.0, 10.0]
    assert targets.tolist() == [3, 1, 0]
    assert part.batch(torch.tensor([2]))[0].item() == 2.0
    assert part.features.flatten().tolist() == [0.0, 1.0, 2.0, 3.0]


def test_each_channel_is_normalised_by_itself() -> None:
    features = torch.randn(7, 3, 5, 11) * torch.tensor([1.0, 10.0, 0.1]).view(3, 1, 1)
    normalised = Normalisation.fit(features).apply(features)
    torch.testing.assert_close(normalised.mean(dim=(0, 3)), torch.zeros(3, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        normalised.std(dim=(0, 3), correction=0), torch.ones(3, 5), atol=1e-4, rtol=0
    )
    variants = torch.stack([features, features])
    torch.testing.assert_close(Normalisation.fit(features).apply(variants)[1], normalised)
