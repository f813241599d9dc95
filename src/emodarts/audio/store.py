"""Features on disk, keyed by what decides them: content, stretch, spec and feature code."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emodarts import files
from emodarts.audio.features import FEATURE_CODE_VERSION, FeatureExtractor, fit_length
from emodarts.audio.io import decode_audio, read_audio_bytes
from emodarts.corpora.utterance import Utterance
from emodarts.errors import AudioError
from emodarts.recipe import FeatureSpec

_NAMED = 100
_DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Features of the usable utterances, in the order asked for.

    Attributes
    ----------
    utterances : those whose audio is usable.
    features : float32 [shape=(N, 1, n_features, n_frames)]
    contents : SHA-256 of each utterance's whole audio file.
    bad : the others: ``(utterance name, reason)``.
    """

    utterances: tuple[Utterance, ...]
    features: Tensor
    contents: tuple[str, ...]
    bad: tuple[tuple[str, str], ...] = ()


def default_cache_folder() -> Path:
    """``$EMODARTS_CACHE``, else ``emodarts`` in the user's cache folder."""
    if own := os.environ.get("EMODARTS_CACHE"):
        return Path(own)
    user = os.environ.get("XDG_CACHE_HOME")
    return (Path(user) if user else Path.home() / ".cache") / "emodarts"


def extract(
    utterances: Sequence[Utterance],
    spec: FeatureSpec,
    folder: Path,
    *,
    skip_bad: bool = False,
    on_done: Callable[[], None] | None = None,
) -> FeatureSet:
    """Features of utterances, from the store where it has them, else computed and stored.

    An utterance's features are bitwise the same whatever is extracted with it, by however
    many workers: one forward pass for each, on a single torch thread.

    Parameters
    ----------
    folder : of the store; made if absent. Several processes may fill it at once.
    skip_bad : leave unusable audio out instead of raising.
    on_done : called once for each utterance, usable or not, in the calling thread.

    Raises
    ------
    AudioError
        Naming all unusable audio together; with ``skip_bad`` only if none is usable.
    WriteError
        If the store cannot be written.
    """
    extractor = FeatureExtractor(spec)
    features = np.empty((len(utterances), 1, spec.n_features, spec.n_frames), np.float32)
    contents: list[str] = [""] * len(utterances)
    bad: dict[int, str] = {}

    def work(rows: list[int]) -> tuple[list[int], str, dict[int, str]]:
        return rows, *_extract_file(rows, utterances, extractor, folder, features)

    with _one_torch_thread(), ThreadPoolExecutor(os.cpu_count()) as pool:
        for rows, content, faults in pool.map(work, _rows_by_file(utterances)):
            bad |= faults
            for row in rows:
                contents[row] = content
                if on_done is not None:
                    on_done()

    good = [row for row in range(len(utterances)) if row not in bad]
    if bad and not (skip_bad and good):
        raise AudioError(_explain(utterances, bad))
    return FeatureSet(
        utterances=tuple(utterances[row] for row in good),
        features=torch.from_numpy(features[good] if bad else features),
        contents=tuple(contents[row] for row in good),
        bad=tuple((utterances[row].name, bad[row]) for row in sorted(bad)),
    )


def _rows_by_file(utterances: Sequence[Utterance]) -> list[list[int]]:
    """Rows that share a file, so that a long recording is read and hashed once."""
    groups: dict[Path, list[int]] = {}
    for row, utterance in enumerate(utterances):
        groups.setdefault(utterance.path, []).append(row)
    return list(groups.values())


def _extract_file(
    rows: list[int],
    utterances: Sequence[Utterance],
    extractor: FeatureExtractor,
    folder: Path,
    features: NDArray[np.float32],
) -> tuple[str, dict[int, str]]:
    """Fill ``features[rows]``, all of one file; return its SHA-256 and the faults by row."""
    faults: dict[int, str] = {}
    try:
        data = read_audio_bytes(utterances[rows[0]].path)
    except AudioError as error:
        return "", dict.fromkeys(rows, str(error))
    content = hashlib.sha256(data).hexdigest()
    for row in rows:
        utterance = utterances[row]
        path = _stored_path(folder, content, utterance, extractor.spec)
        stored = _read_stored(path, features[row].shape)
        if stored is None:
            try:
                stored = _compute(data, utterance, extractor)
            except AudioError as error:
                faults[row] = str(error)
                continue
            _write_stored(path, stored)
        features[row] = stored
    return content, faults


def _compute(data: bytes, utterance: Utterance, extractor: FeatureExtractor) -> NDArray[np.float32]:
    """Features of one utterance [shape=(1, n_features, n_frames)]."""
    spec = extractor.spec
    waveform = decode_audio(data, utterance.path, spec.sample_rate, utterance.start, utterance.end)
    batch = torch.from_numpy(fit_length(waveform, spec.n_samples)[None])
    with torch.inference_mode():
        result: NDArray[np.float32] = extractor(batch)[0].numpy()
    return result


def _stored_path(folder: Path, content: str, utterance: Utterance, spec: FeatureSpec) -> Path:
    key = files.digest_of(
        {
            "content": content,
            "start": utterance.start,
            "end": utterance.end,
            "spec": spec.model_dump(mode="json"),
            "version": FEATURE_CODE_VERSION,
        }
    )
    return folder / key[:2] / f"{key}.npy"


def _write_stored(path: Path, array: NDArray[np.float32]) -> None:
    """Write .npy with the SHA-256 of those bytes behind it, which numpy does not read."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    data = buffer.getvalue()
    files.write_bytes(path, data + hashlib.sha256(data).digest())


def _read_stored(path: Path, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    """Return a stored array, or None if it is absent, damaged or of another shape."""
    try:
        stored = path.read_bytes()
        data, digest = stored[:-_DIGEST_BYTES], stored[-_DIGEST_BYTES:]
        if hashlib.sha256(data).digest() != digest:
            return None
        array: NDArray[np.float32] = np.load(io.BytesIO(data), allow_pickle=False)
    except (OSError, ValueError):
        return None
    return array if array.shape == shape and array.dtype == np.float32 else None


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Let each worker compute alone: how a product is split over threads changes its last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _explain(utterances: Sequence[Utterance], bad: dict[int, str]) -> str:
    named = [f"{utterances[row].name}: {bad[row]}" for row in sorted(bad)]
    more = f"\n  and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    rest = (
        "none is usable"
        if len(bad) == len(utterances)
        else "mend them, or go on without them by --skip-bad"
    )
    return (
        f"{len(bad)} of {len(utterances)} utterances have unusable audio; {rest}:\n  "
        + "\n  ".join(named[:_NAMED])
        + more
    )
