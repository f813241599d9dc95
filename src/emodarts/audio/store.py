"""The feature store: features on disk, keyed by content, stretch, spec, code, device and variant.

:func:`fill` computes what is missing and holds no more than a few batches in memory, however
large the corpus; :func:`extract` does the same and returns the features. :func:`read` returns
stored features and needs no audio.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emodarts import files
from emodarts.audio.contents import Contents, FileState, file_key, state_of
from emodarts.audio.duplicates import SoundDigest
from emodarts.audio.entries import Entries, Entry
from emodarts.audio.features import FeatureExtractor, fit_length
from emodarts.audio.io import load_audio, open_audio
from emodarts.audio.mapped import mapped_features
from emodarts.audio.pieces import prepare, split
from emodarts.corpora.utterance import Utterance
from emodarts.errors import AudioError, ShapeError, list_lines, name_once, shown
from emodarts.recipe.features import FeatureSpec
from emodarts.runtime import derive_seed

_NAMED = 100


@dataclass(frozen=True)
class Variant:
    """An augmentation of the waveform, e.g. added noise, whose features are stored too.

    Attributes
    ----------
    key : JSON values; together with the seed they determine what ``apply`` does.
    apply : from a piece (n,) float32, its rate in Hz and a seed to the altered piece, of any
        length. The seed depends on content, stretch, piece and ``key`` alone. Called from several
        threads at once.
    """

    key: Mapping[str, object]
    apply: Callable[[NDArray[np.float32], int, int], NDArray[np.float32]]

    @property
    def digest(self) -> str:
        """SHA-256 of ``key``."""
        return files.digest_of(dict(self.key))


@dataclass(frozen=True)
class Filled:
    """Result of :func:`fill`.

    Attributes
    ----------
    contents : SHA-256 of each utterance's whole audio file, or None if it is unusable.
    sounds : :class:`~emodarts.audio.duplicates.SoundDigest` of each utterance, or None.
    fingerprint : as in :class:`FeatureSet`.
    bad : the unusable utterances: ``(name, reason)``.
    """

    contents: tuple[str | None, ...]
    sounds: tuple[str | None, ...]
    fingerprint: str
    bad: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Features of the usable utterances, in the order asked for.

    Attributes
    ----------
    utterances : those whose audio is usable.
    features : float32, one row per piece; each utterance has one piece unless ``spec.length`` is
        segments, then its pieces are in order of time [shape=(M, C, n_features, n_frames)]
    owners : index into ``utterances`` of each piece, ascending [shape=(M,)]
    contents : SHA-256 of each utterance's whole audio file.
    fingerprint : identifies what the features depend on besides spec and code, e.g. a checkpoint.
    bad : the unusable utterances: ``(name, reason)``.
    """

    utterances: tuple[Utterance, ...]
    features: Tensor
    owners: Tensor
    contents: tuple[str, ...]
    fingerprint: str
    bad: tuple[tuple[str, str], ...] = ()


def fill(
    utterances: Sequence[Utterance],
    spec: FeatureSpec,
    folder: Path,
    *,
    skip_bad: bool = False,
    on_done: Callable[[], None] | None = None,
    device: torch.device | str = "cpu",
    variant: Variant | None = None,
) -> Filled:
    """Compute and store the features that are missing from the store or damaged.

    Memory holds only the batches in progress. A fill that was killed continues where it stopped,
    and several processes may fill a store at once. Parameters and errors are those of
    :func:`extract`.
    """
    store = _Store(spec, folder, torch.device(device), variant)
    contents, sounds, faults = _serve(store, utterances, on_done)
    _refuse(utterances, faults, skip_bad)
    return Filled(
        tuple(None if row in faults else content for row, content in enumerate(contents)),
        tuple(None if row in faults else sound for row, sound in enumerate(sounds)),
        store.extractor.fingerprint,
        _name(utterances, faults),
    )


def extract(
    utterances: Sequence[Utterance],
    spec: FeatureSpec,
    folder: Path,
    *,
    skip_bad: bool = False,
    on_done: Callable[[], None] | None = None,
    device: torch.device | str = "cpu",
    variant: Variant | None = None,
) -> FeatureSet:
    """Return features of utterances from the store; compute and store those that are missing.

    An utterance's features are bitwise the same whatever is extracted with it and however
    many workers there are. On a CPU each worker computes one piece at a time on a single torch
    thread; on another device all batches have the same size. As the last bits differ between
    kinds of device, each kind has entries of its own.

    Parameters
    ----------
    folder : of the store; made if absent. Several processes may fill it at once.
    skip_bad : leave unusable audio out instead of raising.
    on_done : called once for each utterance, usable or not, in the calling thread.
    device : computes the features.
    variant : alters the sound before its features are computed.

    Raises
    ------
    AudioError
        Naming all unusable audio together; with ``skip_bad`` only if none is usable.
    WriteError
        If the store cannot be written.
    """
    store = _Store(spec, folder, torch.device(device), variant)
    gathered = _Gathered(len(utterances), store.entries.shape)
    contents, _, faults = _serve(store, utterances, on_done, gathered.add)
    _refuse(utterances, faults, skip_bad)
    good = [row for row in range(len(utterances)) if row not in faults]
    features, rows = gathered.in_order()
    return FeatureSet(
        utterances=tuple(utterances[row] for row in good),
        features=torch.from_numpy(features),
        owners=torch.from_numpy(np.searchsorted(good, rows)),
        contents=tuple(contents[row] for row in good),
        fingerprint=store.extractor.fingerprint,
        bad=_name(utterances, faults),
    )


def read(
    utterances: Sequence[Utterance],
    contents: Sequence[str],
    fingerprint: str,
    spec: FeatureSpec,
    folder: Path,
    *,
    device: torch.device | str = "cpu",
    variant: Variant | None = None,
    mapped: bool = False,
) -> FeatureSet:
    """Return stored features, bitwise those of :func:`extract`; reads no audio and no weights.

    Parameters
    ----------
    utterances : their paths are not used.
    contents, fingerprint : from the :class:`FeatureSet` or :class:`Filled` of an earlier call.
    spec, folder, device, variant : those of the earlier call.
    mapped : leave them on the disk, as :func:`emodarts.audio.mapped.mapped_features` does.

    Raises
    ------
    AudioError
        Naming all utterances whose features are missing from the store or damaged.
    """
    entries = _entries(spec, fingerprint, folder, torch.device(device), variant)
    stored = _stored(entries, utterances, contents)
    if mapped:
        names = [entries.path(c, u).stem for c, u in zip(contents, utterances, strict=True)]
        tensor, owners = mapped_features(folder, names, entries.shape, stored)
    else:
        gathered = _Gathered(len(utterances), entries.shape)
        for row, features in enumerate(stored):
            gathered.add(row, features)
        tensor, owners = map(torch.from_numpy, gathered.in_order())
    return FeatureSet(
        utterances=tuple(utterances),
        features=tensor,
        owners=owners,
        contents=tuple(contents),
        fingerprint=fingerprint,
    )


def stored_bytes(
    utterances: Sequence[Utterance],
    contents: Sequence[str],
    fingerprint: str,
    spec: FeatureSpec,
    folder: Path,
    device: torch.device,
) -> int:
    """What the features of :func:`read` take, in bytes, without those that are missing."""
    entries = _entries(spec, fingerprint, folder, device, None)
    total = 0
    for utterance, content in zip(utterances, contents, strict=True):
        with suppress(OSError):
            total += entries.path(content, utterance).stat().st_size
    return total


def _stored(
    entries: Entries, utterances: Sequence[Utterance], contents: Sequence[str]
) -> Iterator[NDArray[np.float32]]:
    """Pieces (k, C, F, T) of each utterance; in the end :class:`AudioError` if some are lost."""
    lost = []
    for utterance, content in zip(utterances, contents, strict=True):
        stored = entries.read(content, utterance)
        if stored is None:
            path = entries.path(content, utterance)
            lost.append(f"{utterance.name}: {path} is {'damaged' if path.exists() else 'missing'}")
        else:
            yield stored.features
    if lost:
        raise AudioError(
            f"the feature store {entries.folder} lacks {len(lost)} of {len(utterances)} "
            "utterances; run the command that computed them again, with the same cache folder:"
            + list_lines(lost, _NAMED)
        )


def _entries(
    spec: FeatureSpec, fingerprint: str, folder: Path, device: torch.device, variant: Variant | None
) -> Entries:
    return Entries(folder, spec, fingerprint, device.type, variant.digest if variant else "")


class _Sound:
    """An audio file, whose SHA-256 is taken once for all its stretches, when first needed."""

    def __init__(self, path: Path, contents: Contents) -> None:
        self.path = path
        self._contents = contents
        self._lock = threading.Lock()
        self._recalled: str | None = None
        self._read: tuple[FileState, str] | None = None

    def content(self) -> str:
        """SHA-256 of the file. Raises :class:`AudioError`."""
        with self._lock:
            if self._read is None and self._recalled is None:
                self._recalled = self._contents.recall(self.path)
            return self._recalled or self._take()[1]

    @contextmanager
    def unchanged(self) -> Iterator[str]:
        """SHA-256 of the file that is decoded meanwhile.

        Raises :class:`AudioError` if the file cannot be read, or was changed.
        """
        with self._lock:
            state, content = self._take()
        yield content
        if state_of(self.path) != state:
            raise AudioError(f"{shown(self.path)}: was changed while it was read; start again")

    def _take(self) -> tuple[FileState, str]:
        if self._read is None:
            key = file_key(self.path)
            with open_audio(self.path) as file:
                state = state_of(file.fileno())
                content = hashlib.file_digest(file, "sha256").hexdigest()
            self._contents.remember(self.path, key, content)
            self._read = state, content
        return self._read


class _Task(NamedTuple):
    row: int
    utterance: Utterance
    sound: _Sound


class _Missing(NamedTuple):
    """An utterance whose features must be computed."""

    task: _Task
    content: str
    sound: str
    pieces: list[NDArray[np.float32]]


class _Done(NamedTuple):
    """Features (k, C, F, T) of an utterance's pieces, or why there are none."""

    row: int
    content: str = ""
    sound: str = ""
    features: NDArray[np.float32] | None = None
    fault: str = ""


class _Store:
    """Looks up the features of utterances, or computes and stores them."""

    def __init__(
        self, spec: FeatureSpec, folder: Path, device: torch.device, variant: Variant | None
    ) -> None:
        self.spec = spec
        self.device = device
        self.variant = variant
        self.contents = Contents(folder / "contents")
        self.extractor = FeatureExtractor(spec).eval().to(device)
        self.entries = _entries(spec, self.extractor.fingerprint, folder, device, variant)
        self.batch = batch_size(device)
        # One batch at a time bounds the memory that an accelerator needs.
        self._turn = nullcontext() if device.type == "cpu" else threading.Lock()

    def serve(self, tasks: Sequence[_Task]) -> list[_Done]:
        """Features of some utterances; missing ones are computed in common batches."""
        done: list[_Done] = []
        missing: list[_Missing] = []
        for task in tasks:
            try:
                content = task.sound.content()
                stored = self.entries.read(content, task.utterance)
                if stored is None:
                    missing.append(self._decode(task))
                else:
                    done.append(_Done(task.row, content, stored.sound, stored.features))
            except AudioError as error:
                done.append(_Done(task.row, fault=str(error)))
        computed = self._compute(missing)
        for one, features in zip(missing, computed, strict=True):
            self.entries.write(one.content, one.task.utterance, Entry(features, one.sound))
            done.append(_Done(one.task.row, one.content, one.sound, features))
        return done

    def _decode(self, task: _Task) -> _Missing:
        path, start, end = task.utterance.path, task.utterance.start, task.utterance.end
        sound = SoundDigest()
        # The file may have changed since the lookup; the key is that of the decoded bytes.
        with task.sound.unchanged() as content:
            waveform = load_audio(path, self.spec.sample_rate, start, end, sound.add)
        pieces = split(prepare(waveform, self.spec), self.spec)
        return _Missing(task, content, sound.hexdigest(), pieces)

    def _compute(self, missing: Sequence[_Missing]) -> Iterator[NDArray[np.float32]]:
        """Features of each utterance [shape=(k, C, n_features, n_frames)]."""
        rows = (self._fitted(one, k) for one in missing for k in range(len(one.pieces)))
        passed: list[NDArray[np.float32]] = []
        while some := list(islice(rows, self.batch)):
            batch = np.zeros((self.batch, self.spec.n_samples), np.float32)
            for row, piece in zip(batch, some, strict=False):
                row[:] = piece
            passed.extend(self._forward(batch)[: len(some)])
        place = iter(passed)
        return (np.stack([next(place) for _ in one.pieces]) for one in missing)

    def _fitted(self, missing: _Missing, index: int) -> NDArray[np.float32]:
        """A piece, altered by the variant if there is one, of the input's length (n_samples,)."""
        piece = missing.pieces[index]
        if self.variant is not None:
            utterance = missing.task.utterance
            where = (missing.content, repr((utterance.start, utterance.end)), index)
            seed = derive_seed(*where, self.variant.digest)
            piece = self.variant.apply(piece, self.spec.sample_rate, seed)
            wrong = np.count_nonzero(~np.isfinite(piece))
            if piece.dtype != np.float32 or piece.ndim != 1 or piece.size == 0 or wrong:
                raise ShapeError(
                    f"utterance {utterance.name!r}, variant {dict(self.variant.key)}: returned "
                    f"samples of shape {piece.shape} and type {piece.dtype}, {wrong} of them not "
                    "finite; allowed: finite float32 (n,), n at least 1"
                )
        return fit_length(piece, self.spec.n_samples, self.spec.length, self.spec.fill)

    def _forward(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, n_samples) -> (B, C, n_features, n_frames)."""
        with self._turn, torch.inference_mode():
            result: NDArray[np.float32] = (
                self.extractor(torch.from_numpy(batch).to(self.device)).cpu().numpy()
            )
        return result


def batch_size(device: torch.device) -> int:
    """Pieces in every forward pass.

    The number is fixed because it may decide which kernel runs and with it the last bits. On a
    CPU a single piece stays in the caches and is at least as fast as a batch.
    """
    return 1 if device.type == "cpu" else 32


class _Gathered:
    """Features of pieces in one array, kept in order of arrival."""

    def __init__(self, expected: int, shape: tuple[int, ...]) -> None:
        # Memory that is never written is never allocated, so too large an array costs nothing.
        self._features = np.empty((expected, *shape), np.float32)
        self._rows: list[int] = []

    def add(self, row: int, features: NDArray[np.float32]) -> None:
        """Add the pieces (k, C, F, T) of the utterance at ``row``."""
        first, last = len(self._rows), len(self._rows) + len(features)
        if last > len(self._features):
            larger = np.empty((2 * last, *features.shape[1:]), np.float32)
            larger[:first] = self._features[:first]
            self._features = larger
        self._features[first:last] = features
        self._rows.extend([row] * len(features))

    def in_order(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Features sorted by row (M, C, F, T), and the row of each (M,)."""
        rows = np.array(self._rows, np.int64)
        features = self._features[: len(rows)]
        if (np.diff(rows) >= 0).all():  # the case unless stretches of files are interleaved
            return features, rows
        order = np.argsort(rows, kind="stable")
        return features[order], rows[order]


def _serve(
    store: _Store,
    utterances: Sequence[Utterance],
    on_done: Callable[[], None] | None,
    take: Callable[[int, NDArray[np.float32]], None] | None = None,
) -> tuple[list[str], list[str], dict[int, str]]:
    """Serve all utterances in parallel; return contents and sounds, and faults by row.

    Workers run only a few batches ahead of the consumer, which bounds memory.
    """
    contents, sounds = [""] * len(utterances), [""] * len(utterances)
    faults: dict[int, str] = {}

    def work(tasks: Sequence[_Task]) -> list[_Done]:
        done = store.serve(tasks)
        return done if take else [one._replace(features=None) for one in done]

    workers = os.cpu_count() or 1
    with _one_torch_thread(), ThreadPoolExecutor(workers) as pool:
        tasks = _tasks(utterances, store.contents)
        batches = iter(lambda: list(islice(tasks, store.batch)), [])
        for done in _map_ahead(pool, work, batches, 2 * workers):
            for one in done:
                contents[one.row], sounds[one.row] = one.content, one.sound
                if one.fault:
                    faults[one.row] = one.fault
                elif take is not None and one.features is not None:
                    take(one.row, one.features)
                if on_done is not None:
                    on_done()
    return contents, sounds, faults


def _tasks(utterances: Sequence[Utterance], contents: Contents) -> Iterator[_Task]:
    """All utterances, by file and time, so that a long recording is decoded in one pass."""
    groups: dict[Path, list[int]] = {}
    for row, utterance in enumerate(utterances):
        groups.setdefault(utterance.path, []).append(row)
    for path, rows in groups.items():
        sound = _Sound(path, contents)
        rows.sort(key=lambda row: utterances[row].start)
        yield from (_Task(row, utterances[row], sound) for row in rows)


def _map_ahead(
    pool: ThreadPoolExecutor,
    work: Callable[[Sequence[_Task]], list[_Done]],
    batches: Iterable[Sequence[_Task]],
    ahead: int,
) -> Iterator[list[_Done]]:
    """Results in order; never more than ``ahead`` are pending."""
    waiting: deque[Future[list[_Done]]] = deque()
    try:
        for batch in batches:
            if len(waiting) == ahead:
                yield waiting.popleft().result()
            waiting.append(pool.submit(work, batch))
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Compute on one thread: how a product is split over threads changes its last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _name(utterances: Sequence[Utterance], faults: dict[int, str]) -> tuple[tuple[str, str], ...]:
    return tuple((utterances[row].name, faults[row]) for row in sorted(faults))


def _refuse(utterances: Sequence[Utterance], faults: dict[int, str], skip_bad: bool) -> None:
    """Raise :class:`AudioError` if audio is unusable and may not be skipped, or none is usable."""
    good = len(utterances) - len(faults)
    if not faults or (skip_bad and good):
        return
    named = [name_once(name, fault) for name, fault in _name(utterances, faults)]
    rest = "fix the files or leave them out with --skip-bad" if good else "none is usable"
    raise AudioError(
        f"{len(faults)} of {len(utterances)} utterances have unusable audio; {rest}:"
        + list_lines(named, _NAMED)
    )
