"""Pieces cover long sound, half overlapping, and are never longer than the model's input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emodarts.audio.pieces import piece_starts, split
from emodarts.recipe import FeatureSpec


@given(st.integers(1, 5000), st.integers(1, 500))
def test_pieces_cover_everything_half_overlapping_and_end_with_the_sound(
    n_samples: int, piece: int
) -> None:
    starts = piece_starts(n_samples, piece)
    assert starts[0] == 0
    assert starts[-1] == max(0, n_samples - piece)
    steps = np.diff(starts)
    assert (steps > 0).all()
    assert (steps[:-1] == max(1, piece // 2)).all()
    assert (steps <= max(1, piece // 2)).all()


SIZES = pytest.mark.parametrize("n", [10, 4000, 4001, 9000])


@SIZES
@pytest.mark.parametrize("length", ["pad", "repeat"])
def test_sound_is_one_piece_unless_length_is_segments(length: str, n: int) -> None:
    waveform = np.arange(n, dtype=np.float32)
    pieces = split(waveform, FeatureSpec(sample_rate=8000, duration=0.5, length=length))
    assert [p.tolist() for p in pieces] == [waveform.tolist()]


@SIZES
def test_segments_cover_the_sound(n: int) -> None:
    spec = FeatureSpec(sample_rate=8000, duration=0.5, length="segments")
    pieces = split(np.arange(n, dtype=np.float32), spec)
    assert all(len(p) == min(n, 4000) for p in pieces)
    assert [int(p[0]) for p in pieces] == piece_starts(n, 4000)
    assert pieces[-1][-1] == n - 1
