"""Features on disk, keyed by what decides them: content, stretch, spec, code, device, variant.

:func:`fill` computes what is missing and holds no more than a few batches in memory, however
large the corpus; :func:`extract` does the same and gathers the features as it goes.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emodarts import files
from emodarts.audio.contents import Contents, file_key
from emodarts.audio.features import FEATURE_CODE_VERSION, FeatureExtractor, fit_length
from emodarts.audio.io import decode_audio, read_audio_bytes
from emodarts.audio.pieces import split
from emodarts.audio.specs import FeatureSpec
from emodarts.corpora.utterance import Utterance
from emodarts.errors import AudioError, ShapeError, list_lines
from emodarts.runtime import derive_seed

_NAMED = 100
_DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Variant:
    """Altered copies of the sound, e.g. by noise, to train on beside the sound itself.

    Attributes
    ----------
    key : JSON values that say, but for the seed, all that decides what ``apply`` does.
    apply : from a piece (n,) float32, its rate in Hz and a seed to the altered piece, of any
        length. The seed depends on content, stretch, piece and ``key`` alone. Called by several
        threads at once.
    """

    key: Mapping[str, object]
    apply: Callable[[NDArray[np.float32], int, int], NDArray[np.float32]]


@dataclass(frozen=True)
class Filled:
    """What :func:`fill` found.

    Attributes
    ----------
    contents : SHA-256 of each utterance's whole audio file, or None if it is unusable.
    bad : the unusable ones: ``(utterance name, reason)``.
    """

    contents: tuple[str | None, ...]
    bad: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Features of the usable utterances, in the order asked for.

    Attributes
    ----------
    utterances : those whose audio is usable.
    features : float32, of M pieces, those of an utterance in the order of time; one for each
        utterance unless ``spec.length`` is segments [shape=(M, C, n_features, n_frames)]
    owners : place in ``utterances`` of the one that a piece is of, never falling [shape=(M,)]
    contents : SHA-256 of each utterance's whole audio file.
    fingerprint : what decided the features beside spec and code, e.g. a checkpoint.
    bad : the others: ``(utterance name, reason)``.
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
    """Compute and store the features that the store lacks, or holds damaged.

    Memory is that of the batches being worked on. A fill that was killed goes on where it was,
    and several processes may fill a store at once. Parameters and errors are those of
    :func:`extract`.
    """
    store = _Store(spec, folder, torch.device(device), variant)
    contents, faults = _serve(store, utterances, on_done)
    _refuse(utterances, faults, skip_bad)
    return Filled(
        tuple(None if row in faults else content for row, content in enumerate(contents)),
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
    """Features of utterances, from the store where it has them, else computed and stored.

    An utterance's features are bitwise the same whatever is extracted with it, by however
    many workers. On a processor each worker computes one piece after another on a single torch
    thread; on another device all batches have the same size. As the last bits differ between
    kinds of device, the store keeps them apart.

    Parameters
    ----------
    folder : of the store; made if absent. Several processes may fill it at once.
    skip_bad : leave unusable audio out instead of raising.
    on_done : called once for each utterance, usable or not, in the calling thread.
    device : that computes.
    variant : alter the sound before its features are computed.

    Raises
    ------
    AudioError
        Naming all unusable audio together; with ``skip_bad`` only if none is usable.
    WriteError
        If the store cannot be written.
    """
    store = _Store(spec, folder, torch.device(device), variant)
    gathered = _Gathered(len(utterances), store.shape)
    contents, faults = _serve(store, utterances, on_done, gathered.add)
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


class _Sound:
    """An audio file: read once, when first needed, for all stretches of it."""

    def __init__(self, path: Path, contents: Contents) -> None:
        self.path = path
        self._contents = contents
        self._lock = threading.Lock()
        self._content: str | None = None
        self._data: bytes | None = None

    def content(self) -> str:
        """SHA-256 of the file. Raises :class:`AudioError`."""
        with self._lock:
            if self._content is None:
                self._content = self._contents.recall(self.path)
            return self._content or self._read()[0]

    def read(self) -> tuple[str, bytes]:
        """SHA-256 of the file, and what it is the SHA-256 of. Raises :class:`AudioError`."""
        with self._lock:
            return self._read()

    def _read(self) -> tuple[str, bytes]:
        if self._data is None:
            key = file_key(self.path)
            self._data = read_audio_bytes(self.path)
            self._content = hashlib.sha256(self._data).hexdigest()
            self._contents.remember(self.path, key, self._content)
        return str(self._content), self._data


class _Task(NamedTuple):
    row: int
    utterance: Utterance
    sound: _Sound


class _Missing(NamedTuple):
    """An utterance whose features must be computed."""

    task: _Task
    content: str
    pieces: list[NDArray[np.float32]]


class _Done(NamedTuple):
    """Features (k, C, F, T) of an utterance's pieces, or why there are none."""

    row: int
    content: str
    features: NDArray[np.float32] | None
    fault: str = ""


class _Store:
    """What is needed to look the features of any utterance up, or to compute and keep them."""

    def __init__(
        self, spec: FeatureSpec, folder: Path, device: torch.device, variant: Variant | None
    ) -> None:
        self.spec = spec
        self.folder = folder
        self.device = device
        self.variant = variant
        self.contents = Contents(folder / "contents")
        self.extractor = FeatureExtractor(spec).eval().to(device)
        self.shape = (spec.n_channels, spec.n_features, spec.n_frames)
        self.batch = _batch_size(device)
        # One batch at a time bounds the memory that an accelerator needs.
        self._turn = nullcontext() if device.type == "cpu" else threading.Lock()
        self._variant_key = "" if variant is None else files.digest_of(dict(variant.key))
        self._key = files.digest_of(
            {
                "spec": spec.model_dump(mode="json"),
                "version": FEATURE_CODE_VERSION,
                "fingerprint": self.extractor.fingerprint,
                "device": device.type,
                "variant": self._variant_key,
            }
        )

    def serve(self, tasks: Sequence[_Task]) -> list[_Done]:
        """Features of some utterances; what the store lacks is computed together."""
        done: list[_Done] = []
        missing: list[_Missing] = []
        for task in tasks:
            try:
                content = task.sound.content()
                stored = _read_stored(self._place(content, task.utterance), self.shape)
                if stored is None:
                    missing.append(self._decode(task))
                else:
                    done.append(_Done(task.row, content, stored))
            except AudioError as error:
                done.append(_Done(task.row, "", None, str(error)))
        computed = self._compute(missing)
        for one, features in zip(missing, computed, strict=True):
            _write_stored(self._place(one.content, one.task.utterance), features)
            done.append(_Done(one.task.row, one.content, features))
        return done

    def _place(self, content: str, utterance: Utterance) -> Path:
        stretch = {"start": utterance.start, "end": utterance.end}
        key = files.digest_of({"key": self._key, "content": content, **stretch})
        return self.folder / key[:2] / f"{key}.npy"

    def _decode(self, task: _Task) -> _Missing:
        # The file may have changed since it was looked up: the key is of what is decoded.
        content, data = task.sound.read()
        path, start, end = task.utterance.path, task.utterance.start, task.utterance.end
        waveform = decode_audio(data, path, self.spec.sample_rate, start, end)
        return _Missing(task, content, split(waveform, self.spec))

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
        """A piece, altered if this is of a variant, at the length of the input (n_samples,)."""
        piece = missing.pieces[index]
        if self.variant is not None:
            utterance = missing.task.utterance
            where = (missing.content, repr((utterance.start, utterance.end)), index)
            seed = derive_seed(*where, self._variant_key)
            piece = self.variant.apply(piece, self.spec.sample_rate, seed)
            wrong = np.count_nonzero(~np.isfinite(piece))
            if piece.dtype != np.float32 or piece.ndim != 1 or piece.size == 0 or wrong:
                raise ShapeError(
                    f"utterance {utterance.name!r}, variant {dict(self.variant.key)}: made samples "
                    f"of shape {piece.shape} and type {piece.dtype}, {wrong} of them not finite; "
                    "legal: finite float32 (n,), n at least 1"
                )
        return fit_length(piece, self.spec.n_samples, self.spec.length)

    def _forward(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, n_samples) -> (B, C, n_features, n_frames)."""
        with self._turn, torch.inference_mode():
            result: NDArray[np.float32] = (
                self.extractor(torch.from_numpy(batch).to(self.device)).cpu().numpy()
            )
        return result


def _batch_size(device: torch.device) -> int:
    """Pieces in every forward pass.

    Always as many, because their number may choose the kernel and with it the last bits. On a
    processor a piece alone stays in the caches, and is as fast as in company or faster.
    """
    return 1 if device.type == "cpu" else 32


class _Gathered:
    """Features of pieces in one array, in the order of arrival until asked for."""

    def __init__(self, expected: int, shape: tuple[int, ...]) -> None:
        # Memory that is not written to is not taken: nothing is lost by too large an array.
        self._features = np.empty((expected, *shape), np.float32)
        self._rows: list[int] = []

    def add(self, row: int, features: NDArray[np.float32]) -> None:
        """Take the pieces (k, C, F, T) of the utterance at ``row``."""
        first, last = len(self._rows), len(self._rows) + len(features)
        if last > len(self._features):
            larger = np.empty((2 * last, *features.shape[1:]), np.float32)
            larger[:first] = self._features[:first]
            self._features = larger
        self._features[first:last] = features
        self._rows.extend([row] * len(features))

    def in_order(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Features by rising row (M, C, F, T), and the row of each (M,)."""
        rows = np.array(self._rows, np.int64)
        features = self._features[: len(rows)]
        if (np.diff(rows) >= 0).all():  # as in every corpus whose files are not interleaved
            return features, rows
        order = np.argsort(rows, kind="stable")
        return features[order], rows[order]


def _serve(
    store: _Store,
    utterances: Sequence[Utterance],
    on_done: Callable[[], None] | None,
    take: Callable[[int, NDArray[np.float32]], None] | None = None,
) -> tuple[list[str], dict[int, str]]:
    """Have all utterances served, in parallel; return contents and faults by row.

    Batches are worked on only a few ahead of the one that is taken, which bounds memory.
    """
    contents = [""] * len(utterances)
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
                contents[one.row] = one.content
                if one.fault:
                    faults[one.row] = one.fault
                elif take is not None and one.features is not None:
                    take(one.row, one.features)
                if on_done is not None:
                    on_done()
    return contents, faults


def _tasks(utterances: Sequence[Utterance], contents: Contents) -> Iterator[_Task]:
    """All utterances, those of one file together, so that a long recording is read once."""
    groups: dict[Path, list[int]] = {}
    for row, utterance in enumerate(utterances):
        groups.setdefault(utterance.path, []).append(row)
    for path, rows in groups.items():
        sound = _Sound(path, contents)
        yield from (_Task(row, utterances[row], sound) for row in rows)


def _map_ahead(
    pool: ThreadPoolExecutor,
    work: Callable[[Sequence[_Task]], list[_Done]],
    batches: Iterable[Sequence[_Task]],
    ahead: int,
) -> Iterator[list[_Done]]:
    """Results in order, of which never more than ``ahead`` are waiting or being made."""
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


def _write_stored(path: Path, array: NDArray[np.float32]) -> None:
    """Write .npy with the SHA-256 of those bytes behind it, which numpy does not read."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    data = buffer.getvalue()
    # To wait for the disk would take longer than to compute; damage shows, and is mended.
    files.write_bytes(path, data + hashlib.sha256(data).digest(), durable=False)


def _read_stored(path: Path, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    """Stored features of some pieces ``(k, *shape)``; None if absent, damaged or of no use."""
    try:
        stored = path.read_bytes()
        data, digest = stored[:-_DIGEST_BYTES], stored[-_DIGEST_BYTES:]
        if hashlib.sha256(data).digest() != digest:
            return None
        array: NDArray[np.float32] = np.load(io.BytesIO(data), allow_pickle=False)
    except (OSError, ValueError):
        return None
    usable = array.dtype == np.float32 and array.ndim == 1 + len(shape) and len(array) > 0
    return array if usable and array.shape[1:] == shape else None


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Let each worker compute alone: how a product is split over threads changes its last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _name(utterances: Sequence[Utterance], faults: dict[int, str]) -> tuple[tuple[str, str], ...]:
    return tuple((utterances[row].name, faults[row]) for row in sorted(faults))


def _refuse(utterances: Sequence[Utterance], faults: dict[int, str], skip_bad: bool) -> None:
    """Raise :class:`AudioError` for unusable audio, if any is too much or all of it is."""
    good = len(utterances) - len(faults)
    if not faults or (skip_bad and good):
        return
    named = [f"{name}: {fault}" for name, fault in _name(utterances, faults)]
    rest = "mend them, or go on without them by --skip-bad" if good else "none is usable"
    raise AudioError(
        f"{len(faults)} of {len(utterances)} utterances have unusable audio; {rest}:"
        + list_lines(named, _NAMED)
    )
