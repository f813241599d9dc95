"""Masks, mixtures and repeated classes of training."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from emodarts.recipe import MaskSpec
from emodarts.training.augment import Mixture, balanced_rows, mask_features


def test_masks_zero_whole_bands_and_stretches_of_legal_width() -> None:
    features = torch.ones(200, 1, 12, 20)
    torch.manual_seed(0)
    out = mask_features(features, MaskSpec(frequency_masks=1, frequency_width=4))
    bands = (out == 0).all(dim=3).sum(dim=(1, 2))  # (B,) masked bands
    assert torch.equal((out == 0).sum(dim=(1, 2, 3)), bands * 20)
    assert set(bands.tolist()) == {0, 1, 2, 3, 4}
    out = mask_features(features, MaskSpec(time_masks=2, time_width=3))
    frames = (out == 0).all(dim=2).sum(dim=(1, 2))
    assert torch.equal((out == 0).sum(dim=(1, 2, 3)), frames * 12)
    assert int(frames.max()) == 6
    assert mask_features(features, MaskSpec()) is features
    wide = mask_features(features, MaskSpec(time_masks=1, time_width=1000))
    assert wide.shape == features.shape


def test_masks_are_the_same_in_all_channels() -> None:
    spec = MaskSpec(frequency_masks=1, time_masks=2, frequency_width=5, time_width=6)
    out = mask_features(torch.ones(50, 3, 12, 20), spec) == 0
    assert out.any()
    assert torch.equal(out, out[:, :1].expand_as(out))


def test_a_mixture_averages_values_and_losses() -> None:
    mixture = Mixture(0.75, torch.tensor([1, 2, 0]))
    values = torch.tensor([[4.0, 0.0], [8.0, 4.0], [0.0, 12.0]])
    assert mixture.of(values).tolist() == [[5.0, 1.0], [6.0, 6.0], [1.0, 9.0]]
    # Cross-entropy is linear in the target: torch's own of the mixed target is the same.
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([3, 0, 1])

    def criterion(truth: Tensor) -> Tensor:
        return functional.cross_entropy(logits, truth, label_smoothing=0.2)

    expected = criterion(mixture.of(functional.one_hot(target, 4).float()))
    torch.testing.assert_close(mixture.loss(criterion, target), expected)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_mixtures_have_the_weights_of_a_beta_distribution(alpha: float) -> None:
    """The moment of order 2 about 1/2 is the variance of Beta(a, a): 1 / (4 (2 a + 1))."""
    generator = np.random.default_rng(0)
    drawn = [Mixture.draw(5, alpha, generator) for _ in range(4000)]
    weights = np.array([mixture.weight for mixture in drawn])
    assert weights.min() >= 0.5
    assert weights.max() <= 1.0
    assert np.mean((weights - 0.5) ** 2) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)
    partners = torch.stack([mixture.partners for mixture in drawn])
    assert torch.equal(partners.sort(dim=1).values, torch.arange(5).expand(4000, 5))
    assert len({tuple(row.tolist()) for row in partners}) == 120


def test_balanced_classes_are_as_large_as_the_largest() -> None:
    targets = torch.tensor([2] * 7 + [0] * 3 + [5] * 1 + [2] * 4 + [0] * 2)
    rows = balanced_rows(targets, 0)
    assert torch.bincount(targets[rows]).tolist() == [11, 0, 11, 0, 0, 11]
    times = torch.bincount(rows, minlength=len(targets))
    assert sorted(times[targets == 0].tolist()) == [2, 2, 2, 2, 3]
    assert times[targets == 2].tolist() == [1] * 11
    assert times[targets == 5].tolist() == [11]
    assert torch.equal(rows, balanced_rows(targets, 0))
    extra = {int(balanced_rows(targets, s).bincount()[targets == 0].argmax()) for s in range(40)}
    assert extra == {0, 1, 2, 3, 4}
