"""eGeMAPSv02 low-level descriptors by openSMILE (the extra ``opensmile``)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from emodarts.errors import RecipeError
from emodarts.recipe.features import OpensmileSpec


class Egemaps(nn.Module):
    """The 25 descriptors of each frame, on the CPU, one utterance after the other.

    They are in openSMILE's order and units; those of voicing are 0 where there is no voice.

    Attributes
    ----------
    fingerprint : version of openSMILE.
    names : of the descriptors, in the order of the frequency axis.
    """

    def __init__(self, spec: OpensmileSpec) -> None:
        super().__init__()
        try:
            import opensmile
        except ImportError as error:
            raise RecipeError(
                "features.kind: opensmile needs a package that is not installed; "
                "pip install opensmile (the extra `opensmile`)"
            ) from error
        self.spec = spec
        self.fingerprint = f"opensmile {opensmile.__version__}"
        self._smile = opensmile.Smile(
            feature_set=opensmile.FeatureSet.eGeMAPSv02,
            feature_level=opensmile.FeatureLevel.LowLevelDescriptors,
        )
        self.names: tuple[str, ...] = tuple(self._smile.feature_names)

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, n_samples) -> (B, 25, frames)."""
        maps = np.empty((len(waveform), len(self.names), self.spec.n_steps), np.float32)
        for row, samples in enumerate(waveform.detach().cpu().numpy()):
            table = self._smile.process_signal(samples, self.spec.sample_rate)
            maps[row] = table.to_numpy(np.float32).T
        return torch.from_numpy(maps).to(waveform.device)
