"""What training needs of a network beside its forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from emodarts.training.views import Hearing


class Head(NamedTuple):
    """Answers of an extra classifier that only training uses.

    Attributes
    ----------
    logits : of classes (B, K), or of genders (B, 2).
    weight : of its loss.
    target : what it learns.
    """

    logits: Tensor
    weight: float
    target: Literal["emotion", "gender"] = "emotion"


class Classifier(nn.Module):
    """A network from feature maps ``(B, C, F, T)`` to logits ``(B, K)``.

    The defaults below suit a network that needs nothing of its own in training.
    """

    def forward_with_auxiliary(self, features: Tensor) -> tuple[Tensor, Sequence[Head]]:
        """Logits ``(B, K)``, and the answers of extra classifiers that only training uses."""
        return self(features), ()

    def begin_epoch(self, share: float) -> None:
        """Called before each epoch with the share of the epochs that is done, in [0, 1)."""

    def model_state(self) -> dict[str, Tensor]:
        """Parameters and buffers of the model, without what only training uses."""
        return self.state_dict()

    def for_inference(self) -> nn.Module:
        """A module that gives the logits of eval mode, perhaps sooner, and is not trained."""
        return self.eval()


class Ensemble(Classifier):
    """Networks that answer together: the mean of their log-probabilities, as logits.

    Each may hear a map at several speeds; all its answers count the same.
    """

    def __init__(self, members: Sequence[nn.Module], hearing: Hearing | None = None) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.hearing = hearing

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, F, T)`` -> logits ``(B, K)``; softmax gives the normalised geometric mean."""
        maps = [features] if self.hearing is None else self.hearing(features)
        logits = [torch.log_softmax(member(x), dim=1) for member in self.members for x in maps]
        return torch.stack(logits).mean(dim=0)

    def model_state(self) -> dict[str, Tensor]:
        """Those of all members."""
        return {
            f"members.{k}.{name}": tensor
            for k, member in enumerate(self.members)
            for name, tensor in cast(Classifier, member).model_state().items()
        }

    def for_inference(self) -> nn.Module:
        """The members, each as it answers soonest."""
        members = [cast(Classifier, m).for_inference() for m in self.members]
        return Ensemble(members, self.hearing).eval()
