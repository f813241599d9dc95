"""Parameters and multiply-adds of a network.

torch's own counter (``torch.utils.flop_counter``) gives 0 for recurrent layers, so each kind of
layer is counted by its formula. Batch norms, activations, pooling and softmax are not counted,
as is usual in the field.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from emodarts.space.sequence_ops import SelfAttention
from emodarts.training.classifier import Classifier

_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}
#: Products per unit beside those with matrices: LSTM ``f * c + i * g`` and ``o * tanh(c)``; GRU
#: ``r * h`` and ``(1 - z) * n + z * h``.
_ELEMENTWISE = {"LSTM": 3, "GRU": 3, "RNN_TANH": 0, "RNN_RELU": 0}


def count_parameters(network: Classifier) -> int:
    """Trainable parameters of the model, without what only training uses."""
    kept = network.model_state()
    return sum(p.numel() for name, p in network.named_parameters() if name in kept)


def recurrent_multiply_adds(layer: nn.RNNBase, n_steps: int) -> int:
    """Of one utterance: each step of each layer and direction multiplies input and state.

    ``gates * hidden * (inputs + hidden)``, and the products of each unit.
    """
    directions = 2 if layer.bidirectional else 1
    total = 0
    for index in range(layer.num_layers):
        inputs = layer.input_size if index == 0 else layer.hidden_size * directions
        each = _GATES[layer.mode] * layer.hidden_size * (inputs + layer.hidden_size)
        each += _ELEMENTWISE[layer.mode] * layer.hidden_size
        total += directions * each
    return n_steps * total


def count_multiply_adds(network: nn.Module, shape: Sequence[int]) -> int:
    """Multiply-adds for one piece with features of ``shape`` (C, F, T)."""
    total = 0

    def count(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal total
        match module:
            case nn.Conv1d() | nn.Conv2d():
                kernel = prod(module.kernel_size) * module.in_channels // module.groups
                total += output.numel() * kernel
            case nn.Linear():
                total += output.numel() * module.in_features
            case nn.RNNBase():
                total += recurrent_multiply_adds(module, inputs[0].shape[1])
            case SelfAttention():  # scores and weighted sums; its dense layers are counted above
                total += 2 * output.numel() * output.shape[1]

    counted = (nn.Conv1d, nn.Conv2d, nn.Linear, nn.RNNBase, SelfAttention)
    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, counted)]
    training = network.training
    device = next(network.parameters()).device
    try:
        network.eval()
        with torch.no_grad():
            sample: Tensor = torch.zeros(1, *shape, device=device)
            network(sample)
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    return total
