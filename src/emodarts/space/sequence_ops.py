"""Candidate operations on the edges of SeqNN cells, and what surrounds those cells.

Every operation maps ``(B, T, H)`` to ``(B, T, H)`` and runs over *time*. A 2-D input is refused:
PyTorch would take the batch axis for time, so that utterances would see each other.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from emodarts.errors import ShapeError

#: Added to the variance by :class:`Normalised`.
EPSILON = 1e-5


def require_sequence(x: Tensor, who: str) -> None:
    """Raise :class:`ShapeError` unless ``x`` is ``(B, T, C)``."""
    if x.dim() != 3:
        raise ShapeError(
            f"{who} needs (batch, time, channels), 3 dimensions; got shape {tuple(x.shape)}"
        )


class TimeAttention(nn.Module):
    """One score for each step, softmax over time, weighted sum of the steps."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, T, C)`` -> context ``(B, C)``."""
        require_sequence(x, "attention over time")
        weights = torch.softmax(self.score(x), dim=1)  # (B, T, 1)
        return (weights * x).sum(dim=1)


class Recurrent(nn.Module):
    """Stacked LSTM or tanh RNN over time, with the context of an attention joined if asked.

    With attention, the context over all steps is joined to each step and both are projected
    back to ``width``. A bidirectional network has ``width`` units in each direction.

    Raises
    ------
    ShapeError
        From ``forward`` for an input that is not ``(B, T, width_in)``.
    """

    def __init__(
        self,
        recurrent: Literal["lstm", "rnn"],
        width_in: int,
        width: int,
        layers: int,
        *,
        bidirectional: bool = False,
        attention: bool = False,
    ) -> None:
        super().__init__()
        build = {"lstm": nn.LSTM, "rnn": nn.RNN}[recurrent]
        self.recurrent = build(
            width_in, width, layers, batch_first=True, bidirectional=bidirectional
        )
        self.out_features = width * (2 if bidirectional else 1)
        self.attention: TimeAttention | None = None
        if attention:
            self.attention = TimeAttention(self.out_features)
            self.project = nn.Linear(2 * self.out_features, width)
            self.out_features = width

    def forward(self, x: Tensor) -> Tensor:
        """``(B, T, width_in)`` -> ``(B, T, out_features)``."""
        require_sequence(x, "a recurrent operation")
        steps: Tensor = self.recurrent(x)[0]  # (B, T, D)
        if self.attention is None:
            return steps
        context = self.attention(steps).unsqueeze(1).expand_as(steps)
        out: Tensor = self.project(torch.cat([steps, context], dim=-1))
        return out


class SequenceSkip(nn.Module):
    """Identity on ``(B, T, H)``."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` after the check that it is a sequence."""
        require_sequence(x, "skip_connect")
        return x


class Normalised(nn.Module):
    """An operation whose output has mean 0 and variance 1 over the features of each step.

    Layer norm (arXiv 1607.06450) without weights. Without it a skip is several times as loud as an
    untrained recurrent layer, which the alphas of a supernet take for merit.
    """

    def __init__(self, operation: nn.Module) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, x: Tensor) -> Tensor:
        """``(B, T, H)`` -> ``(B, T, H)``."""
        y: Tensor = self.operation(x)
        return functional.layer_norm(y, y.shape[-1:], eps=EPSILON)


def skip(width: int) -> nn.Module:
    """``skip_connect`` of a SeqNN cell."""
    return SequenceSkip()


def recurrent(
    width: int, *, recurrent: Literal["lstm", "rnn"], layers: int, attention: bool
) -> nn.Module:
    """Stacked recurrent layers; with attention they are bidirectional."""
    return Recurrent(recurrent, width, width, layers, bidirectional=attention, attention=attention)
