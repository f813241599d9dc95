"""Candidates of both spaces: shapes, time, independence of utterances."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

from emodarts.errors import ShapeError
from emodarts.fast import Implementation
from emodarts.genotype import NONE
from emodarts.recipe import SPACES, CNNSpec, NetworkSpec, NoSeqNN, SearchedSeqNN
from emodarts.searching.supernet import Supernet
from emodarts.space.cell import Cell, MixedOperation, edges
from emodarts.space.cnn_ops import FactorisedReduce, SqueezeExcitation
from emodarts.space.sequence_ops import Recurrent, SelfAttention, TimeAttention
from emodarts.systems.count import count_multiply_adds

CNN_OPERATIONS = tuple(SPACES["all"].cnn)
SEQUENCE_OPERATIONS = tuple(SPACES["all"].sequence)

REAL_SEQUENCE_OPERATIONS = {
    name: build
    for name, build in {**SPACES["all"].sequence, **SPACES["extended"].sequence}.items()
    if name != NONE
}


def test_there_are_8_cnn_and_14_sequence_candidates() -> None:
    assert len(CNN_OPERATIONS) == 8
    assert len(SEQUENCE_OPERATIONS) == 14


@pytest.mark.parametrize("name", ["all", "lstm", "rnn", "lstm_att", "rnn_att"])
def test_a_space_has_candidates_of_one_family(name: str) -> None:
    operations = set(SPACES[name].sequence)
    assert operations <= set(SEQUENCE_OPERATIONS)
    assert {"skip_connect", "none"} <= operations
    if name != "all":
        family = {o.rpartition("_")[0] for o in operations - {"skip_connect", "none"}}
        assert family == {name}


@pytest.mark.parametrize("name", [o for o in SPACES["extended"].cnn if o != NONE])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 12), (7, 5), (1, 1)])
def test_cnn_operations_keep_channels_and_divide_maps_by_the_stride(
    name: str, stride: int, size: tuple[int, int]
) -> None:
    operation = SPACES["extended"].cnn[name](6, stride, True).eval()
    out = operation(torch.randn(2, 6, *size))
    assert out.shape == (2, 6, *(-(-s // stride) for s in size))


def test_separable_convolutions_have_the_layers_of_darts() -> None:
    cnn = SPACES["all"].cnn
    sep, dil = cnn["sep_conv_5x5"](4, 2, False), cnn["dil_conv_3x3"](4, 1, False)
    kinds = [type(m).__name__ for m in sep.children()]
    assert kinds == ["ReLU", "Conv2d", "Conv2d", "BatchNorm2d"] * 2
    convolutions = [m for m in sep.children() if isinstance(m, nn.Conv2d)]
    assert [(c.kernel_size[0], c.stride[0], c.groups) for c in convolutions] == [
        (5, 2, 4),
        (1, 1, 1),
        (5, 1, 4),
        (1, 1, 1),
    ]
    dilated = next(m for m in dil.children() if isinstance(m, nn.Conv2d))
    assert dilated.dilation == (2, 2)
    assert not any(p.requires_grad and p.dim() == 1 for p in sep.parameters())  # no affine BN


@pytest.mark.parametrize("size", [(3, 3), (1, 3), (3, 1)])
def test_plain_convolutions_span_frequency_by_time(size: tuple[int, int]) -> None:
    operation = SPACES["extended"].cnn[f"conv_{size[0]}x{size[1]}"](1, 1, True)
    point = torch.zeros(1, 1, 9, 9)
    point[0, 0, 4, 4] = 1.0
    touched = (operation.eval()(point)[0, 0] - operation(torch.zeros(1, 1, 9, 9))[0, 0]) != 0
    assert (int(touched.any(dim=1).sum()), int(touched.any(dim=0).sum())) == size


def test_a_gate_sees_all_channels_of_its_step_and_no_other_step() -> None:
    gate = SqueezeExcitation(8)
    x = torch.randn(2, 8, 5, 6)
    inner = torch.relu(gate.squeeze.weight[:, :, 0] @ x.mean(dim=2) + gate.squeeze.bias[:, None])
    outer = gate.excite.weight[:, :, 0] @ inner + gate.excite.bias[:, None]
    torch.testing.assert_close(gate(x), 2 * x * torch.sigmoid(outer)[:, :, None])
    changed = x.clone()
    changed[1, 3, :, 2] += 1.0
    seen = (gate(changed) - gate(x)).abs().amax(dim=2) > 0  # (B, C, T)
    assert seen[1, :, 2].all()
    assert int(seen.sum()) == 8
    assert gate.squeeze.out_channels == 2
    assert SqueezeExcitation(2).squeeze.out_channels == 1


def test_self_attention_is_that_of_one_head_and_has_a_second_derivative() -> None:
    own, reference = SelfAttention(6).double(), nn.MultiheadAttention(6, 1, batch_first=True)
    reference = reference.double()
    reference.load_state_dict(
        {
            "in_proj_weight": own.enter.weight,
            "in_proj_bias": own.enter.bias,
            "out_proj.weight": own.leave.weight,
            "out_proj.bias": own.leave.bias,
        }
    )
    x = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(own(x), reference(x, x, x, need_weights=False)[0])
    assert torch.autograd.gradgradcheck(own, x)


def test_multiply_adds_of_self_attention_grow_with_the_square_of_time() -> None:
    for steps in (5, 10):
        found = count_multiply_adds(Sequence(SelfAttention(6)), (1, 6, steps))
        assert found == steps * (6 * 18 + 6 * 6) + 2 * steps * steps * 6


class Sequence(nn.Module):
    """An operation on the frames of a map of one channel."""

    def __init__(self, operation: nn.Module) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.operation(x[:, 0].transpose(1, 2))
        return out


def test_pools_look_at_the_map_and_not_at_its_padding() -> None:
    x = torch.randn(1, 1, 5, 7)
    padded = functional.pad(x, (1, 1, 1, 1), value=torch.nan)
    patches = functional.unfold(padded, 3).view(9, 5, 7)
    expected = {
        "avg_pool_3x3": patches.nanmean(dim=0),
        "max_pool_3x3": patches.nan_to_num(-torch.inf).amax(dim=0),
    }
    for name, value in expected.items():
        pool = next(SPACES["all"].cnn[name](1, 1, False).children())
        torch.testing.assert_close(pool(x)[0, 0], value)


def test_factorised_reduce_sees_even_and_odd_positions() -> None:
    reduce = FactorisedReduce(1, 2, affine=False).eval()
    nn.init.ones_(reduce.even.weight)
    assert reduce.odd is not None
    nn.init.ones_(reduce.odd.weight)
    x = torch.arange(1.0, 26.0).view(1, 1, 5, 5)
    out = reduce(x) * torch.sqrt(torch.tensor(1.0 + reduce.norm.eps))
    torch.testing.assert_close(out[0, 0], x[0, 0, ::2, ::2])
    expected = torch.zeros(3, 3)
    expected[:2, :2] = x[0, 0, 1::2, 1::2]
    torch.testing.assert_close(out[0, 1], expected)


STRESS = """
import sys, torch
from emodarts.recipe import SPACES
from emodarts.space.cnn_ops import FactorisedReduce
torch.set_num_threads(2)
cnn = SPACES["extended"].cnn
modules = [cnn[n](4, 2, False) for n in cnn if n != "none"]
modules += [FactorisedReduce(4, 4, False)]
for _ in range(4):
    for size in (16, 15):
        x = torch.randn(size, 4, 64, 32).to(memory_format=torch.channels_last).requires_grad_()
        for module in modules:
            torch.autograd.grad(module(x).square().sum(), [x, *module.parameters()])
"""


def test_backward_passes_survive_batches_of_changing_size_on_two_threads() -> None:
    """A 1x1 convolution with stride 2 does not: the process is aborted, hence its own one."""
    done = subprocess.run([sys.executable, "-c", STRESS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    reduce = FactorisedReduce(4, 6, affine=False)
    assert all(m.stride == (1, 1) for m in reduce.modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize("name", REAL_SEQUENCE_OPERATIONS)
def test_sequence_operations_keep_shape_and_refuse_what_is_no_sequence(name: str) -> None:
    operation = REAL_SEQUENCE_OPERATIONS[name](6)
    assert operation(torch.randn(3, 5, 6)).shape == (3, 5, 6)
    with pytest.raises(ShapeError, match=r"\(3, 6\)"):
        operation(torch.randn(3, 6))


@pytest.mark.parametrize("name", REAL_SEQUENCE_OPERATIONS)
def test_sequence_operations_run_over_time_and_never_over_the_batch(name: str) -> None:
    operation = REAL_SEQUENCE_OPERATIONS[name](6).eval()
    x = torch.randn(4, 5, 6)
    changed = x.clone()
    changed[1, 2] += 1.0
    difference = (operation(changed) - operation(x)).abs().amax(dim=2)  # (B, T)
    assert torch.all(difference[[0, 2, 3]] == 0)
    assert difference[1, 2] > 0
    if name == "skip_connect":
        assert torch.all(difference[1, [0, 1, 3, 4]] == 0)
    elif "att" in name:  # bidirectional: the change is seen everywhere
        assert torch.all(difference[1] > 0)
    elif "tcn" in name:  # kernel 3: the neighbours see it
        assert torch.equal(difference[1] > 0, torch.tensor([False, True, True, True, False]))
    else:
        assert torch.all(difference[1, :2] == 0)
        assert torch.all(difference[1, 2:] > 0)


@pytest.mark.parametrize(
    ("name", "kind", "layers", "directions"),
    [("lstm_3", nn.LSTM, 3, 1), ("rnn_4", nn.RNN, 4, 1), ("lstm_att_2", nn.LSTM, 2, 2)],
)
def test_names_say_kind_layers_and_direction(
    name: str, kind: type, layers: int, directions: int
) -> None:
    operation = SPACES["all"].sequence[name](6)
    assert isinstance(operation, Recurrent)
    assert isinstance(operation.recurrent, kind)
    assert operation.recurrent.num_layers == layers
    assert operation.recurrent.bidirectional == (directions == 2)
    assert (operation.attention is not None) == (directions == 2)


def test_attention_is_a_softmax_over_time() -> None:
    attention = TimeAttention(3)
    x = torch.randn(2, 7, 3)
    scores = x @ attention.score.weight[0] + attention.score.bias  # (B, T)
    weights = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
    torch.testing.assert_close(attention(x), torch.einsum("bt,btc->bc", weights, x))


@pytest.mark.parametrize(
    ("implementation", "layout"),
    [
        ("plain", torch.channels_last),
        ("torch", torch.channels_last),
        ("compiled", torch.contiguous_format),
    ],
)
def test_maps_have_the_layout_that_their_cells_are_fast_in(
    implementation: Implementation, layout: torch.memory_format
) -> None:
    """OneDNN is several times slower in the other one; one channel hides the difference."""
    spec = NetworkSpec(cnn=CNNSpec(cells=1, nodes=1, channels=2), seqnn=NoSeqNN(mode="none"))
    maps = Supernet(spec, 8, 3, implementation=implementation).network.cnn_maps(
        torch.randn(2, 1, 8, 9), {"reduction": torch.ones(2, 8)}
    )
    assert all(m.is_contiguous(memory_format=layout) for m in maps)


def test_the_context_of_an_attention_is_joined_to_every_step() -> None:
    operation = SPACES["all"].sequence["rnn_att_1"](4)
    assert isinstance(operation, Recurrent)
    assert operation.attention is not None
    x = torch.randn(2, 5, 4)
    steps = operation.recurrent(x)[0]
    context = operation.attention(steps)
    expected = [operation.project(torch.cat([steps[:, t], context], dim=1)) for t in range(5)]
    torch.testing.assert_close(operation(x), torch.stack(expected, dim=1))


def test_mixed_operation_is_the_weighted_sum_without_none() -> None:
    names = ("a", NONE, "b")
    mixed = MixedOperation(names, [nn.Identity(), nn.Flatten(0, -1)])
    x = torch.randn(5)
    out = mixed(x, torch.tensor([0.2, 0.5, 0.3]))
    torch.testing.assert_close(out, 0.5 * x)


def test_cell_sums_edges_and_joins_nodes() -> None:
    class Scale(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = factor

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.factor * x

    ends = edges(2)
    assert ends == [(0, 0), (1, 0), (0, 1), (1, 1), (2, 1)]
    cell = Cell((nn.Identity(), nn.Identity()), ends, [Scale(f) for f in (1, 2, 3, 4, 5)], 1)
    a, b = torch.randn(2, 3), torch.randn(2, 3)
    first = a + 2 * b
    torch.testing.assert_close(cell(a, b), torch.cat([first, 3 * a + 4 * b + 5 * first], dim=1))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("space", SPACES)
def test_untrained_cnn_candidates_are_equally_loud(space: str, stride: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 16, 24, 24)
    candidates = CNNSpec(space=space).operations
    outs = {n: build(16, stride, False)(x) for n, build in candidates.items() if n != NONE}
    loud = {name: out.std().item() for name, out in outs.items()}
    assert max(loud.values()) < 1.5 * min(loud.values()), loud


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("space", SPACES)
def test_untrained_sequence_candidates_are_equally_loud(space: str, seed: int) -> None:
    torch.manual_seed(seed)
    x = nn.Linear(40, 32)(torch.randn(8, 20, 40))
    candidates = SearchedSeqNN(space=space, width=32).operations
    loud = [build(32)(x).std().item() for name, build in candidates.items() if name != NONE]
    assert max(loud) < 1.5 * min(loud)
    bare = SearchedSeqNN(space=space, normalise=False).operations
    loud = [build(32)(x).std().item() for name, build in bare.items() if name != NONE]
    assert max(loud) > 1.5 * min(loud)
