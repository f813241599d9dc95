"""A trained model that classifies files, arrays and streams."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import tee
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from emodarts.audio.features import FeatureExtractor
from emodarts.audio.io import cut_samples, decode_samples, read_audio_bytes, to_mono, too_short
from emodarts.bundle import Bundle, load_bundle
from emodarts.corpora.folder import AUDIO_SUFFIXES
from emodarts.errors import AudioError, BundleError, EmodartsError
from emodarts.serving.windows import Samples, check_windows, cut, pieces, resample

Audio = NDArray[np.floating[Any]]
"""Samples ``(n,)`` or ``(n, channels)``, full scale 1."""

_BATCH = 32


@dataclass(frozen=True)
class Answer:
    """Emotion of a file or a segment of audio.

    Attributes
    ----------
    file : path; ``""`` for samples that come from no file.
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
        return asdict(self)


class Model:
    """A trained model that classifies audio of any format, sample rate and length.

    Audio that is longer than the model's input is classified in pieces of that length, which
    overlap by half, and the probabilities of the pieces are averaged.

    Examples
    --------
    With the folder of a trained model:

    >>> model = Model.load("runs/x/fold-0/seed-0/model")  # doctest: +SKIP
    >>> model.predict("a.wav")[0].label  # doctest: +SKIP
    'anger'
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._extractors = {name: FeatureExtractor(s) for name, s in bundle.inputs.items()}
        for name, extractor in self._extractors.items():
            trained = bundle.fingerprints.get(name, "")
            if extractor.fingerprint != trained:
                raise BundleError(
                    f"the model was trained on {extractor.spec.kind} features of "
                    f"{trained or 'nothing else'}; what makes them here is "
                    f"{extractor.fingerprint or 'nothing else'}"
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
        source: str | Path | Audio,
        window: float | None = None,
        hop: float | None = None,
        *,
        sample_rate: int | None = None,
        start: float = 0.0,
        end: float | None = None,
    ) -> list[Answer]:
        """Classify a file or an array, or a segment of it, as a whole or window by window.

        Parameters
        ----------
        source : an audio file, or samples of shape ``(n,)`` or ``(n, channels)``, full scale 1.
        window : seconds; None takes the whole segment at once.
        hop : seconds between the starts of windows; by default ``window``.
        sample_rate : Hz, of an array; a file has its own.
        start, end : of the segment in seconds; ``end`` None is the end of the audio.

        Raises
        ------
        AudioError
            If the audio cannot be used, has no such segment or is silent.
        EmodartsError
            If ``window`` or ``hop`` is too short, ``hop`` comes without ``window``, or
            ``sample_rate`` is missing or not wanted.
        """
        check_windows(window, hop)
        if isinstance(source, str | Path):
            if sample_rate is not None:
                raise EmodartsError(f"{source}: a file has its own rate; give no sample_rate")
            samples, rate = decode_samples(read_audio_bytes(source), source, start, end)
            file = str(source)
        else:
            rate, file = _checked_rate(sample_rate), ""
            samples = cut_samples(source, rate, "the array", start, end)
        answers = list(self._answers([samples], rate, window, hop, file, start))
        if not answers:
            raise too_short(file or "the array", len(samples), rate)
        return answers

    def stream(
        self, chunks: Iterable[Audio], sample_rate: int, window: float, hop: float | None = None
    ) -> Iterator[Answer]:
        """Classify audio while it comes in: the answers of :meth:`predict` for all of it.

        Each is given as soon as its window is complete. No more than the samples of one window and
        of the last chunk are held.

        Parameters
        ----------
        chunks : samples of shape ``(n,)`` or ``(n, channels)``, each chunk of any length.
        sample_rate : Hz.
        window, hop : seconds; see :meth:`predict`.

        Raises
        ------
        AudioError
            While iterating, if a chunk has a wrong shape or a sample that is not finite.
        EmodartsError
            If ``window``, ``hop`` or ``sample_rate`` is not possible.
        """
        check_windows(window, hop)
        mono = (to_mono(chunk, "the stream") for chunk in chunks)
        return self._answers(mono, _checked_rate(sample_rate), window, hop)

    def _answers(
        self,
        chunks: Iterable[Samples],
        source_rate: int,
        window: float | None,
        hop: float | None,
        file: str = "",
        offset: float = 0.0,
    ) -> Iterator[Answer]:
        """Answers for mono samples that come in chunks; ``offset`` seconds are before the first."""
        rates = sorted({spec.sample_rate for spec in self.bundle.inputs.values()})
        windows = [
            cut(resample(copy, source_rate, rate), rate, window, hop)
            for copy, rate in zip(tee(chunks, len(rates)), rates, strict=True)
        ]
        for parts in zip(*windows, strict=False):  # rounding may give a rate one window more
            samples = {rate: part for rate, (_, part) in zip(rates, parts, strict=True)}
            probabilities = self._probabilities(samples)
            first, part = parts[0]
            yield Answer(
                file,
                start=round(offset + first / rates[0], 3),
                end=round(offset + (first + len(part)) / rates[0], 3),
                label=self.classes[int(np.argmax(probabilities))],
                probabilities=dict(zip(self.classes, probabilities.tolist(), strict=True)),
            )

    def _probabilities(self, samples: Mapping[int, Samples]) -> NDArray[np.float64]:
        """Probabilities ``(K,)`` of a segment, given by sample rate: the mean over its pieces."""
        specs = self.bundle.inputs
        stacks = {name: np.stack(pieces(samples[s.sample_rate], s)) for name, s in specs.items()}
        outputs = []
        with torch.inference_mode():
            for first in range(0, min(map(len, stacks.values())), _BATCH):
                batch = {
                    name: extract(torch.from_numpy(stacks[name][first : first + _BATCH]))
                    for name, extract in self._extractors.items()
                }
                outputs.append(self.bundle.probabilities(batch).double())
        mean: NDArray[np.float64] = torch.cat(outputs).mean(dim=0).numpy()
        return mean


def _checked_rate(sample_rate: int | None) -> int:
    if sample_rate is None or sample_rate < 1:
        raise EmodartsError(f"sample_rate of the array is {sample_rate}; allowed: Hz, at least 1")
    return sample_rate


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
        raise AudioError(f"{path} holds no audio file; allowed: {', '.join(AUDIO_SUFFIXES)}")
    return inside
