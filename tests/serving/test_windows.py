"""Audio in chunks: resampling, windows and pieces do not depend on where the chunks end."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import soxr
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from emodarts.audio.pieces import piece_starts
from emodarts.errors import EmodartsError
from emodarts.recipe import FeatureSpec
from emodarts.serving.windows import check_windows, cut, pieces, resample

RATE = 8000


def chunks_of(samples: NDArray[np.float32], sizes: list[int]) -> list[NDArray[np.float32]]:
    """The samples in chunks of these sizes, and what is left in a last one."""
    return np.split(samples, np.minimum(np.cumsum(sizes), len(samples)))


def spans(n: int, window: float, hop: float | None) -> list[tuple[float, float]]:
    """Start and end of each window in seconds."""
    found = cut([np.arange(n, dtype=np.float32)], RATE, window, hop)
    return [(first / RATE, (first + len(part)) / RATE) for first, part in found]


chunk_sizes = st.lists(st.integers(0, 3000), max_size=20)
seconds = st.floats(0.01, 2.0)


@given(st.integers(1, 20_000), seconds, st.none() | seconds)
def test_windows_start_at_0_advance_by_the_hop_and_end_with_the_audio(
    n: int, window: float, hop: float | None
) -> None:
    found = spans(n, window, hop)
    size, step = round(window * RATE) / RATE, hop or window
    assert found[0][0] == 0
    assert found[-1][1] == n / RATE
    if size < n / RATE:
        assert all(end - start == pytest.approx(size) for start, end in found)
    else:
        assert len(found) == 1
    *steps, last = [second - first for (first, _), (second, _) in pairwise(found)] or [0.0]
    assert all(s == pytest.approx(step, abs=1.01 / RATE) for s in steps)
    assert len(found) == 1 or 0 < last <= step + 1.01 / RATE


@pytest.mark.parametrize(
    ("duration", "window", "hop", "starts"),
    [
        (2.1, 0.7, None, [0, 0.7, 1.4]),
        (0.9, 0.3, None, [0, 0.3, 0.6]),
        (8.01, 4.0, None, [0, 4, 4.01]),
        (8.0, 8.0, None, [0]),
        (3.0, 0.5, 1.25, [0, 1.25, 2.5]),
        (2.0, 0.5, 1.25, [0, 1.25, 1.5]),
    ],
)
def test_no_window_is_a_sliver_past_the_end(
    duration: float, window: float, hop: float | None, starts: list[float]
) -> None:
    found = spans(round(duration * RATE), window, hop)
    assert [start for start, _ in found] == pytest.approx(starts)


@given(st.integers(1, 20_000), chunk_sizes, seconds, st.none() | seconds)
def test_windows_are_the_same_whatever_the_chunks(
    n: int, sizes: list[int], window: float, hop: float | None
) -> None:
    samples = np.arange(n, dtype=np.float32)
    for first, part in cut(chunks_of(samples, sizes), RATE, window, hop):
        assert np.array_equal(part, samples[first : first + len(part)])
    whole = [(first, len(part)) for first, part in cut([samples], RATE, window, hop)]
    chunked = cut(chunks_of(samples, sizes), RATE, window, hop)
    assert [(first, len(part)) for first, part in chunked] == whole


def test_a_window_is_given_as_soon_as_its_samples_have_come() -> None:
    come = 0

    def chunks() -> Any:
        nonlocal come
        for chunk in np.split(np.zeros(40 * 100, np.float32), 40):
            come += len(chunk)
            yield chunk

    found = [(first, len(part), come) for first, part in cut(chunks(), 1000, 0.5, 0.25)]
    assert found == [(k * 250, 500, -(-(k * 250 + 500) // 100) * 100) for k in range(15)]


@given(
    st.sampled_from([(8000, 8000), (44100, 16000), (16000, 32750), (48000, 8000)]),
    st.integers(0, 5000),
    chunk_sizes,
)
def test_resampled_chunks_are_the_whole_resampled(
    rates: tuple[int, int], n: int, sizes: list[int]
) -> None:
    samples = np.random.default_rng(n).uniform(-1, 1, n).astype(np.float32)
    chunked = np.concatenate(list(resample(chunks_of(samples, sizes), *rates)))
    whole = soxr.resample(samples, *rates)
    assert len(chunked) == len(whole)
    np.testing.assert_allclose(chunked, whole, atol=1e-6)
    if rates[0] == rates[1]:
        assert np.array_equal(chunked, samples)


@given(st.integers(1, 5000), st.integers(1, 800))
def test_pieces_cover_every_sample(n_samples: int, piece: int) -> None:
    starts = piece_starts(n_samples, piece)
    covered = np.zeros(max(n_samples, piece), bool)
    for start in starts:
        covered[start : start + piece] = True
    assert covered[:n_samples].all()
    assert n_samples <= piece or starts[-1] + piece == n_samples
    assert len(set(starts)) == len(starts)


def test_a_piece_of_short_audio_is_padded_or_repeated() -> None:
    samples = np.ones(3, np.float32)
    masked = FeatureSpec(kind="waveform", sample_rate=8000, duration=0.001, frame_length=8)
    (piece,) = pieces(samples, masked)
    assert np.isnan(piece).tolist() == [False] * 3 + [True] * 5
    padded = masked.model_copy(update={"padding": "zeros"})
    (piece,) = pieces(samples, padded)
    assert piece.tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    (piece,) = pieces(samples, padded.model_copy(update={"length": "repeat"}))
    assert piece.tolist() == [1] * 8


@pytest.mark.parametrize(
    ("window", "hop"),
    [(0.0, None), (-1.0, None), (float("nan"), None), (float("inf"), None), (1.0, 0.0)],
)
def test_impossible_windows_are_refused(window: float, hop: float | None) -> None:
    with pytest.raises(EmodartsError, match=r"allowed: at least 0\.01 s"):
        check_windows(window, hop)


def test_a_hop_needs_a_window() -> None:
    with pytest.raises(EmodartsError, match="hop is given without window"):
        check_windows(None, 1.0)
