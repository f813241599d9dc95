"""Acoustic parameters by openSMILE (the extra ``opensmile``): descriptors and functionals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from emodarts.errors import RecipeError
from emodarts.recipe.features import FunctionalsSpec, OpensmileSpec

_LONGEST_WINDOW = 0.06
"""Seconds; from shorter sound openSMILE computes nothing."""

_FULL_SCALE = 32767 / 32768
"""The largest sample that openSMILE's 16-bit integers hold; larger ones would change sign."""


class _Smile(nn.Module):
    """openSMILE on the CPU, one utterance at a time.

    Attributes
    ----------
    fingerprint : version of openSMILE.
    names : of the values, in openSMILE's order and units.
    """

    def __init__(self, kind: str, sample_rate: int, feature_set: str, level: str) -> None:
        super().__init__()
        try:
            import opensmile
        except ImportError as error:
            raise RecipeError(
                f"features.kind: {kind} needs a package that is not installed; "
                "pip install opensmile (the extra `opensmile`)"
            ) from error
        self.sample_rate = sample_rate
        self.fingerprint = f"opensmile {opensmile.__version__}"
        self._smile: Any = opensmile.Smile(
            feature_set=opensmile.FeatureSet[feature_set],
            feature_level=opensmile.FeatureLevel[level],
        )
        self.names: tuple[str, ...] = tuple(self._smile.feature_names)

    def process(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n,) -> (len(names), frames). Samples beyond full scale are clipped."""
        clipped = np.clip(samples, -1.0, _FULL_SCALE)
        table = self._smile.process_signal(clipped, self.sample_rate)
        values: NDArray[np.float32] = table.to_numpy(np.float32).T
        return values


class Egemaps(_Smile):
    """The 25 low-level descriptors of eGeMAPSv02; those of voicing are 0 in unvoiced frames."""

    def __init__(self, spec: OpensmileSpec) -> None:
        super().__init__(spec.kind, spec.sample_rate, "eGeMAPSv02", "LowLevelDescriptors")

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, n_samples) -> (B, 25, frames)."""
        maps = np.stack([self.process(row) for row in waveform.detach().cpu().numpy()])
        return torch.from_numpy(maps).to(waveform.device)


class Functionals(_Smile):
    """Functionals of one utterance.

    Padding is not speech: zeros at the end of a waveform, also those that a recording itself ends
    with, are left out. Values are 0 where openSMILE gives NaN or infinity, and all of them are 0
    if less sound is left than openSMILE's longest window of 60 ms.
    """

    def __init__(self, spec: FunctionalsSpec) -> None:
        super().__init__(spec.kind, spec.sample_rate, spec.feature_set, "Functionals")
        # As openSMILE rounds.
        self._shortest = math.floor(_LONGEST_WINDOW * spec.sample_rate + 0.5)

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, n_samples) -> (B, n_functionals, 1)."""
        values = np.zeros((len(waveform), len(self.names), 1), np.float32)
        for row, samples in zip(values, waveform.detach().cpu().numpy(), strict=True):
            sound = np.trim_zeros(samples, "b")
            if len(sound) >= self._shortest:
                row[:] = np.nan_to_num(self.process(sound), nan=0.0, posinf=0.0, neginf=0.0)
        return torch.from_numpy(values).to(waveform.device)
