"""Supernets and discrete networks of fast cells against plain ones, in float64."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from emodarts.fast import IMPLEMENTATIONS, Implementation, classes_of
from emodarts.genotype import NONE, CellGenotype, Edge, Genotype
from emodarts.recipe import SPACES, CNNSpec, FixedSeqNN, NetworkSpec, NoSeqNN, SearchedSeqNN
from emodarts.recipe.network import StemSpec
from emodarts.searching.gradients import LookAhead, first_order_gradient, second_order_gradient
from emodarts.searching.supernet import Supernet
from emodarts.space.cell import Cell
from emodarts.systems.discrete import DiscreteNetwork

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from search_step import Counted

CNN_OPERATIONS = tuple(SPACES["all"].cnn)

TARGETS = torch.tensor([0, 1, 2, 0, 1])


def cell(*nodes: tuple[str, int, str, int]) -> CellGenotype:
    return tuple((Edge(a, i), Edge(b, j)) for a, i, b, j in nodes)


#: Every operation reads an input of the cell: with stride 2 in a reduction cell.
OUTER = cell(
    ("max_pool_3x3", 0, "sep_conv_5x5", 1),
    ("dil_conv_3x3", 0, "skip_connect", 1),
    ("sep_conv_3x3", 0, "avg_pool_3x3", 1),
    ("skip_connect", 0, "dil_conv_5x5", 1),
)
#: Every operation reads a node: with stride 1 in a reduction cell, too.
INNER = cell(
    ("dil_conv_5x5", 0, "max_pool_3x3", 1),
    ("avg_pool_3x3", 2, "sep_conv_3x3", 1),
    ("skip_connect", 2, "sep_conv_5x5", 3),
    ("max_pool_3x3", 2, "dil_conv_3x3", 4),
)
#: Nodes to which no convolution leads.
WITHOUT_CONVOLUTIONS = cell(
    ("skip_connect", 0, "skip_connect", 1),
    ("max_pool_3x3", 0, "avg_pool_3x3", 1),
    ("skip_connect", 2, "skip_connect", 3),
    ("avg_pool_3x3", 3, "max_pool_3x3", 2),
)
GENOTYPES = {
    "outer": Genotype(OUTER, OUTER),
    "inner": Genotype(INNER, INNER),
    "without convolutions": Genotype(WITHOUT_CONVOLUTIONS, WITHOUT_CONVOLUTIONS),
}


def pair(
    genotype: str = "outer", channels: int = 3, size: tuple[int, int] = (9, 13)
) -> tuple[DiscreteNetwork, DiscreteNetwork, Tensor]:
    """A compiled and a plain network of the same weights, and features."""
    pytest.importorskip("numba")
    spec = NetworkSpec(
        cnn=CNNSpec(cells=4, nodes=4, channels=channels), seqnn=NoSeqNN(mode="none"), dropout=0.2
    )
    torch.manual_seed(0)
    nets = [
        DiscreteNetwork(
            GENOTYPES[genotype],
            spec,
            size[0],
            3,
            drop_path=1.0,
            auxiliary_weight=0.4,
            implementation=implementation,
        )
        for implementation in ("compiled", "plain")
    ]
    with torch.no_grad():
        for parameter in nets[0].parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))  # gains are not 1, shifts not 0
    nets[1].load_state_dict(nets[0].state_dict())
    for net in nets:
        net.double().train().begin_epoch(0.4)
    return nets[0], nets[1], torch.randn(len(TARGETS), 1, *size, dtype=torch.float64)


def answers(network: DiscreteNetwork, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, auxiliary logits and loss."""
    torch.manual_seed(1)  # of dropout and drop path
    logits, [(extra, _, _)] = network.forward_with_auxiliary(x)
    loss = functional.cross_entropy(logits, TARGETS)
    return logits, extra, loss + 0.4 * functional.cross_entropy(extra, TARGETS)


def assert_the_same(compiled: DiscreteNetwork, plain: DiscreteNetwork, x: Tensor) -> None:
    """Answers, the gradient of every parameter, and what is left in the buffers."""
    found, expected = answers(compiled, x), answers(plain, x)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    named = dict(plain.named_parameters())
    references = torch.autograd.grad(expected[2], list(named.values()))
    gradients = torch.autograd.grad(found[2], list(compiled.parameters()))
    whole = torch.cat([g.flatten() for g in references]).norm()
    for name, gradient, reference in zip(named, gradients, references, strict=True):
        difference = (gradient - reference).norm()
        assert difference < 1e-8 * max(reference.norm(), 1e-4 * whole), name
    for name, buffer in plain.named_buffers():
        torch.testing.assert_close(
            compiled.get_buffer(name), buffer, rtol=1e-10, atol=1e-12, msg=name
        )


def test_the_genotypes_have_every_operation() -> None:
    for nodes in (OUTER, INNER):
        operations = {edge.operation for node in nodes for edge in node}
        assert operations == set(CNN_OPERATIONS) - {NONE}


@pytest.mark.parametrize("channels", [3, 8])
@pytest.mark.parametrize("size", [(9, 13), (16, 12)], ids=str)
@pytest.mark.parametrize("genotype", GENOTYPES)
def test_a_training_step_is_that_of_plain_ones(
    genotype: str, size: tuple[int, int], channels: int
) -> None:
    compiled, plain, x = pair(genotype, channels, size)
    assert_the_same(compiled, plain, x)


@pytest.mark.parametrize("genotype", GENOTYPES)
def test_answers_and_gradients_out_of_training_are_those_of_plain_ones(genotype: str) -> None:
    compiled, plain, x = pair(genotype)
    for network in (compiled, plain):
        answers(network, x)  # running statistics that are not trivial
        network.eval()
    assert_the_same(compiled, plain, x)


def test_dropped_edges_are_those_of_plain_ones() -> None:
    """Of the same seed the same are dropped, and as many draws are left to what comes after."""
    compiled, plain, x = pair("inner")
    some, after = answers(compiled, x)[0], torch.rand(3)
    answers(plain, x)
    assert torch.equal(torch.rand(3), after)
    for probability in (0.0, 0.999):  # no edge of any utterance, and all
        for network in (compiled, plain):
            network.begin_epoch(probability)
        assert_the_same(compiled, plain, x)
        assert (answers(compiled, x)[0] - some).abs().max() > 1e-3
        answers(plain, x)  # running statistics move as far


def test_trainings_end_with_the_same_weights() -> None:
    compiled, plain, x = pair("inner")
    start = {k: v.clone() for k, v in plain.state_dict().items()}
    for network in (compiled, plain):
        optimiser = torch.optim.SGD(network.parameters(), 0.05, 0.9, weight_decay=1e-3)
        for _ in range(3):
            optimiser.zero_grad()
            answers(network, x)[2].backward()
            optimiser.step()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(
            compiled.state_dict()[name], value, rtol=1e-7, atol=1e-9, msg=name
        )
    moved = [(v - start[name]).abs().max() for name, v in plain.state_dict().items()]
    assert max(moved) > 1e-2


def test_the_state_of_a_network_does_not_depend_on_its_implementation() -> None:
    compiled, plain, _ = pair()
    assert {type(c) for c in compiled.cnn_cells} == {classes_of("compiled").cnn_cell}
    assert {type(c) for c in plain.cnn_cells} == {Cell}
    assert list(compiled.state_dict()) == list(plain.state_dict())


# Without cells


@pytest.mark.parametrize("kind", ["lstm", "rnn", "gru"])
def test_a_training_step_of_a_plain_cnn_with_recurrent_layers(kind: str) -> None:
    """With utterances that differ in length; maps are in the layout in which convolutions are
    faster, whatever CNN cells would take."""
    pytest.importorskip("numba")
    spec = NetworkSpec(
        stem=StemSpec(channels=(3, 4), frequency_strides=(2, 2), time_strides=(2, 1)),
        cnn=CNNSpec(cells=0),
        frequency="join",
        projection=6,
        seqnn=FixedSeqNN(mode="fixed", recurrent=kind, layers=2, width=5, bidirectional=True),
        dropout=0.2,
    )
    torch.manual_seed(0)
    compiled, plain = (
        DiscreteNetwork(Genotype(), spec, 9, 3, implementation=name).double().train()
        for name in ("compiled", "plain")
    )
    assert isinstance(compiled.fixed, classes_of("compiled").recurrent)
    plain.load_state_dict(compiled.state_dict())
    x = torch.randn(len(TARGETS), 1, 9, 13, dtype=torch.float64)
    for row, length in enumerate((13, 12, 7, 2, 1)):
        x[row, :, :, length:] = torch.nan
    found = []
    for network in (compiled, plain):
        torch.manual_seed(1)  # of dropout
        assert all(m.is_contiguous(memory_format=torch.channels_last) for m in network.cnn_maps(x))
        torch.manual_seed(1)
        loss = functional.cross_entropy(network(x), TARGETS)
        found.append([loss, *torch.autograd.grad(loss, list(network.parameters()))])
    for own, expected in zip(*found, strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-8, atol=1e-11)


# Supernets


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("implementation", [name for name in IMPLEMENTATIONS if name != "plain"])
def test_steps_of_a_search_end_with_the_same_alphas_and_weights(
    implementation: Implementation, order: int, missing: bool
) -> None:
    if implementation == "compiled":
        pytest.importorskip("numba")
    spec = NetworkSpec(
        cnn=CNNSpec(cells=3, nodes=2, channels=2),
        seqnn=SearchedSeqNN(space="all", cells=1, nodes=1, width=3),
        dropout=0.3,
    )
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 6, 1, 8, 10, generator=generator, dtype=torch.float64)
    if missing:
        features[:, 1, ..., 7:] = features[:, 4, ..., 3:] = torch.nan
    targets = torch.arange(6) % 3
    train, validation = (features[0], targets), (features[1], targets.flip(0))
    ends = []
    for name in (implementation, "plain"):
        torch.manual_seed(0)
        net = Supernet(spec, 8, 3, 0.5, implementation=name).double().train()
        assert {type(c) for c in net.network.cnn_cells} == {classes_of(name).cnn_cell}
        assert {type(c) for c in net.network.sequence_cells} == {classes_of(name).sequence_cell}
        start = {key: alpha.detach().clone() for key, alpha in net.alpha_parameters().items()}
        for step in range(2):
            torch.manual_seed(step)  # of dropout
            if order == 1:
                found = first_order_gradient(net, validation, functional.cross_entropy)
            else:
                found = second_order_gradient(
                    net,
                    train,
                    validation,
                    functional.cross_entropy,
                    LookAhead(0.05, 0.0, 0.0, {}),
                    hessian="finite_difference",
                    epsilon=0.3,
                )
            loss = functional.cross_entropy(net(train[0]), train[1])
            weights = list(net.weight_parameters().values())
            gradients = torch.autograd.grad(loss, weights)
            with torch.no_grad():
                for key, alpha in net.alpha_parameters().items():
                    alpha -= 0.1 * found[key]
                for weight, gradient in zip(weights, gradients, strict=True):
                    weight -= 0.05 * gradient
        moved = {k: (v - start[k]).abs().max() for k, v in net.alpha_parameters().items()}
        assert min(moved.values()) > 1e-6
        ends.append(net.state_dict())
    for key, value in ends[1].items():
        torch.testing.assert_close(ends[0][key], value, rtol=1e-7, atol=1e-8, msg=key)


def test_torch_cells_make_less_than_half_of_the_calls_of_plain_ones() -> None:
    """A GPU waits for calls: these cells were once three times as many, unseen on a CPU."""
    spec = NetworkSpec(
        cnn=CNNSpec(cells=3, nodes=4, channels=2), seqnn=NoSeqNN(mode="none"), dropout=0.0
    )
    calls = {}
    for name in ("torch", "plain"):
        net = Supernet(spec, 8, 3, implementation=name).train()
        with Counted() as counted:
            net(torch.randn(2, 1, 8, 8)).sum().backward()
        calls[name] = counted.calls
    assert 2 * calls["torch"] < calls["plain"]
