"""Augmentation of waveforms for training: speed, pitch, vocal tract length, noise, gain.

Speed is one call of soxr. Noise and gain are one line of numpy each, so that the ratio is exact
and all random numbers come from one generator. Pitch shifts at constant tempo use Signalsmith
Stretch (extra ``augment``). No library perturbs the vocal tract length of a waveform such that
the harmonics move by the factor, so it is implemented here.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import soxr
from numpy.typing import NDArray

from emodarts.audio.store import Variant
from emodarts.errors import RecipeError
from emodarts.recipe import AugmentationSpec

AUGMENTATION_CODE_VERSION = 1
"""Increase with every change that alters a waveform; stored copies then expire."""

Floats = NDArray[np.float64]
Spectrum = NDArray[np.complex64]

#: Upper limit of the formants in Hz in Jaitly and Hinton (2013) at 16 kHz, and the same limit as
#: a fraction of the highest frequency, for lower rates.
_BOUNDARY, _BOUNDARY_SHARE = 4800.0, 0.6

#: Seconds per frame, and iterations of Griffin-Lim. On EmoDB at 10 % the magnitudes of the result
#: differ from the warped ones by 2.3 dB (rms over the map) without iterations, by 1.1 dB with 4
#: and by 1.0 dB with 8.
_VTLP_WINDOW, _VTLP_ITERATIONS = 0.032, 4


def variants_of(spec: AugmentationSpec) -> tuple[Variant, ...]:
    """The augmented copies of a recipe, as variants for the store."""

    if spec.copies and spec.pitch is not None:
        _load_stretch()  # report a missing library before hours of work

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
    """Apply each enabled transform with ``spec.probability``, in fixed order.

    The order is speed, pitch, vtlp, noise, gain, so the signal-to-noise ratio holds in the result.
    The result depends on the arguments alone; enabling one transform does not change the random
    numbers of another. Nothing is clipped: samples may exceed 1, as in decoded audio.

    Parameters
    ----------
    waveform : [shape=(n,)], n at least 1
    sample_rate : Hz

    Returns
    -------
    float32 [shape=(n,)]; about n / s samples after a change of speed by s.

    Raises
    ------
    RecipeError
        If pitch is enabled and python-stretch is not installed.
    """
    generator = np.random.default_rng(seed)
    chances, shares = generator.random((2, 5))

    def draw(k: int, span: tuple[float, ...] | None) -> float | None:
        """Value of transform ``k``, or None if it is not applied."""
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
    """Play a waveform ``factor`` times as fast, which also multiplies pitch by the factor.

    [shape=(n,) -> (n / factor,)], rounded, at least one sample.
    """
    result: NDArray[np.float32] = soxr.resample(waveform, sample_rate * factor, sample_rate)
    return result


def shift_pitch(
    waveform: NDArray[np.float32], sample_rate: int, semitones: float
) -> NDArray[np.float32]:
    """Shift pitch by ``semitones`` at constant duration [shape=(n,) -> (n,)].

    Raises
    ------
    RecipeError
        If python-stretch is not installed.
    """
    stretch = _load_stretch()()  # a new one per call, as it has a state
    stretch.preset(1, sample_rate)
    stretch.setTransposeSemitones(semitones)
    result: NDArray[np.float32] = np.asarray(stretch.process(waveform[None]), np.float32)[0]
    return result


def _load_stretch() -> Any:
    """Load the class that shifts pitch. Raises :class:`RecipeError` if it is not installed."""
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
    """Add white Gaussian noise at a signal-to-noise power ratio of ``ratio`` dB.

    The ratio is that of this waveform and this noise, not of their expectations. Silence is
    returned unchanged.
    """
    noise = generator.standard_normal(waveform.size)
    signal = waveform.astype(np.float64)
    scale = np.linalg.norm(signal) / np.linalg.norm(noise) / 10 ** (ratio / 20)
    return (signal + scale * noise).astype(np.float32)


def perturb_vocal_tract(
    waveform: NDArray[np.float32], sample_rate: int, alpha: float
) -> NDArray[np.float32]:
    """Warp the frequency axis as a change of vocal tract length does [shape=(n,) -> (n,)].

    The magnitudes of a short-time Fourier transform are moved by :func:`warp_frequency`. Phases
    advance at the rate of the moved frequencies: as in a phase vocoder, the frequency in a bin is
    the phase difference of neighbouring frames; otherwise overlap-add would restore the old
    frequencies. A few iterations of Griffin and Lim (1984) then make the phases of neighbouring
    bins consistent.
    """
    from scipy.signal import istft, stft  # slow to import

    n_fft = 2 ** max(4, round(np.log2(_VTLP_WINDOW * sample_rate)))
    hop = n_fft // 4
    padded = np.pad(waveform, (0, max(0, n_fft - waveform.size)))

    def transform(signal: NDArray[np.float32]) -> Spectrum:
        return cast(Spectrum, stft(signal, nperseg=n_fft, noverlap=n_fft - hop)[2])

    def invert(spectrum: Spectrum) -> NDArray[np.float32]:
        signal = istft(spectrum, nperseg=n_fft, noverlap=n_fft - hop)[1]
        return cast(NDArray[np.float32], signal[: padded.size])

    spectrum = transform(padded)  # (1 + n_fft // 2, frames)
    bins = np.arange(len(spectrum))
    # Position between two bins from which each bin of the result is taken.
    source = warp_frequency(bins * sample_rate / n_fft, sample_rate, alpha, inverse=True)
    source *= n_fft / sample_rate
    below = np.minimum(source.astype(int), len(bins) - 2)
    share = (source - below)[:, None].astype(np.float32)
    magnitude = np.abs(spectrum)
    target = (1 - share) * magnitude[below] + share * magnitude[below + 1]

    # Frequency in every bin, and the phase that its shift adds per frame.
    advance = 2 * np.pi * hop / n_fft * bins[:, None]
    turned = np.angle(spectrum[:, 1:] * spectrum[:, :-1].conj() * np.exp(-1j * advance))
    frequency = (advance + turned) * sample_rate / (2 * np.pi * hop)
    moved = warp_frequency(frequency, sample_rate, alpha) - frequency
    phase = np.angle(spectrum).astype(np.float64)
    phase[:, 1:] += np.cumsum(2 * np.pi * hop / sample_rate * moved, axis=1)
    phase = phase[np.rint(source).astype(int)]

    result = invert(target * np.exp(1j * phase).astype(np.complex64))
    for _ in range(_VTLP_ITERATIONS):
        current = transform(result)
        result = invert(target * current / np.maximum(np.abs(current), np.finfo(np.float32).tiny))
    return result[: waveform.size]


def warp_frequency(
    frequency: Floats, sample_rate: int, alpha: float, *, inverse: bool = False
) -> Floats:
    """Frequency in Hz after vocal tract length perturbation, or before it if ``inverse``.

    Piecewise linear (Jaitly and Hinton, ICML workshop 2013; S is the sample rate): ``alpha f`` up
    to ``F min(alpha, 1) / alpha``, then a line to S / 2, which is fixed. The boundary F is 4800 Hz,
    their value at 16 kHz, and at lower rates the same fraction of S / 2.
    """
    highest = sample_rate / 2
    end = min(_BOUNDARY, _BOUNDARY_SHARE * highest) * min(alpha, 1.0)
    before, after = [0.0, end / alpha, highest], [0.0, end, highest]
    if inverse:
        before, after = after, before
    warped: Floats = np.interp(frequency, before, after)
    return warped
