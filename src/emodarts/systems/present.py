"""Layers on feature maps that leave missing frames (NaN, at the end) out of account."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def without_missing(features: Tensor) -> tuple[Tensor, Tensor | None]:
    """Features ``(B, C, F, T)`` with zeros for missing frames, and which frames are present.

    The second is ``(B, T)``, or None if all are.
    """
    missing = torch.isnan(features[:, 0, 0])
    if features.is_meta or not missing.any():
        return features, None
    return features.masked_fill(missing[:, None, None], 0.0), ~missing


def as_sequence(features: Tensor) -> Tensor:
    """``(B, C, F, T)`` -> ``(B, T, C * F)``."""
    return features.flatten(1, 2).transpose(1, 2)


def normed(norm: nn.Module, x: Tensor, present: Tensor | None) -> Tensor:
    """Batch norm of ``(B, C, ..., T)`` over the frames that are ``present`` (B, T).

    Other frames are zeros, as what is beyond the edge of a map is for a convolution.
    """
    if present is None:
        normalised: Tensor = norm(x)
        return normalised
    frames = x.movedim(-1, 1)  # (B, T, C, ...)
    out = torch.zeros_like(frames)
    out[present] = norm(frames[present][..., None])[..., 0]
    return out.movedim(1, -1)


def average_pool(
    x: Tensor, size: tuple[int, int], present: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Means over windows of ``size`` (frequency, time) of ``(B, C, F, T)``, and what is present.

    A window at an edge has the mean of what lies inside, and of frames that are present (B, T).
    Missing frames must be zeros; so are windows that have no others.
    """

    def pool(maps: Tensor, window: tuple[int, int]) -> Tensor:
        return functional.avg_pool2d(maps, window, ceil_mode=True, count_include_pad=False)

    means = pool(x, size)
    if present is None:
        return means, None
    share = pool(present[:, None, None].to(x.dtype), (1, size[1]))  # (B, 1, 1, T')
    return means / share.masked_fill(share == 0.0, 1.0), share[:, 0, 0] > 0.0
