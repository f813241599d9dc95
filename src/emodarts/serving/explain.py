"""Which time and which frequency an answer depends on, by occlusion (arXiv 1311.2901)."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from emodarts import files
from emodarts.audio.features import mel_edges
from emodarts.audio.io import load_audio
from emodarts.errors import AudioError
from emodarts.serving.model import Answer, Model

_BANDS = 8
_TILE = 0.25
"""Seconds of a tile, as long as the sound needs no more than so many:"""
_TILES = 40
_DECIBELS = 30.0
_BLOCK = 0.032
_LONGEST = 60.0


@dataclass(frozen=True)
class Explanation:
    """What happens to an answer when a part of the sound is taken away.

    Attributes
    ----------
    answer : to the whole sound.
    times : edges of the tiles in seconds ``(T + 1,)``.
    frequencies : their edges in Hz ``(F + 1,)``, equally spaced in mel.
    change : probability of the label without a tile, minus that with it ``(F, T)``; negative where
        the tile speaks for the label.
    samples, sample_rate : the sound at the rate of the model.
    """

    answer: Answer
    times: NDArray[np.float64]
    frequencies: NDArray[np.float64]
    change: NDArray[np.float64]
    samples: NDArray[np.float32]
    sample_rate: int


def explain(model: Model, path: Path) -> Explanation:
    """Take away tiles of time and frequency, one after the other, and ask the model each time.

    A tile is made 30 dB quieter in the short-time Fourier transform. The model is asked as for any
    sound, so that every system can be explained. Tiles are 0.25 s long, longer in longer sounds.

    Raises
    ------
    AudioError
        If the file cannot be used, has no speech, or is longer than a minute.
    """
    rate = max(spec.sample_rate for spec in model.bundle.inputs.values())
    samples = load_audio(path, rate)
    seconds = len(samples) / rate
    if seconds > _LONGEST:
        raise AudioError(f"{path} has {seconds:.0f} s; allowed: at most {_LONGEST:.0f} s")
    [answer] = model.predict(samples, sample_rate=rate)
    if not answer.label:
        raise AudioError(f"{path}: there is nothing to explain: {answer.note}")
    block = round(_BLOCK * rate)
    if 2 * len(samples) < block:
        raise AudioError(
            f"{path} has {1000 * seconds:.0f} ms; allowed: at least {500 * _BLOCK:.0f} ms"
        )
    transform = signal.ShortTimeFFT(
        signal.windows.hann(block, sym=False), block // 4, rate, scale_to="magnitude"
    )
    spectrum = transform.stft(samples)
    n_tiles = min(_TILES, max(1, math.ceil(seconds / _TILE)))
    times = np.linspace(0.0, seconds, n_tiles + 1)
    frequencies = mel_edges(_BANDS - 1, 0.0, rate / 2)
    when = np.searchsorted(times, transform.t(len(samples)), side="right") - 1
    band = np.searchsorted(frequencies, transform.f, side="right") - 1
    when, band = when.clip(0, n_tiles - 1), band.clip(0, _BANDS - 1)
    change = np.zeros((_BANDS, n_tiles))
    for f in range(_BANDS):
        for t in range(n_tiles):
            tile = np.outer(band == f, when == t)
            quieter = np.where(tile, 10 ** (-_DECIBELS / 20) * spectrum, spectrum)
            without = transform.istft(quieter, k1=len(samples)).astype(np.float32)
            [found] = model.predict(without, sample_rate=rate)
            if found.probabilities:
                change[f, t] = (
                    found.probabilities[answer.label] - answer.probabilities[answer.label]
                )
    return Explanation(replace(answer, file=str(path)), times, frequencies, change, samples, rate)


def write_picture(found: Explanation, path: Path) -> None:
    """Draw an explanation over the spectrogram as PNG.

    Raises
    ------
    WriteError
        If the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    block = round(_BLOCK * found.sample_rate)
    transform = signal.ShortTimeFFT(
        signal.windows.hann(block, sym=False), block // 4, found.sample_rate
    )
    power = transform.spectrogram(found.samples)
    level = 10 * np.log10(np.maximum(power, power.max() * 1e-8))
    times = transform.t(len(found.samples))
    axes.pcolormesh(times, transform.f / 1000, level, cmap="Greys", shading="nearest")
    # Red where the tile speaks for the label.
    reach = max(100 * float(np.abs(found.change).max()), 1e-4)
    image = axes.pcolormesh(
        found.times,
        found.frequencies / 1000,
        -100 * found.change,
        cmap="RdBu_r",
        vmin=-reach,
        vmax=reach,
        alpha=0.45,
    )
    axes.set_xlim(0, found.times[-1])
    axes.set_ylim(0, found.frequencies[-1] / 1000)
    axes.set_xlabel("s")
    axes.set_ylabel("kHz")
    share = found.answer.probabilities[found.answer.label]
    axes.set_title(f"{found.answer.label}, {100 * share:.0f} %", parse_math=False)
    bar = figure.colorbar(image, ax=axes)
    bar.set_label(
        f"fall of the probability if a part is\n{_DECIBELS:.0f} dB quieter (percentage points)"
    )
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120, metadata={"Software": None})
    files.write_bytes(path, picture.getvalue())
