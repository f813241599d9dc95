"""Features of a corpus in one file that is mapped into memory: rows are read when they are used."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emodarts import files
from emodarts.errors import AudioError, EmodartsError


def mapped_features(
    folder: Path,
    names: Sequence[str],
    shape: tuple[int, ...],
    stored: Iterable[NDArray[np.float32]],
) -> tuple[Tensor, Tensor]:
    """Features ``(M, *shape)`` that stay on the disk, and the utterance of each row ``(M,)``.

    They are copied once to a file below ``folder``, which every process that needs them shares.
    The file may be deleted between runs; its data were checked when they were copied.

    Parameters
    ----------
    names : of the entries of the store, which say what is in the file.
    shape : of one piece.
    stored : pieces ``(k, *shape)`` of each utterance, in order; read only if there is no file yet.

    Raises
    ------
    WriteError
        If the file cannot be written.
    """
    path = folder / "mapped" / f"{files.digest_of(list(names))}.f32"
    table = path.with_suffix(".json")
    with files.in_turn(path.with_suffix(".lock")):
        pieces = _complete(path, table, shape)
        if pieces is None:
            pieces = []
            files.write_blocks(path, _noted(stored, pieces), durable=False)
            files.write_json(table, {"pieces": pieces})  # last: it says that the file is whole
    array = np.memmap(path, np.float32, "r", shape=(sum(pieces), *shape))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        features = torch.from_numpy(array)
    return features, torch.repeat_interleave(torch.arange(len(pieces)), torch.tensor(pieces))


def _noted(stored: Iterable[NDArray[np.float32]], pieces: list[int]) -> Iterator[memoryview]:
    for features in stored:
        pieces.append(len(features))
        yield np.ascontiguousarray(features).view(np.uint8).data


def _complete(path: Path, table: Path, shape: tuple[int, ...]) -> list[int] | None:
    """Pieces of each utterance if both files are whole."""
    try:
        pieces = list(files.read_object(table, AudioError, "pieces")["pieces"])
        size = 4 * sum(pieces) * int(np.prod(shape))
        return pieces if path.stat().st_size == size else None
    except (EmodartsError, OSError, TypeError):
        return None
