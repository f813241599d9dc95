"""The hand-engineered recurrent networks: what the published ones are said to be, and over time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from emodarts.recipe.system import HandMadeRecurrentSpec
from emodarts.systems.count import count_multiply_adds, count_parameters
from emodarts.systems.hand_made import HandMadeRecurrentNetwork

SPECS = {
    "cnn-lstm": HandMadeRecurrentSpec(convolution=True, width=128, bidirectional=True),
    "cnn-lstm-att": HandMadeRecurrentSpec(
        convolution=True, width=128, bidirectional=True, attention=True
    ),
    "rnn": HandMadeRecurrentSpec(recurrent="rnn", layers=3),
    "lstm": HandMadeRecurrentSpec(),
}


def maps_of(n_channels: int, n_features: int) -> Any:
    return SimpleNamespace(n_channels=n_channels, n_features=n_features)


#: Sizes of the dense layers' parameters behind 256 and 512 units.
DENSE = {256: 256 * 32 + 32 + 32 * 4 + 4, 512: 512 * 32 + 32 + 32 * 4 + 4}
CONVOLUTION = 66 * 66 * 4  # multiply-adds of a 2 x 2 kernel at every second position of 132 x 132


@pytest.mark.parametrize(
    ("name", "parameters", "multiply_adds"),
    [
        (  # a bidirectional LSTM of 128 units reads the 33 rows at each of 33 steps
            "cnn-lstm",
            5 + 2 * 4 * 128 * (33 + 128 + 2) + DENSE[256],
            CONVOLUTION + 33 * 2 * 128 * (4 * (33 + 128) + 3) + 256 * 32 + 32 * 4,
        ),
        (
            "cnn-lstm-att",
            5 + 2 * 4 * 128 * (33 + 128 + 2) + 257 + DENSE[256],
            CONVOLUTION + 33 * (2 * 128 * (4 * (33 + 128) + 3) + 256) + 256 * 32 + 32 * 4,
        ),
        (
            "rnn",
            512 * (128 + 512 + 2) + 2 * 512 * (512 + 512 + 2) + DENSE[512],
            128 * (512 * (128 + 512) + 2 * 512 * (512 + 512)) + 512 * 32 + 32 * 4,
        ),
        (
            "lstm",
            4 * 512 * (128 + 512 + 2) + DENSE[512],
            128 * 512 * (4 * (128 + 512) + 3) + 512 * 32 + 32 * 4,
        ),
    ],
)
def test_sizes_are_those_of_a_hand_count(name: str, parameters: int, multiply_adds: int) -> None:
    network = HandMadeRecurrentNetwork(SPECS[name], maps_of(1, 128), 4)
    assert count_parameters(network) == parameters
    assert count_multiply_adds(network, (1, 128, 128)) == multiply_adds


@pytest.mark.parametrize("name", SPECS)
def test_utterances_of_a_batch_answer_as_each_does_alone_cut_to_its_frames(name: str) -> None:
    torch.manual_seed(0)
    network = HandMadeRecurrentNetwork(SPECS[name], maps_of(2, 12), 3).eval()
    features = torch.randn(5, 2, 12, 41)
    lengths = (41, 24, 23, 2, 1)
    for row, length in enumerate(lengths):
        features[row, ..., length:] = torch.nan
    with torch.inference_mode():
        together = network(features)
        for row, length in enumerate(lengths):
            alone = network(features[row : row + 1, ..., :length])
            torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", SPECS)
def test_the_order_of_frames_counts(name: str) -> None:
    """As it cannot where a map is one step, or where the LSTM runs over the batch."""
    torch.manual_seed(0)
    network = HandMadeRecurrentNetwork(SPECS[name], maps_of(1, 12), 3).eval()
    features = torch.randn(3, 1, 12, 40)
    halves = torch.cat([features[..., 20:], features[..., :20]], dim=3)
    with torch.inference_mode():
        assert not torch.allclose(network(features), network(halves), atol=1e-4)


def test_attention_weighs_steps_and_the_mean_does_not() -> None:
    torch.manual_seed(0)
    network = HandMadeRecurrentNetwork(SPECS["cnn-lstm-att"], maps_of(1, 12), 3).eval()
    plain = HandMadeRecurrentNetwork(SPECS["cnn-lstm"], maps_of(1, 12), 3).eval()
    plain.load_state_dict(network.state_dict(), strict=False)
    features = torch.randn(3, 1, 12, 40)
    assert network.attention is not None
    with torch.inference_mode():
        assert not torch.allclose(network(features), plain(features), atol=1e-5)
        torch.nn.init.zeros_(network.attention.score.weight)  # all steps weigh the same
        torch.testing.assert_close(network(features), plain(features))
