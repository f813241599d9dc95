"""A learned mixture of the layers of a frozen pretrained encoder, and a dense layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from emodarts.recipe.features import EmbeddingSpec
from emodarts.recipe.system import FrozenEncoderSpec
from emodarts.space.sequence_ops import mean_over_time
from emodarts.systems.neural import NetworkSystem
from emodarts.systems.present import as_sequence, without_missing
from emodarts.training.classifier import Classifier


class FrozenEncoderHead(Classifier):
    """``W sum_l softmax(a)_l mean_t x_lt + b`` for hidden states x of layer l and frame t.

    The weighted sum of layers is that of SUPERB (arXiv 2105.01051). Layers have equal weights at
    first. The encoder computes features and is no part of this network, nor of its cost.
    """

    def __init__(self, spec: FrozenEncoderSpec, features: EmbeddingSpec, n_classes: int) -> None:
        super().__init__()
        width = features.n_channels * features.network.hidden_size
        self.layer_scores = nn.Parameter(torch.zeros(features.n_layers))
        self.dropout = nn.Dropout(spec.dropout)
        self.classifier = nn.Linear(width, n_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Hidden states of all layers ``(B, C, layers * width, T)`` -> logits ``(B, K)``."""
        features, present = without_missing(features)
        means = mean_over_time(as_sequence(features), present)
        means = means.reshape(*features.shape[:2], len(self.layer_scores), -1)
        weights = torch.softmax(self.layer_scores, dim=0)
        mixed = (weights[:, None] * means).sum(dim=2).flatten(1)
        logits: Tensor = self.classifier(self.dropout(mixed))
        return logits


class FrozenEncoder(NetworkSystem):
    """Trains what is put on a frozen encoder."""

    network = FrozenEncoderHead
