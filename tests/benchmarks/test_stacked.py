"""Networks in lockstep are the product's, and none of them influences another."""

import math
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from emodarts.errors import RecipeError
from emodarts.recipe import Recipe, load_recipe
from emodarts.systems.discrete import DiscreteNetwork
from emodarts.training.batches import predict_logits

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from stacked import AdamW, Stack, Views, build, cross_entropy, require_stackable

SMALL = (
    "features.n_mels=16",
    "network.stem={channels: [3, 4], frequency_strides: [2, 2], time_strides: [2, 1]}",
    "network.projection=6",
    "network.dropout=0",
    "network.seqnn.width=5",
)
K, B, F, T = 3, 4, 16, 22
CPU = torch.device("cpu")


def recipe(*changes: str) -> Recipe:
    return load_recipe("default", [*SMALL, *changes])


def networks(*changes: str, count: int = 2) -> list[DiscreteNetwork]:
    """Networks with weights and statistics of their own."""
    found = [build(recipe(*changes), K, seed) for seed in range(count)]
    with torch.no_grad():
        for network in found:
            for module in network.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.uniform_(-0.5, 0.5)
                    module.running_mean.uniform_(-0.5, 0.5)  # type: ignore[union-attr]
                    module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return found


def maps(count: int = 2, *, missing: bool = True) -> Tensor:
    """Features ``(N, B, 1, F, T)``, some of them short."""
    found = torch.randn(count, B, 1, F, T, generator=torch.Generator().manual_seed(1))
    if missing:
        found[:, 1, ..., 9:] = math.nan
        found[:, 2, ..., 16:] = math.nan
    return found


STRUCTURES = [
    (),
    ("network.pooling=statistics",),
    ("network.pooling=attention",),
    ("network.seqnn={mode: none}",),
    ("network.stem.kernel=[5, 3]",),
]


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda s: "".join(s) or "default")
def test_logits_and_gradients_are_those_of_each_network(
    structure: tuple[str, ...], missing: bool
) -> None:
    alone = networks(*structure)
    together = Stack(alone, CPU)
    features, targets = maps(missing=missing), torch.tensor([[0, 1, 2, 0], [2, 2, 1, 1]])
    weights, smoothing = torch.tensor([[1.0, 0.5, 2.0], [0.7, 1.3, 1.0]]), torch.tensor([0.1, 0.0])

    in_eval = together(features)
    in_training = together(features, torch.zeros(2))
    losses = cross_entropy(in_training, targets, weights, smoothing)
    gradients = torch.autograd.grad(losses.sum(), list(together.parameters.values()))
    for k, network in enumerate(alone):
        torch.testing.assert_close(
            in_eval[k], predict_logits(network, features[k]), atol=1e-5, rtol=0
        )
        logits = network.train()(features[k])
        torch.testing.assert_close(in_training[k], logits, atol=1e-5, rtol=0)
        loss = functional.cross_entropy(
            logits, targets[k], weights[k], label_smoothing=float(smoothing[k])
        )
        torch.testing.assert_close(losses[k], loss)
        loss.backward()  # type: ignore[no-untyped-call]
        for (name, p), gradient in zip(network.named_parameters(), gradients, strict=True):
            assert name in together.parameters
            torch.testing.assert_close(gradient[k], p.grad, atol=1e-5, rtol=1e-4)
        for name, buffer in network.named_buffers():
            if "running" in name:
                torch.testing.assert_close(together.buffers[name][k], buffer)


def test_dropout_is_that_of_each_network() -> None:
    together = Stack(networks(), CPU)
    torch.manual_seed(0)
    features = maps()
    answers = torch.stack([together(features, torch.tensor([0.0, 0.5])) for _ in range(20)])
    assert torch.allclose(answers[0, 0], answers[1, 0])
    assert answers[:, 1].std(0).min() > 1e-3
    # A mean over masks is near the answer without any, as what is kept is scaled up.
    assert (
        abs(answers[:, 1].mean() - Stack(networks(), CPU)(features, torch.zeros(2))[1].mean()) < 0.1
    )


def test_networks_do_not_influence_each_other() -> None:
    """Whatever the second is and reads, the first trains in the same way."""
    found = []
    for second in (1, 7):
        together = Stack([build(recipe(), K, 0), build(recipe(), K, second)], CPU)
        parameters = list(together.parameters.values())
        optimiser = AdamW(parameters, torch.tensor([0.1, 0.1]), 0.9, 0.01)
        for _ in range(3):
            features = maps()
            features[1] *= second
            logits = together(features, torch.zeros(2))
            losses = cross_entropy(
                logits, torch.zeros(2, B, dtype=torch.long), torch.ones(2, K), torch.zeros(2)
            )
            gradients = torch.autograd.grad(losses.sum(), parameters)
            optimiser.step(gradients, torch.tensor([0.01, 0.01 * second]))
        found.append([*parameters, *(b for k, b in together.buffers.items() if "running" in k)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one[0], other[0])
        assert not torch.equal(one[1], other[1])


def test_a_step_is_that_of_adamw_with_clipping() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 3), (5,)]
    stacked = [torch.randn(2, *shape, generator=generator) for shape in shapes]
    decay, rates = (0.05, 0.0), ((0.1, 0.2), (0.05, 0.1), (0.01, 0.3))
    alone = [[p[k].clone().requires_grad_() for p in stacked] for k in range(2)]
    theirs = [
        torch.optim.AdamW(own, 1.0, (0.8, 0.999), weight_decay=d)
        for own, d in zip(alone, decay, strict=True)
    ]
    ours = AdamW(stacked, torch.tensor(decay), 0.8, 1.5)
    for rate in rates:
        # The gradients of the first are too long and those of the second are not.
        size = torch.tensor([3.0, 0.1])
        gradients = [
            torch.randn(p.shape, generator=generator) * size.view(2, *[1] * (p.dim() - 1))
            for p in stacked
        ]
        ours.step(gradients, torch.tensor(rate))
        for k, optimiser in enumerate(theirs):
            for p, gradient in zip(alone[k], gradients, strict=True):
                p.grad = gradient[k].clone()
            torch.nn.utils.clip_grad_norm_(alone[k], 1.5)
            optimiser.param_groups[0]["lr"] = rate[k]
            optimiser.step()
    for k in range(2):
        for p, own in zip(stacked, alone[k], strict=True):
            torch.testing.assert_close(p[k], own.detach())


PLAIN = (
    "training.perturbation={}",
    "training.masks={frequency_masks: 0, time_masks: 0}",
    "training.crop=0.2",
)


def test_views_are_those_of_each_setting() -> None:
    """A network without perturbation sees stretches of its own maps, whatever others see."""
    strong = (
        "training.crop=0.2",
        "training.perturbation={speed: [1.4, 1.5], vtlp: [1.4, 1.5], equaliser: 0.5, "
        "mix_statistics: 1.0}",
        "training.masks={frequency_masks: 2, frequency_width: 8, time_masks: 1, time_width: 4}",
    )
    torch.manual_seed(0)
    views = Views([recipe(*PLAIN), recipe(*strong)], CPU)
    features = maps()
    features[0] = torch.arange(T, dtype=torch.float32) + 100 * torch.arange(B).view(B, 1, 1, 1)
    plain, changed = views.draw(features)
    assert plain.shape == (B, 1, F, views.frames)
    for k, row in enumerate(plain):
        start = row[0, 0, 0].round()
        assert 100 * k <= start <= 100 * k + T - views.frames
        expected = (start + torch.arange(views.frames)).expand(1, F, -1)
        torch.testing.assert_close(row, expected, atol=1e-3, rtol=0)
    assert changed[~torch.isnan(changed)].abs().max() < 10  # nothing of the first came in
    assert (changed == 0).any()
    assert torch.isnan(changed).any((1, 2, 3)).tolist() == [False, True, False, False]


def test_masks_have_the_number_and_width_of_each_setting() -> None:
    torch.manual_seed(0)
    counts = ((0, 0, 0, 0), (1, 5, 0, 0), (0, 0, 2, 4))
    keys = ("frequency_masks", "frequency_width", "time_masks", "time_width")
    views = Views(
        [
            recipe(*PLAIN, *(f"training.masks.{k}={v}" for k, v in zip(keys, c, strict=True)))
            for c in counts
        ],
        CPU,
    )
    features = 1 + torch.rand(3, 400, 1, F, T)
    hidden = views.draw(features)[:, :, 0] == 0
    assert not hidden[0].any()
    bands, frames = hidden.all(3).sum(2), hidden.all(2).sum(2)
    assert bands[1].unique().tolist() == [0, 1, 2, 3, 4, 5]
    assert frames[2].unique().tolist() == list(range(9))
    assert not bands[2].any()
    assert not frames[1].any()


@pytest.mark.parametrize(
    "change",
    [
        "network.cnn.cells=2",
        "network.deltas=1",
        "training.mixup=0.2",
        "training.optimiser=sgd",
        "network.seqnn.layers=2",
    ],
)
def test_what_lockstep_lacks_is_refused(change: str) -> None:
    key = change.partition("=")[0].replace(".cells", "").replace(".layers", "")
    with pytest.raises(RecipeError, match=key):
        require_stackable(recipe(change))
