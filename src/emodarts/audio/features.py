"""Feature extraction: the transform of each kind, and what all kinds share.

The Fourier transform is ``torch.stft``: for 8 s at the default spec 4 ms on one CPU core, against
28 ms for the same DFT as a matrix product and 47 ms as a convolution; ONNX has it as an operator.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from emodarts.errors import ShapeError
from emodarts.recipe.features import (
    FEATURES,
    FeatureSpec,
    Length,
    LogMelSpec,
    MfccSpec,
    StftSpec,
    WaveformSpec,
)

FEATURE_CODE_VERSION = 6
"""Increase with every change of code that changes a feature; stored features then expire."""

_POWER_FLOOR = 1e-10
_TOP_DB = 80.0
#: Frames on either side of the central one: 9 in all, librosa's default.
_DELTA_REACH = 4
#: Mel bands per matrix product: fewer need more calls, more multiply more zeros. At the papers'
#: spec on one core a file takes 3.0 ms, against 4.1 ms with all bands in one product.
_NEIGHBOURS = 32


class FeatureExtractor(nn.Module):
    """Waveforms to feature maps, by the transform of the spec's kind.

    After the transform, groups of ``spec.pool`` frames are joined (an incomplete last group is
    dropped), and deltas are added as further channels.

    Samples that are NaN are padding at the end of the sound: they are computed with as zeros, and
    frames beyond the sound are NaN in the result (``spec.padding: masked``).

    Attributes
    ----------
    spec : of the features.
    fingerprint : identifies what the values depend on besides the spec and this package: the
        content of a checkpoint, the version of openSMILE; ``""`` for other kinds.

    Raises
    ------
    RecipeError
        If the kind needs a package that is not installed, or a checkpoint that cannot be used.
    """

    def __init__(self, spec: FeatureSpec) -> None:
        super().__init__()
        self.spec = spec
        self.transform = FEATURES[spec.kind].build(spec)
        self.fingerprint: str = getattr(self.transform, "fingerprint", "")
        self._shape = (spec.n_features, spec.n_steps)

    def forward(self, waveform: Tensor) -> Tensor:
        """Extract features; those of an utterance depend on that utterance alone.

        Parameters
        ----------
        waveform : float32 samples at ``spec.sample_rate`` [shape=(B, n_samples)]

        Returns
        -------
        features [shape=(B, n_channels, n_features, n_frames)]

        Raises
        ------
        ShapeError
            If the waveform has another shape, or the transform returns one that contradicts the
            spec.
        """
        spec = self.spec
        if waveform.dim() != 2 or waveform.shape[1] != spec.n_samples:
            raise ShapeError(
                f"waveform of shape {tuple(waveform.shape)}; allowed: (B, {spec.n_samples}), "
                f"see fit_length"
            )
        missing = torch.isnan(waveform)
        maps: Tensor = self.transform(waveform.masked_fill(missing, 0.0))
        if maps.shape != (len(waveform), *self._shape):
            raise ShapeError(
                f"{spec.kind} returned a map of shape {tuple(maps.shape)}; its spec requires "
                f"{(len(waveform), *self._shape)}"
            )
        pool: Callable[..., Tensor] = F.max_pool2d if spec.pool_by == "max" else F.avg_pool2d
        maps = pool(maps.unsqueeze(1), (1, spec.pool))
        maps = torch.cat([maps, *(delta(maps, order) for order in range(1, spec.deltas + 1))], 1)
        valid = spec.frames_of(spec.n_samples - missing.sum(dim=1))[:, None, None, None]
        return maps.masked_fill(torch.arange(spec.n_frames, device=maps.device) >= valid, math.nan)


def _power(waveform: Tensor, window: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """Power spectrum of centred frames, zero-padded at both ends: (B, 1 + n_fft // 2, frames)."""
    half = n_fft // 2
    spectrum = torch.stft(
        F.pad(waveform, (half, half)),
        n_fft,
        hop_length,
        win_length=len(window),
        window=window,
        center=False,
        return_complex=True,
    )
    parts = torch.view_as_real(spectrum)
    # Summing over the last axis gives the same bits but takes five times as long.
    return parts[..., 0].square() + parts[..., 1].square()


def decibels(power: Tensor) -> Tensor:
    """dB, floored at 80 below the maximum *of the utterance*: (B, F, T)."""
    found = 10.0 * torch.log10(power.clamp(min=_POWER_FLOOR))
    return torch.maximum(found, found.amax(dim=(1, 2), keepdim=True) - _TOP_DB)


def band_frequencies(spec: FeatureSpec) -> Tensor | None:
    """Centres of the bands in Hz ``(F,)``; None if the frequency axis has no bands."""
    match spec:
        case LogMelSpec():
            edges = mel_edges(spec.n_mels, spec.fmin, spec.highest)
            return torch.from_numpy(edges[1:-1]).float()
        case StftSpec():
            found: Tensor = torch.fft.rfftfreq(spec.n_fft, 1.0 / spec.sample_rate)
            return found
    return None


class Spectrogram(nn.Module):
    """dB of the power spectrum, equal to librosa with the same arguments."""

    window: Tensor

    def __init__(self, spec: StftSpec) -> None:
        super().__init__()
        self.spec = spec
        shape = {"hann": torch.hann_window, "hamming": torch.hamming_window}[spec.window]
        self.register_buffer("window", shape(spec.win_length), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, n_samples) -> (B, 1 + n_fft // 2, frames)."""
        return decibels(_power(waveform, self.window, self.spec.n_fft, self.spec.hop_length))


class LogMel(nn.Module):
    """dB in mel bands, equal to librosa with the same arguments."""

    window: Tensor
    mel: Tensor

    def __init__(self, spec: LogMelSpec | MfccSpec) -> None:
        super().__init__()
        self.spec = spec
        mel = mel_filterbank(spec.sample_rate, spec.n_fft, spec.n_mels, spec.fmin, spec.fmax)
        window = torch.hann_window(spec.win_length or spec.n_fft)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("mel", torch.from_numpy(mel).float(), persistent=False)
        # Bands are narrow: neighbouring ones need few of the bins, and other weights are zero.
        self.reach: list[tuple[slice, slice]] = []
        for first in range(0, spec.n_mels, _NEIGHBOURS):
            bands = slice(first, first + _NEIGHBOURS)
            bins = np.flatnonzero(mel[bands].any(axis=0))
            # With a very short window, some bands lie between two bins and have no weights.
            lowest, highest = (int(bins[0]), int(bins[-1])) if bins.size else (0, 0)
            self.reach.append((bands, slice(lowest, highest + 1)))

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, n_samples) -> (B, n_mels, frames)."""
        power = _power(waveform, self.window, self.spec.n_fft, self.spec.hop_length)
        parts = [self.mel[bands, bins] @ power[:, bins] for bands, bins in self.reach]
        return decibels(torch.cat(parts, dim=1))


def dct_basis(spec: MfccSpec) -> Tensor:
    """What log-mel maps ``(..., n_mels, frames)`` are multiplied by, ``(n_mfcc, n_mels)``."""
    from scipy.fft import dct  # slow to import

    basis = dct(np.eye(spec.n_mels), norm="ortho", axis=0)[: spec.n_features]
    return torch.from_numpy(basis).float()


class Mfcc(LogMel):
    """DCT-II (orthonormal) of the log-mel map, equal to librosa with the same arguments."""

    dct: Tensor

    def __init__(self, spec: MfccSpec) -> None:
        super().__init__(spec)
        self.register_buffer("dct", dct_basis(spec), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, n_samples) -> (B, n_mfcc, frames)."""
        return self.dct @ super().forward(waveform)


class Frames(nn.Module):
    """The samples themselves, one column for each frame."""

    def __init__(self, spec: WaveformSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, n_samples) -> (B, frame_length, frames)."""
        length, frames = self.spec.frame_length, self.spec.n_steps
        return waveform[:, : length * frames].reshape(-1, frames, length).transpose(1, 2)


def _delta_weights(order: int) -> NDArray[np.float64]:
    """Weights of 9 frames whose sum is the derivative.

    Least squares: the leading coefficient is that of t**order after projection on lower powers,
    and differentiating t**order gives the factorial of the order.
    """
    steps = np.arange(-_DELTA_REACH, _DELTA_REACH + 1.0)
    basis = steps if order == 1 else steps**2 - np.mean(steps**2)
    weights: NDArray[np.float64] = order * basis / (basis @ basis)
    return weights


def delta_deviation(order: int) -> float:
    """Standard deviation of the :func:`delta` of white noise of deviation 1."""
    return float(np.linalg.norm(_delta_weights(order)))


def delta(maps: Tensor, order: int) -> Tensor:
    """First or second derivative over time of the line or parabola fitted to 9 frames.

    Equal to ``librosa.feature.delta(maps, width=9, order=order, mode="nearest")``: the first and
    last frames are repeated beyond the ends.

    Parameters
    ----------
    maps : [shape=(B, C, F, T)]
    order : 1 or 2.

    Returns
    -------
    slopes, per frame or per squared frame [shape=(B, C, F, T)]
    """
    weights = _delta_weights(order).tolist()
    padded = F.pad(maps, (_DELTA_REACH, _DELTA_REACH, 0, 0), mode="replicate")
    slopes = torch.zeros_like(maps)
    for first, weight in enumerate(weights):
        slopes = slopes + weight * padded[..., first : first + maps.shape[-1]]
    return slopes


def fit_length(
    waveform: NDArray[np.float32],
    n_samples: int,
    length: Length = "pad",
    fill: float = 0.0,
) -> NDArray[np.float32]:
    """Cut or extend sound to ``n_samples`` [shape=(..., n) -> (..., n_samples)].

    Shorter sound is repeated if ``length`` is ``repeat``, and otherwise padded with ``fill`` at its
    end.
    """
    missing = max(0, n_samples - waveform.shape[-1])
    ends = [(0, 0)] * (waveform.ndim - 1) + [(0, missing)]
    if length == "repeat" and waveform.shape[-1] > 0:
        return np.pad(waveform[..., :n_samples], ends, mode="wrap")
    return np.pad(waveform[..., :n_samples], ends, constant_values=fill)


def mel_filterbank(
    sample_rate: int, n_fft: int, n_mels: int, fmin: float = 0.0, fmax: float | None = None
) -> NDArray[np.float64]:
    """Triangular bands equally spaced on Slaney's mel scale, each of unit area in Hz.

    Bands reach from ``fmin`` to ``fmax``, which is half of ``sample_rate`` by default; neighbours
    share edges and centres.

    Returns
    -------
    weights [shape=(n_mels, 1 + n_fft // 2)]
    """
    bins = np.fft.rfftfreq(n_fft, 1.0 / sample_rate)
    edges = mel_edges(n_mels, fmin, fmax or sample_rate / 2)
    lower, centre, upper = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (bins - lower) / (centre - lower)
    falling = (upper - bins) / (upper - centre)
    weights: NDArray[np.float64] = np.clip(np.minimum(rising, falling), 0.0, None)
    return weights * 2.0 / (upper - lower)


def mel_edges(n_mels: int, fmin: float, fmax: float) -> NDArray[np.float64]:
    """Edges of mel bands in Hz ``(n_mels + 2,)``: band k has its centre at edge k + 1."""
    return _mel_to_hz(np.linspace(_hz_to_mel(fmin), _hz_to_mel(fmax), n_mels + 2))


# Slaney's Auditory Toolbox (1998): linear to 1 kHz, then 27 mel for each factor of 6.4.
_HZ_PER_MEL = 200.0 / 3.0
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _HZ_PER_MEL
_LOG_STEP = math.log(6.4) / 27.0


def _hz_to_mel(hz: float) -> float:
    if hz < _BREAK_HZ:
        return hz / _HZ_PER_MEL
    return _BREAK_MEL + math.log(hz / _BREAK_HZ) / _LOG_STEP


def _mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    above = _BREAK_HZ * np.exp(_LOG_STEP * (mel - _BREAK_MEL))
    return np.where(mel < _BREAK_MEL, mel * _HZ_PER_MEL, above)
