"""ResLSTM-SA (arXiv 2606.03359): a residual LSTM, and one with attention over time."""

from __future__ import annotations

from torch import Tensor, nn

from emodarts.recipe import FeatureSpec
from emodarts.recipe.system import ResLSTMSASpec
from emodarts.space.sequence_ops import TimeAttention
from emodarts.systems.neural import NetworkSystem
from emodarts.systems.present import as_sequence, normed, without_missing
from emodarts.training.classifier import Classifier


class ResLSTMSA(Classifier):
    """LSTM of the width of its input, which is added; batch norm; LSTM; attention; dense layer.

    46,772 parameters for 46 features, 64 units and eight classes, as published.
    """

    def __init__(self, spec: ResLSTMSASpec, features: FeatureSpec, n_classes: int) -> None:
        super().__init__()
        width = features.n_channels * features.n_features
        self.residual = nn.LSTM(width, width, batch_first=True)
        self.residual_norm = nn.BatchNorm1d(width)
        self.lstm = nn.LSTM(width, spec.hidden, batch_first=True)
        self.attention = TimeAttention(spec.hidden)
        self.attention.score = nn.Linear(spec.hidden, 1, bias=False)  # softmax cancels a bias
        self.norm = nn.BatchNorm1d(spec.hidden)
        self.dropout = nn.Dropout(spec.dropout)
        self.classifier = nn.Linear(spec.hidden, n_classes)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, F, T)`` -> logits ``(B, K)``."""
        features, present = without_missing(features)
        x = as_sequence(features)
        # Missing frames are the last, which an LSTM that runs forwards has not yet seen.
        x = x + self.residual(x)[0]
        x = normed(self.residual_norm, x.transpose(1, 2), present).transpose(1, 2)
        context = self.attention(self.lstm(x)[0], present)
        logits: Tensor = self.classifier(self.dropout(self.norm(context)))
        return logits


class ResLSTMSASystem(NetworkSystem):
    """Trains ResLSTM-SA."""

    network = ResLSTMSA
