"""Dropout whose masks do not depend on the layout of a map, drawn quickly on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_LEVELS = 2**16


class Dropout(nn.Module):
    """Zero each value with probability ``p`` in training and scale the others up.

    On a CPU one draw of 64 bits serves four values, in the order of a contiguous tensor, so that
    the probability is a multiple of 1/65536; torch draws 32 bits for each, in that of memory.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same."""
        if not self.training or self.p == 0.0:
            return x
        if x.device.type != "cpu":
            return functional.dropout(x, self.p)
        dropped = round(self.p * _LEVELS)
        if dropped == _LEVELS:
            return x * 0.0
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        levels = words.view(torch.int16)[: x.numel()].view(x.shape)  # -32768 to 32767
        mask = (levels >= dropped - _LEVELS // 2).to(x.dtype)
        return x * mask.mul_(_LEVELS / (_LEVELS - dropped))
