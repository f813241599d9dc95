"""A temperature is found again, keeps every label, and lowers the calibration error."""

from __future__ import annotations

import numpy as np
import pytest

from emodarts.scoring.calibration import calibrated, calibration_error, fit_temperature

RNG = np.random.default_rng(0)
LOGITS = 2 * RNG.standard_normal((4000, 4))
HONEST = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
TRUTH = np.array([RNG.choice(4, p=row) for row in HONEST])


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_that_spoilt_probabilities_is_found(temperature: float) -> None:
    spoilt = calibrated(HONEST, 1 / temperature)
    found = fit_temperature(spoilt, TRUTH)
    assert found == pytest.approx(temperature, rel=0.05)
    repaired = calibrated(spoilt, found)
    assert np.array_equal(repaired.argmax(axis=1), spoilt.argmax(axis=1))
    assert calibration_error(repaired, TRUTH) < 0.03
    if temperature != 1.0:
        assert calibration_error(spoilt, TRUTH) > 0.08
    np.testing.assert_allclose(calibrated(repaired, 1 / found), spoilt, atol=1e-12)


def test_a_few_right_answers_do_not_make_it_certain() -> None:
    p = np.full((6, 3), 0.1) + 0.7 * np.eye(3)[[0, 1, 2, 0, 1, 2]]
    confidence = calibrated(p, fit_temperature(p, np.array([0, 1, 2, 0, 1, 2]))).max(axis=1)
    assert np.all(confidence < 0.9)
    even = np.full((6, 3), 1 / 3)
    assert fit_temperature(even, np.array([0, 1, 2, 0, 1, 2])) == 1.0


def test_calibration_error_by_hand() -> None:
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.0, 1.0]])
    # Bins of 0.9, 0.6 and 1.0; one of two right, wrong, right.
    expected = 0.5 * abs(0.5 - 0.9) + 0.25 * 0.6 + 0.0
    assert calibration_error(p, np.array([0, 1, 0, 1])) == pytest.approx(expected)
