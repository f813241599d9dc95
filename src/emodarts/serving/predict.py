"""What a model hears in a file: one answer a file, or one for each window of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from emodarts.audio.features import FeatureExtractor, fit_length
from emodarts.audio.io import load_audio
from emodarts.audio.pieces import piece_starts
from emodarts.bundle import Bundle, load_bundle
from emodarts.corpora.folder import AUDIO_SUFFIXES
from emodarts.errors import AudioError, BundleError, EmodartsError

_BATCH = 32
#: Seconds; answers closer than this would have the same times in print.
_SHORTEST_HOP = 0.01
#: Share of a hop below which a window would only repeat the last one.
_SLACK = 1e-6


@dataclass(frozen=True)
class Answer:
    """Emotion of a stretch of a file.

    Attributes
    ----------
    start, end : seconds.
    label : the most probable class.
    probabilities : by class, in the model's class order; they sum to 1.
    """

    file: str
    start: float
    end: float
    label: str
    probabilities: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "file": self.file,
            "start": self.start,
            "end": self.end,
            "label": self.label,
            "probabilities": self.probabilities,
        }


class Model:
    """A trained model that hears audio files of any format, rate and length.

    Examples
    --------
    >>> model = Model.load("runs/x/fold-0/seed-0/model")  # doctest: +SKIP
    >>> model.predict("a.wav")[0].label  # doctest: +SKIP
    'anger'
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._extractor = FeatureExtractor(bundle.features)
        if self._extractor.fingerprint != bundle.fingerprint:
            raise BundleError(
                f"the model was trained on {bundle.features.kind} features of "
                f"{bundle.fingerprint or 'nothing else'}; what makes them here is "
                f"{self._extractor.fingerprint or 'nothing else'}"
            )

    @classmethod
    def load(cls, folder: str | Path) -> Model:
        """Load a bundle. Raises :class:`BundleError`."""
        return cls(load_bundle(Path(folder)))

    @property
    def classes(self) -> tuple[str, ...]:
        """Labels in the order of the probabilities."""
        return self.bundle.classes

    def predict(
        self,
        path: str | Path,
        window: float | None = None,
        hop: float | None = None,
        *,
        start: float = 0.0,
        end: float | None = None,
    ) -> list[Answer]:
        """Answer for a whole file or a stretch of it, or for each window of that.

        A stretch longer than the model's input is heard in pieces of that length, half
        overlapping, and their probabilities are averaged.

        Parameters
        ----------
        window : seconds; None hears the whole file at once.
        hop : seconds between the starts of windows; default: ``window``.
        start, end : of the stretch in seconds; ``end`` None is the end of the file.

        Raises
        ------
        AudioError
            If the file cannot be read, has no such stretch or holds no sound.
        EmodartsError
            If ``window`` or ``hop`` is not positive, or ``hop`` comes without ``window``.
        """
        check_windows(window, hop)
        rate = self.bundle.features.sample_rate
        waveform = load_audio(Path(path), rate, start, end)
        duration = len(waveform) / rate
        answers = []
        for first, last in windows(duration, window, hop):
            stretch = waveform[round(first * rate) : round(last * rate)]
            probabilities = self.probabilities(stretch)
            label = self.classes[int(np.argmax(probabilities))]
            by_class = dict(zip(self.classes, probabilities.tolist(), strict=True))
            times = round(start + first, 3), round(start + last, 3)
            answers.append(Answer(str(path), *times, label, by_class))
        return answers

    def probabilities(self, waveform: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probabilities ``(n_classes,)`` of samples ``(n,)`` at the model's sample rate."""
        spec = self.bundle.features
        pieces = [
            fit_length(waveform[start:], spec.n_samples, spec.length)
            for start in piece_starts(len(waveform), spec.n_samples)
        ]
        outputs = []
        with torch.inference_mode():
            for first in range(0, len(pieces), _BATCH):
                batch = torch.from_numpy(np.stack(pieces[first : first + _BATCH]))
                outputs.append(self.bundle.probabilities(self._extractor(batch)).double())
        mean: NDArray[np.float64] = torch.cat(outputs).mean(dim=0).numpy()
        return mean


def check_windows(window: float | None, hop: float | None) -> None:
    """Raise :class:`EmodartsError` for windows that cannot be."""
    for name, value in (("window", window), ("hop", hop)):
        if value is not None and not (np.isfinite(value) and value > 0):
            raise EmodartsError(f"{name} is {value} s; legal: more than 0")
    if hop is not None and hop < _SHORTEST_HOP:
        raise EmodartsError(f"hop is {hop} s; legal: at least {_SHORTEST_HOP} s")
    if hop is not None and window is None:
        raise EmodartsError("hop is given without window; legal: --window 8 --hop 4")


def windows(
    duration: float, window: float | None, hop: float | None
) -> Iterator[tuple[float, float]]:
    """Start and end in seconds of each window.

    Windows begin at 0 and advance by the hop; the last one ends with the sound and, where the hop
    does not lead there, begins as much earlier as it needs to be whole.
    """
    if window is None or window >= duration:
        yield 0.0, duration
        return
    step, last = hop or window, duration - window
    for index in range(math.ceil(last / step - _SLACK)):
        yield index * step, index * step + window
    yield last, duration


def find_audio(path: Path) -> list[Path]:
    """A file as it is given, or the audio files in and below a folder, sorted.

    Raises
    ------
    AudioError
        If a folder holds no audio file.
    """
    if not path.is_dir():
        return [path]
    inside = sorted(
        p for p in path.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES and p.is_file()
    )
    if not inside:
        raise AudioError(f"{path} holds no audio file; legal: {', '.join(AUDIO_SUFFIXES)}")
    return inside
