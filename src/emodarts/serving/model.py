"""A trained model that classifies files, arrays and streams."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import tee
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emodarts.audio.features import FeatureExtractor
from emodarts.audio.io import (
    CANCELLING,
    Mixdown,
    Recording,
    Samples,
    frame_range,
    open_recording,
    too_short,
)
from emodarts.audio.speech import SILENT, lacks_speech
from emodarts.bundle import Bundle, load_bundle
from emodarts.corpora.folder import AUDIO_SUFFIXES, walk_files, why_unread
from emodarts.errors import AudioError, BundleError, EmodartsError, list_skipped, shown
from emodarts.serving.shipped import find_model
from emodarts.serving.windows import LONGEST, check_windows, cut, loses, pieces, resample

Audio = NDArray[np.floating[Any]]
"""Samples ``(n,)`` or ``(n, channels)``, full scale 1."""

UNCERTAIN = "uncertain"
"""Label of an answer that is less confident than was asked for."""

_BATCH = 32


@dataclass(frozen=True)
class Answer:
    """Emotion of a file or a segment of audio.

    Attributes
    ----------
    file : path; ``""`` for samples that come from no file.
    start, end : seconds.
    label : the most probable class, or ``uncertain``; ``""`` where there is no sound, or none like
        speech.
    probabilities : by class, in the model's class order; they sum to 1. Empty without a label.
    note : why there is no label, or what is wrong with the file; else ``""``.
    """

    file: str
    start: float
    end: float
    label: str
    probabilities: dict[str, float]
    note: str = ""

    def or_uncertain(self, least: float) -> Answer:
        """The same, with the label ``uncertain`` if no class has at least this probability."""
        if self.probabilities and max(self.probabilities.values()) < least:
            return replace(self, label=UNCERTAIN)
        return self

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


class Segment(NamedTuple):
    """A file, or a part of it in seconds."""

    file: Path
    start: float = 0.0
    end: float | None = None


class Model:
    """A trained model that classifies audio of any format, sample rate and length.

    The rule for audio that is longer than the model's input is that of the model's test scores. By
    default it is classified in pieces that overlap by half, without silent ones, and their
    probabilities are averaged. A model of a recipe that cuts takes the beginning, and the answer
    has a note. Files are read in blocks, so that memory does not grow with their length.

    Examples
    --------
    With the folder of a trained model:

    >>> model = Model.load("runs/x/fold-0/seed-0/model")  # doctest: +SKIP
    >>> model.predict("a.wav")[0].label  # doctest: +SKIP
    'anger'
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._cuts = any(spec.length != "segments" for spec in bundle.inputs.values())
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
    def load(cls, name: str | Path) -> Model:
        """Load a model: its folder, the name of a shipped one, or ``hub:USER/NAME``.

        Raises :class:`BundleError`.
        """
        return cls(load_bundle(find_model(name)))

    @property
    def classes(self) -> tuple[str, ...]:
        """Labels in the order of the probabilities."""
        return self.bundle.classes

    def predict(
        self,
        source: str | Path | Recording | Audio,
        window: float | None = None,
        hop: float | None = None,
        *,
        sample_rate: int | None = None,
        start: float = 0.0,
        end: float | None = None,
        abstain: float = 0.0,
    ) -> list[Answer]:
        """Classify a file or an array, or a segment of it, as a whole or window by window.

        Parameters
        ----------
        source : an audio file, open or not, or samples of shape ``(n,)`` or ``(n, channels)``, full
            scale 1.
        window : seconds; None takes the whole segment at once.
        hop : seconds between the starts of windows; by default ``window``.
        sample_rate : Hz, of an array; a file has its own.
        start, end : of the segment in seconds; ``end`` None is the end of the audio.
        abstain : answers whose highest probability is lower have the label ``uncertain``.

        Raises
        ------
        AudioError
            If the audio cannot be used or has no such segment.
        EmodartsError
            If ``window`` or ``hop`` is too short, ``hop`` comes without ``window``, or
            ``sample_rate`` is missing or not wanted.
        """
        check_windows(window, hop)
        if isinstance(source, str | Path):
            if sample_rate is not None:
                raise EmodartsError(f"{source}: a file has its own rate; give no sample_rate")
            with open_recording(source) as sound:
                found = self.predict(sound, window, hop, start=start, end=end, abstain=abstain)
            return [replace(answer, file=str(source)) for answer in found]
        if isinstance(source, Recording):
            rate, mixdown = source.sample_rate, source.mixdown
            blocks = source.blocks(start, end)
            answers = [
                replace(a, file=source.name, note="; ".join(filter(None, (a.note, source.note))))
                for a in self._answers(blocks, rate, window, hop, mixdown, start)
            ]
        else:
            rate, mixdown = _checked_rate(sample_rate), Mixdown("the array")
            first, last = frame_range(len(source), rate, "the array", start, end)
            mono = mixdown(source[first:last])
            answers = list(self._answers([mono], rate, window, hop, mixdown, start))
        if not answers:
            raise too_short(mixdown.name, mixdown.n_samples, rate)
        return [answer.or_uncertain(abstain) for answer in answers]

    def predict_many(
        self,
        sources: Iterable[str | Path | Segment],
        window: float | None = None,
        hop: float | None = None,
        *,
        abstain: float = 0.0,
        jobs: int = 1,
    ) -> Iterator[list[Answer] | EmodartsError]:
        """Classify many files, several at a time, in their order.

        Parameters
        ----------
        sources : files, or segments of them.
        jobs : threads; as many files are open at a time.
        window, hop, abstain : see :meth:`predict`.

        Yields
        ------
        The answers of each file, or why it has none.
        """

        def classify(source: str | Path | Segment) -> list[Answer] | EmodartsError:
            file, start, end = source if isinstance(source, Segment) else Segment(Path(source))
            try:
                return self.predict(file, window, hop, start=start, end=end, abstain=abstain)
            except EmodartsError as error:
                return error

        if jobs == 1:
            yield from map(classify, sources)
            return
        with ThreadPoolExecutor(jobs) as pool:
            waiting: deque[Future[list[Answer] | EmodartsError]] = deque()
            for source in sources:
                waiting.append(pool.submit(classify, source))
                if len(waiting) >= 2 * jobs:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

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
        mixdown = Mixdown("the stream")
        return self._answers(map(mixdown, chunks), _checked_rate(sample_rate), window, hop, mixdown)

    def _answers(
        self,
        chunks: Iterable[Samples],
        source_rate: int,
        window: float | None,
        hop: float | None,
        mixdown: Mixdown,
        offset: float = 0.0,
    ) -> Iterator[Answer]:
        """Answers for the mono samples of a mixdown, which come in chunks.

        ``offset`` seconds are before the first.
        """
        parts = self._parts(chunks, source_rate, window or LONGEST, hop, mixdown)
        for group in ([part] for part in parts) if window else filter(None, [list(parts)]):
            speech = [part.probabilities for part in group if part.probabilities is not None]
            if self._cuts:
                speech = speech[:1]
            found = self.bundle.joined(torch.cat(speech)).tolist() if speech else []
            yield Answer(
                file="",
                start=round(offset + group[0].start, 3),
                end=round(offset + group[-1].end, 3),
                label=self.classes[int(np.argmax(found))] if found else "",
                probabilities=dict(zip(self.classes, found, strict=True)) if found else {},
                note=group[0].note if not found or self._cuts else "",
            )

    def _parts(
        self,
        chunks: Iterable[Samples],
        source_rate: int,
        window: float,
        hop: float | None,
        mixdown: Mixdown,
    ) -> Iterator[_Part]:
        """Every window, as soon as its samples have come."""
        rates = sorted({spec.sample_rate for spec in self.bundle.inputs.values()})
        # A tee, even of one, holds the last 57 chunks.
        copies = [chunks] if len(rates) == 1 else tee(chunks, len(rates))
        windows = [
            cut(resample(copy, source_rate, rate), rate, window, hop)
            for copy, rate in zip(copies, rates, strict=True)
        ]
        for found in zip(*windows, strict=False):  # rounding may give a rate one window more
            samples = {rate: part for rate, (_, part) in zip(rates, found, strict=True)}
            first, part = found[0]
            note = lacks_speech(part, rates[0])
            if note == SILENT and mixdown.cancelled:
                note = f"{note}: {CANCELLING}"
            probabilities = None if note else self._probabilities(samples)
            for spec in self.bundle.inputs.values():
                if not note and loses(samples[spec.sample_rate], spec):
                    note = f"only the first {spec.duration:g} s count (features.length)"
            end = first + len(part)
            yield _Part(first / rates[0], end / rates[0], probabilities, note)

    def _probabilities(self, samples: Mapping[int, Samples]) -> Tensor:
        """Probabilities ``(pieces, K)`` of a segment, given by sample rate."""
        parts = [pieces(samples[s.sample_rate], s) for s in self.bundle.inputs.values()]
        outputs = []
        with torch.inference_mode():
            for first in range(0, min(map(len, parts)), _BATCH):
                batch = {
                    name: extract(torch.from_numpy(np.stack(some[first : first + _BATCH])))
                    for (name, extract), some in zip(self._extractors.items(), parts, strict=True)
                }
                outputs.append(self.bundle.probabilities(batch).double())
        return torch.cat(outputs)


class _Part(NamedTuple):
    """A window in seconds, the probabilities ``(pieces, K)`` of its pieces, if any, and a note."""

    start: float
    end: float
    probabilities: Tensor | None
    note: str


def _checked_rate(sample_rate: int | None) -> int:
    if sample_rate is None or sample_rate < 1:
        raise EmodartsError(f"sample_rate of the array is {sample_rate}; allowed: Hz, at least 1")
    return sample_rate


def find_audio(path: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """A file as it is given, or the audio files in and below a folder.

    Returns
    -------
    the files, sorted, and those that hold sound and are left out: ``(path, reason)``.

    Raises
    ------
    EmodartsError
        If a folder holds no audio file that can be read, or cannot be listed.
    """
    try:
        if not path.is_dir():
            return [path], []
    except OSError:  # reading it says what is wrong
        return [path], []
    found, skipped = [], []
    for file in sorted(walk_files(path)):
        if reason := why_unread(file):
            skipped.append((file, reason))
        elif file.suffix.lower() in AUDIO_SUFFIXES:
            found.append(file)
    if not found:
        raise AudioError(
            f"{shown(path)} holds no audio file that can be read; allowed: "
            f"{', '.join(AUDIO_SUFFIXES)}{list_skipped(skipped)}"
        )
    return found, skipped
