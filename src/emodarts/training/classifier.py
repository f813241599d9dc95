"""What training needs of a network beside its forward pass."""

from __future__ import annotations

from torch import Tensor, nn


class Classifier(nn.Module):
    """A network from feature maps ``(B, C, F, T)`` to logits ``(B, K)``.

    The defaults below suit a network that needs nothing of its own in training.
    """

    auxiliary_weight: float = 0.0
    """Weight of the loss of the auxiliary logits."""

    def forward_with_auxiliary(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits ``(B, K)``, and those of an extra classifier that only training uses, if any."""
        return self(features), None

    def begin_epoch(self, share: float) -> None:
        """Called before each epoch with the share of the epochs that is done, in [0, 1)."""

    def model_state(self) -> dict[str, Tensor]:
        """Parameters and buffers of the model, without what only training uses."""
        return self.state_dict()

    def for_inference(self) -> nn.Module:
        """A module that gives the logits of eval mode, perhaps sooner, and is not trained."""
        return self.eval()
