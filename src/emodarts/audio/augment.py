"""Altered copies of a waveform for training: speed, pitch, vocal tract length, noise, gain.

Speed is one call of soxr; noise and gain are a line of numpy each, which makes the ratio exact
and every draw one of a generator of our own. Pitch at the same tempo is a signal processor of
its own right: Signalsmith Stretch (extra ``augment``). No library has vocal tract length
perturbation of a waveform that moves the harmonics by the factor, so it is written out here.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import scipy.signal
import soxr
from numpy.typing import NDArray

from emodarts.audio.store import Variant
from emodarts.errors import RecipeError
from emodarts.recipe import AugmentationSpec

AUGMENTATION_CODE_VERSION = 1
"""Raise by one with every change of this file that changes a waveform; stored copies then expire.
"""

Floats = NDArray[np.float64]
Spectrum = NDArray[np.complex64]

#: Hz below which formants lie, of Jaitly and Hinton (2013) at 16 kHz, and its share of the
#: highest frequency there: the boundary at lower rates.
_BOUNDARY, _BOUNDARY_SHARE = 4800.0, 0.6

#: Seconds of a frame. On EmoDB at 10 % the magnitudes of the result are 2.3 dB (rms over the
#: map) from the warped ones without iterations, 1.1 dB with 4 and 1.0 dB with 8.
_VTLP_WINDOW, _VTLP_ITERATIONS = 0.032, 4


def variants_of(spec: AugmentationSpec) -> tuple[Variant, ...]:
    """The copies that a recipe asks for, as the store makes and keeps them."""

    if spec.copies and spec.pitch is not None:
        _load_stretch()  # a missing library shall be told before hours of work

    def apply(waveform: NDArray[np.float32], sample_rate: int, seed: int) -> NDArray[np.float32]:
        return augment(waveform, sample_rate, spec, seed)

    settings = spec.model_dump(mode="json", exclude={"copies"})
    return tuple(
        Variant({"augmentation": settings, "code": AUGMENTATION_CODE_VERSION, "copy": k}, apply)
        for k in range(1, spec.copies + 1)
    )


def augment(
    waveform: NDArray[np.float32], sample_rate: int, spec: AugmentationSpec, seed: int
) -> NDArray[np.float32]:
    """Alter a waveform by each enabled transform with ``spec.probability``, in fixed order.

    The order is speed, pitch, vtlp, noise, gain; the ratio of signal to noise thus holds in the
    result. The result depends on the arguments alone; enabling one transform changes the draws
    of no other. Nothing is clipped: samples may exceed 1, as they may in decoded audio.

    Parameters
    ----------
    waveform : [shape=(n,)], n at least 1
    sample_rate : Hz

    Returns
    -------
    float32 [shape=(n,)]; with speed by a factor s about n / s samples.

    Raises
    ------
    RecipeError
        If pitch is asked for and python-stretch is not installed.
    """
    generator = np.random.default_rng(seed)
    chances, shares = generator.random((2, 5))

    def draw(k: int, span: tuple[float, ...] | None) -> float | None:
        """Value of the transform at place ``k``, or None where it is not applied."""
        if span is None or chances[k] >= spec.probability:
            return None
        low, high = span
        return float(low + (high - low) * shares[k])

    result = waveform
    if (factor := draw(0, spec.speed)) is not None:
        result = change_speed(result, sample_rate, factor)
    if (semitones := draw(1, spec.pitch)) is not None:
        result = shift_pitch(result, sample_rate, semitones)
    if (alpha := draw(2, spec.vtlp)) is not None:
        result = perturb_vocal_tract(result, sample_rate, alpha)
    if (ratio := draw(3, spec.noise)) is not None:
        result = add_noise(result, ratio, generator)
    if (gain := draw(4, spec.gain)) is not None:
        result = (result * 10 ** (gain / 20)).astype(np.float32)
    return result


def change_speed(
    waveform: NDArray[np.float32], sample_rate: int, factor: float
) -> NDArray[np.float32]:
    """Play a waveform ``factor`` times as fast: pitch times and duration by the factor.

    [shape=(n,) -> (n / factor,)], rounded, at least one sample.
    """
    result: NDArray[np.float32] = soxr.resample(waveform, sample_rate * factor, sample_rate)
    return result


def shift_pitch(
    waveform: NDArray[np.float32], sample_rate: int, semitones: float
) -> NDArray[np.float32]:
    """Move all frequencies by ``semitones`` at the same duration [shape=(n,) -> (n,)].

    Raises
    ------
    RecipeError
        If python-stretch is not installed.
    """
    stretch = _load_stretch()()  # one for each call, as it keeps a state
    stretch.preset(1, sample_rate)
    stretch.setTransposeSemitones(semitones)
    result: NDArray[np.float32] = np.asarray(stretch.process(waveform[None]), np.float32)[0]
    return result


def _load_stretch() -> Any:
    """The class that shifts pitch. Raises :class:`RecipeError` if it is not installed."""
    try:
        from python_stretch.Signalsmith import Stretch
    except ImportError as error:
        raise RecipeError(
            "training.augmentation.pitch needs a package that is not installed; "
            "pip install python-stretch (the extra `augment`)"
        ) from error
    return Stretch


def add_noise(
    waveform: NDArray[np.float32], ratio: float, generator: np.random.Generator
) -> NDArray[np.float32]:
    """Add white Gaussian noise, scaled to a ratio of signal to noise power of ``ratio`` dB.

    The ratio is of this waveform and this noise, not of their expectations. Silence stays as
    it is: no noise has a ratio to it.
    """
    noise = generator.standard_normal(waveform.size)
    signal = waveform.astype(np.float64)
    scale = np.linalg.norm(signal) / np.linalg.norm(noise) / 10 ** (ratio / 20)
    return (signal + scale * noise).astype(np.float32)


def perturb_vocal_tract(
    waveform: NDArray[np.float32], sample_rate: int, alpha: float
) -> NDArray[np.float32]:
    """Warp the frequency axis, as a vocal tract of another length does [shape=(n,) -> (n,)].

    The magnitudes of a short-time Fourier transform move along :func:`warp_frequency`. Phases
    turn as fast as the moved frequencies ask for: the frequency in a bin is the phase difference
    of neighbouring frames, as in a phase vocoder; without that, what overlap-add gives has the
    old frequencies again. A few iterations of Griffin and Lim (1984) then bring the phases of
    neighbouring bins in agreement.
    """
    n_fft = 2 ** max(4, round(np.log2(_VTLP_WINDOW * sample_rate)))
    hop = n_fft // 4
    padded = np.pad(waveform, (0, max(0, n_fft - waveform.size)))

    def transform(signal: NDArray[np.float32]) -> Spectrum:
        return cast(Spectrum, scipy.signal.stft(signal, nperseg=n_fft, noverlap=n_fft - hop)[2])

    def invert(spectrum: Spectrum) -> NDArray[np.float32]:
        signal = scipy.signal.istft(spectrum, nperseg=n_fft, noverlap=n_fft - hop)[1]
        return cast(NDArray[np.float32], signal[: padded.size])

    spectrum = transform(padded)  # (1 + n_fft // 2, frames)
    bins = np.arange(len(spectrum))
    # Where each bin of the result comes from: a place between two bins.
    source = warp_frequency(bins * sample_rate / n_fft, sample_rate, alpha, inverse=True)
    source *= n_fft / sample_rate
    below = np.minimum(source.astype(int), len(bins) - 2)
    share = (source - below)[:, None].astype(np.float32)
    magnitude = np.abs(spectrum)
    target = (1 - share) * magnitude[below] + share * magnitude[below + 1]

    # Frequency in every bin, and the phase that its move adds from frame to frame.
    advance = 2 * np.pi * hop / n_fft * bins[:, None]
    turned = np.angle(spectrum[:, 1:] * spectrum[:, :-1].conj() * np.exp(-1j * advance))
    frequency = (advance + turned) * sample_rate / (2 * np.pi * hop)
    moved = warp_frequency(frequency, sample_rate, alpha) - frequency
    phase = np.angle(spectrum).astype(np.float64)
    phase[:, 1:] += np.cumsum(2 * np.pi * hop / sample_rate * moved, axis=1)
    phase = phase[np.rint(source).astype(int)]

    result = invert(target * np.exp(1j * phase).astype(np.complex64))
    for _ in range(_VTLP_ITERATIONS):
        heard = transform(result)
        result = invert(target * heard / np.maximum(np.abs(heard), np.finfo(np.float32).tiny))
    return result[: waveform.size]


def warp_frequency(
    frequency: Floats, sample_rate: int, alpha: float, *, inverse: bool = False
) -> Floats:
    """Frequency in Hz after vocal tract length perturbation, or before it if ``inverse``.

    Two straight lines (Jaitly and Hinton, ICML workshop 2013, with S the sample rate):
    ``alpha f`` up to ``F min(alpha, 1) / alpha``, then on to S / 2, which stays in place. The
    boundary F is 4800 Hz, their value at 16 kHz, and at lower rates as large a share of S / 2.
    """
    highest = sample_rate / 2
    end = min(_BOUNDARY, _BOUNDARY_SHARE * highest) * min(alpha, 1.0)
    before, after = [0.0, end / alpha, highest], [0.0, end, highest]
    if inverse:
        before, after = after, before
    warped: Floats = np.interp(frequency, before, after)
    return warped
