"""Dropout of values, drawn quickly on a CPU, and of whole edges."""

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


class DropPath(nn.Module):
    """In training, zero the edge of an utterance with a probability and scale the others up.

    Source: FractalNet (arXiv 1605.07648), as used by DARTS on every edge but the identity.
    """

    def __init__(self, operation: nn.Module) -> None:
        super().__init__()
        self.operation = operation
        self.probability = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """``(B, ...)`` -> the operation's output, some utterances of it zero."""
        y: Tensor = self.operation(x)
        factors = self.factors(y)
        return y if factors is None else y * factors

    def factors(self, x: Tensor) -> Tensor | None:
        """Draw what an output is multiplied by, ``(B, 1, ...)`` for ``x`` ``(B, ...)``, if any."""
        if not self.training or self.probability == 0.0:
            return None
        keep = 1.0 - self.probability
        shape = (x.shape[0],) + (1,) * (x.dim() - 1)
        return torch.empty(shape, device=x.device, dtype=x.dtype).bernoulli_(keep) / keep
