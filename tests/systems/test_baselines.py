"""Simple systems: what they are fitted to and what leaves them unchanged."""

import numpy as np
import torch

from emodarts.recipe.features import FeatureSpec
from emodarts.systems.baselines import logistic_regression, majority_answer, mean_features


def test_majority_is_the_most_frequent_label_and_ties_go_to_the_first() -> None:
    assert majority_answer(["b", "a", "b"], 2) == ["b", "b"]
    assert majority_answer(["b", "a"], 1) == ["a"]


def test_coefficients_are_averaged_over_frames_and_log_mels_transformed_first() -> None:
    features = torch.randn(3, 1, 64, 9)
    mean = features[:, 0].double().mean(dim=2).numpy()
    mfcc = FeatureSpec(kind="mfcc", n_mels=64, n_mfcc=64)
    np.testing.assert_allclose(mean_features(features, mfcc), mean[:, :40])
    k, n = np.mgrid[:40, :64]
    cosines = np.sqrt(2 / 64) * np.cos(np.pi * k * (n + 0.5) / 64)
    cosines[0] /= np.sqrt(2)
    log_mel = FeatureSpec(kind="log_mel", n_mels=64)
    np.testing.assert_allclose(mean_features(features, log_mel), mean @ cosines.T, atol=1e-12)


def test_all_features_of_other_kinds_count_and_deltas_do_not() -> None:
    features = torch.randn(3, 2, 64, 9)
    spec = FeatureSpec(kind="waveform", frame_length=64, deltas=1)
    mean = features[:, 0].double().mean(dim=2).numpy()
    np.testing.assert_allclose(mean_features(features, spec), mean)
    with_deltas = FeatureSpec(n_mels=64, deltas=1)
    np.testing.assert_allclose(mean_features(features, with_deltas), mean[:, :40])


def test_units_of_a_coefficient_and_sizes_of_classes_do_not_matter() -> None:
    generator = np.random.default_rng(0)
    labels = ["few"] * 20 + ["many"] * 400
    centre = np.repeat([1.0, -1.0], [20, 400])
    train = np.column_stack([centre, np.zeros(420)]) + generator.standard_normal((420, 2))
    test = np.column_stack([np.linspace(-3, 3, 61), np.zeros(61)])
    answers = logistic_regression(train, labels, test)
    scale = np.array([1e-4, 1e4])
    assert logistic_regression(train * scale, labels, test * scale) == answers
    # Balanced classes of equal spread meet half-way between their centres.
    assert abs(test[answers.index("few"), 0]) < 0.5
