"""Entries of the feature store: one file on disk for the features of one utterance."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from emodarts import files
from emodarts.audio.features import FEATURE_CODE_VERSION
from emodarts.corpora.utterance import Utterance
from emodarts.recipe.features import FeatureSpec

_DIGEST_BYTES = hashlib.sha256().digest_size
_VALUE = np.dtype("<f4")


class Entry(NamedTuple):
    """What is stored of an utterance.

    Attributes
    ----------
    features : of its k pieces, k at least 1 [shape=(k, C, n_features, n_frames)]
    sound : :class:`~emodarts.audio.duplicates.SoundDigest` of its samples.
    """

    features: NDArray[np.float32]
    sound: str


class Entries:
    """Entries of one kind in a store, named after the digest of everything that decides them.

    Parameters
    ----------
    folder : of the store; made if absent.
    fingerprint : of the :class:`~emodarts.audio.features.FeatureExtractor`.
    device_type : kind of device that computes, e.g. ``"cpu"``; the last bits depend on it.
    variant : digest of the settings that alter the sound, or ``""``.

    Attributes
    ----------
    shape : of one piece, (C, n_features, n_frames).
    """

    def __init__(
        self, folder: Path, spec: FeatureSpec, fingerprint: str, device_type: str, variant: str
    ) -> None:
        self.folder = folder
        self.shape = (spec.n_channels, spec.n_features, spec.n_frames)
        self._key = files.digest_of(
            {
                "spec": spec.model_dump(mode="json"),
                "version": FEATURE_CODE_VERSION,
                "fingerprint": fingerprint,
                "device": device_type,
                "variant": variant,
            }
        )

    def path(self, content: str, utterance: Utterance) -> Path:
        """File of an utterance whose audio file has the SHA-256 ``content``."""
        stretch = {"start": utterance.start, "end": utterance.end}
        key = files.digest_of({"key": self._key, "content": content, **stretch})
        return self.folder / key[:2] / f"{key}.f32"

    def read(self, content: str, utterance: Utterance) -> Entry | None:
        """The entry of an utterance; None if absent, damaged or of another shape."""
        try:
            stored = self.path(content, utterance).read_bytes()
        except OSError:
            return None
        data, digest = stored[:-_DIGEST_BYTES], stored[-_DIGEST_BYTES:]
        values, sound = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
        whole = hashlib.sha256(data).digest() == digest
        if not whole or not values or len(values) % (_VALUE.itemsize * math.prod(self.shape)):
            return None
        features = np.frombuffer(values, _VALUE).reshape(-1, *self.shape)
        return Entry(features.astype(np.float32), sound.hex())

    def write(self, content: str, utterance: Utterance, entry: Entry) -> None:
        """Write the values, the digest of the sound and the digest of both.

        No .npy: numpy parses its header with ``ast``, which fails at random in Python 3.11 when
        threads do it at once (https://github.com/python/cpython/issues/106905).
        """
        data = entry.features.astype(_VALUE).tobytes() + bytes.fromhex(entry.sound)
        # Waiting for the disk takes longer than computing; damage is detected and recomputed.
        files.write_bytes(
            self.path(content, utterance), data + hashlib.sha256(data).digest(), durable=False
        )
