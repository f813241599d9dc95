"""Every implementation of a cell against the plain one, in float64, through the same cases.

Output, gradients of inputs, weights and all parameters, and running statistics.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from emodarts.fast import IMPLEMENTATIONS, Implementation, classes_of
from emodarts.fast.base import differentiable_twice
from emodarts.genotype import NONE
from emodarts.recipe import SPACES
from emodarts.space.cell import Cell, DropPath, Ends, MixedOperation, edges
from emodarts.space.cnn_ops import FactorisedReduce, ProjectMap, SeparableConvolution
from emodarts.space.sequence_ops import Normalised

FAST: list[Implementation] = [name for name in IMPLEMENTATIONS if name != "plain"]
BATCH = 4


@pytest.fixture(params=FAST)
def implementation(request: pytest.FixtureRequest) -> Implementation:
    if request.param == "compiled":
        pytest.importorskip("numba")
    found: Implementation = request.param
    return found


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


# Operations that no implementation knows


class Gated(nn.Module):
    """Maps times a gate, with a batch norm whose statistics move."""

    def __init__(self, channels: int, stride: int, affine: bool) -> None:
        super().__init__()
        self.gate = nn.Conv2d(channels, channels, 3, stride, 1)
        self.norm = nn.BatchNorm2d(channels, affine=affine)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, F, T)`` -> the same, or half of both sizes."""
        kept = x[:, :, :: self.stride, :: self.stride]
        out: Tensor = self.norm(kept * torch.sigmoid(self.gate(x)))
        return out


class Widened(SeparableConvolution):
    """A separable convolution that does something else as well."""

    def __init__(self, channels: int, stride: int, affine: bool) -> None:
        super().__init__(channels, 3, stride, 1, 2, affine)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, F, T)`` -> the same, or half of both sizes."""
        out: Tensor = super().forward(x).tanh()
        return out


class GatedSteps(nn.Module):
    """A gated recurrent unit."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.recurrent = nn.GRU(width, width, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, T, H)`` -> the same."""
        out: Tensor = self.recurrent(x)[0]
        return out


# Cells

Builder = Callable[[int, int, bool], nn.Module]


def separable(kernel: int, dilation: int = 1, repeats: int = 2) -> Builder:
    return lambda channels, stride, affine: SeparableConvolution(
        channels, kernel, stride, dilation, repeats, affine
    )


SEQUENCE = {**SPACES["all"].sequence, **SPACES["extended"].sequence}
PAPERS = [o for name, o in SPACES["all"].cnn.items() if name != NONE]
OPERATIONS: dict[str, Sequence[Builder]] = {
    "papers": PAPERS,
    "with foreign ones": [Gated, *PAPERS, Widened],
    "foreign ones alone": [Gated],
    "without convolutions": PAPERS[:3],
    "gates of channels": [SPACES["extended"].cnn["se_conv_3x3"], PAPERS[0]],
    "sizes of kernels": [separable(kernel) for kernel in (1, 3, 5, 7, 9)],
    "dilations": [separable(3, 3, 1), separable(7, 2, 1), separable(5, 2, 1), separable(3, 2, 3)],
}


@dataclass(frozen=True)
class Case:
    """A CNN cell: its candidates, size, and the sizes of maps."""

    operations: str = "papers"
    nodes: int = 2
    channels: int = 3
    size: tuple[int, int] = (9, 13)
    reduction: bool = False
    after_reduction: bool = False
    affine: bool = False


CASES = [
    Case(),
    Case(reduction=True),
    Case(nodes=1, size=(1, 1)),
    Case(nodes=3, channels=8, size=(16, 21), reduction=True),
    Case(nodes=4, channels=4, size=(6, 34), after_reduction=True),
    Case(channels=1, size=(5, 4), reduction=True, after_reduction=True),
    Case(affine=True, reduction=True),
    *(Case(o, reduction=r) for o in list(OPERATIONS)[1:] for r in (False, True)),
]


class InPlace(nn.Module):
    """Any module as an edge that no implementation knows."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """Whatever the module does."""
        out: Tensor = self.module(x)
        return out


def cnn_cell(implementation: Implementation, case: Case, *, discrete: bool = False) -> Cell:
    """With batch norms and parameters that are not as they begin."""
    torch.manual_seed(0)
    ends = edges(case.nodes)
    if discrete:
        ends = [end for end in ends if end[0] in (end[1], end[1] + 1)]
    modules: list[nn.Module] = []
    builders = OPERATIONS[case.operations]
    affine = case.affine or discrete
    for row, (source, _) in enumerate(ends):
        stride = 2 if case.reduction and source < 2 else 1
        if not discrete:
            operations = [build(case.channels, stride, affine) for build in builders]
            names = [f"candidate {k}" for k in range(len(builders))]
            modules.append(MixedOperation([*names[:1], NONE, *names[1:]], operations))
            continue
        operation = builders[row % len(builders)](case.channels, stride, affine)
        if isinstance(operation, nn.Identity):
            modules.append(operation)
        else:
            dropped = DropPath(operation)
            dropped.probability = 0.4
            modules.append(dropped if row % 5 else InPlace(operation))
    first = (FactorisedReduce if case.after_reduction else ProjectMap)(5, case.channels, affine)
    inputs = first, ProjectMap(7, case.channels, affine)
    cell = classes_of(implementation).cnn_cell(inputs, ends, modules, 1)
    with torch.no_grad():
        for parameter in cell.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return cell.double().train()


def cnn_inputs(case: Case) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    sizes = [[2 * n - 1 if case.after_reduction else n for n in case.size], case.size]
    return [
        torch.randn(BATCH, c, *size, generator=generator, dtype=torch.float64).requires_grad_()
        for c, size in zip((5, 7), sizes, strict=True)
    ]


def mixing_weights(cell: Cell) -> Tensor:
    columns = max(1 + max(e.columns) for e in cell.edges if isinstance(e, MixedOperation))
    generator = torch.Generator().manual_seed(2)
    alphas = torch.randn(len(cell.edges), columns, generator=generator, dtype=torch.float64)
    return torch.softmax(alphas, dim=-1).requires_grad_()


def computed(cell: Cell, inputs: Sequence[Tensor], weights: Tensor | None) -> dict[str, Tensor]:
    """Output, all gradients, and the buffers afterwards."""
    torch.manual_seed(3)  # of dropped edges
    out = cell(*inputs, weights)
    # A sum that sees order and sign of everything.
    loss = (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)).sin().sum()
    leaves = {"first": inputs[0], "second": inputs[1], **dict(cell.named_parameters())}
    if weights is not None:
        leaves["weights"] = weights
    found = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
    buffers = {name: buffer.clone() for name, buffer in cell.named_buffers()}
    return {
        "output": out.detach(),
        **{f"gradient of {name}": g for name, g in zip(leaves, found, strict=True)},
        **buffers,
    }


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    scale = max(value.double().norm() for name, value in expected.items() if "gradient" in name)
    for name, value in expected.items():
        if "gradient" in name:
            assert (found[name] - value).norm() < 1e-8 * max(value.norm(), 1e-4 * scale), name
        else:
            torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-11, msg=name)


def assert_as_plain(
    build: Callable[[Implementation], Cell],
    implementation: Implementation,
    inputs: Sequence[Tensor],
    *,
    training: bool = True,
    mixed: bool = True,
) -> None:
    cell, plain = build(implementation), build("plain")
    assert isinstance(cell, classes_of(implementation)[1 if cell.dim == -1 else 0])
    if not training:
        for each in (cell, plain):
            computed(each, inputs, mixing_weights(plain) if mixed else None)  # moves statistics
            each.eval()
    weights = mixing_weights(plain) if mixed else None
    assert_same(computed(cell, inputs, weights), computed(plain, inputs, weights))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_mixed_cnn_cell_is_the_plain_one(
    case: Case, training: bool, implementation: Implementation
) -> None:
    assert_as_plain(
        lambda name: cnn_cell(name, case), implementation, cnn_inputs(case), training=training
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_discrete_cnn_cell_is_the_plain_one(
    case: Case, training: bool, implementation: Implementation
) -> None:
    """With dropped edges, and of the same draws."""
    assert_as_plain(
        lambda name: cnn_cell(name, case, discrete=True),
        implementation,
        cnn_inputs(case),
        training=training,
        mixed=False,
    )


def test_edges_of_other_candidates_are_computed_as_they_are(implementation: Implementation) -> None:
    case = Case(nodes=2)

    def build(name: Implementation) -> Cell:
        cell, other = cnn_cell(name, case), cnn_cell(name, Case("with foreign ones"))
        cell.edges[2] = other.edges[2]
        return cell

    assert_as_plain(build, implementation, cnn_inputs(case))


# SeqNN cells

#: Every node reads all; nodes that read some, in another order; nodes that no other one reads.
GRAPHS: dict[str, list[Ends]] = {
    "one node": edges(1),
    "supernet": edges(3),
    "derived": [(1, 0), (0, 0), (0, 1), (2, 1), (3, 2), (1, 2)],
    "parallel": [(0, 0), (1, 1), (0, 2), (1, 2)],
}


def sequence_cell(
    implementation: Implementation,
    names: Sequence[str] = tuple(SPACES["all"].sequence),
    graph: str = "supernet",
    width: int = 4,
    foreign: bool = False,
    discrete: bool = False,
    normalise: bool = False,
) -> Cell:
    torch.manual_seed(0)
    ends = GRAPHS[graph]
    modules: list[nn.Module] = []
    for row in range(len(ends)):
        operations = [SEQUENCE[n](width) for n in names if n != NONE]
        if foreign:
            operations.append(GatedSteps(width))
        if normalise:
            operations = [Normalised(operation) for operation in operations]
        if discrete:
            modules.append(DropPath(operations[row % len(operations)]))
            continue
        modules.append(MixedOperation([*names, "foreign"] if foreign else names, operations))
    inputs = nn.Linear(5, width), nn.Linear(3, width)
    return classes_of(implementation).sequence_cell(inputs, ends, modules, -1).double().train()


def sequences(time: int = 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(BATCH, time, c, generator=generator, dtype=torch.float64).requires_grad_()
        for c in (5, 3)
    ]


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize(
    ("space", "time", "width"),
    [*((space, 6, 4) for space in SPACES), ("all", 1, 4), ("all", 6, 37)],
)
def test_a_mixed_seqnn_cell_is_the_plain_one(
    space: str,
    time: int,
    width: int,
    n_threads: int,
    normalise: bool,
    implementation: Implementation,
    threads: Callable[[int], None],
) -> None:
    threads(n_threads)
    names = tuple(SPACES[space].sequence)  # type: ignore[index]
    assert_as_plain(
        lambda name: sequence_cell(name, names, width=width, normalise=normalise),
        implementation,
        sequences(time),
    )
    assert torch.get_num_threads() == n_threads


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("names", [("skip_connect", "lstm_att_2", NONE, "rnn_1"), (NONE,)], ids=str)
def test_a_mixed_seqnn_cell_with_a_foreign_candidate_is_the_plain_one(
    names: Sequence[str], graph: str, normalise: bool, implementation: Implementation
) -> None:
    assert_as_plain(
        lambda name: sequence_cell(name, names, graph, foreign=True, normalise=normalise),
        implementation,
        sequences(),
    )


def test_a_discrete_seqnn_cell_is_the_plain_one(implementation: Implementation) -> None:
    assert_as_plain(
        lambda name: sequence_cell(name, foreign=True, discrete=True),
        implementation,
        sequences(),
        mixed=False,
    )


# Of both kinds


def both_cells(implementation: Implementation) -> list[tuple[Cell, list[Tensor]]]:
    return [
        (cnn_cell(implementation, Case()), cnn_inputs(Case())),
        (sequence_cell(implementation), sequences()),
    ]


@pytest.mark.parametrize("constant", ["all", "weight", "bias", "weight_hh_l0"])
@pytest.mark.parametrize("kind", [0, 1], ids=["cnn", "seqnn"])
def test_gradients_of_some_tensors_are_those_of_all(
    kind: int, constant: str, implementation: Implementation
) -> None:
    cell, inputs = both_cells(implementation)[kind]
    weights = mixing_weights(cell)
    expected = torch.autograd.grad(
        cell(*inputs, weights).sin().sum(), [weights, *cell.parameters()]
    )
    for name, parameter in cell.named_parameters():
        parameter.requires_grad_(constant != "all" and not name.endswith(constant))
    wanted = [weights, *cell.parameters()]
    kept = [k for k, tensor in enumerate(wanted) if tensor.requires_grad]
    constants = [x.detach() for x in inputs]
    loss = cell(*constants, weights).sin().sum()
    found = torch.autograd.grad(loss, [wanted[k] for k in kept])
    for k, gradient in zip(kept, found, strict=True):
        torch.testing.assert_close(gradient, expected[k], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", [0, 1], ids=["cnn", "seqnn"])
def test_a_graph_that_is_kept_gives_the_same_gradients_twice(
    kind: int, implementation: Implementation
) -> None:
    cell, inputs = both_cells(implementation)[kind]
    weights = mixing_weights(cell)
    leaves = [weights, *inputs, *cell.parameters()]
    loss = cell(*inputs, weights).sin().sum()
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    for one, other in zip(first, torch.autograd.grad(loss, leaves), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("discrete", [True, False])
def test_a_second_derivative_of_compiled_cells_is_refused_and_not_wrong(discrete: bool) -> None:
    pytest.importorskip("numba")
    cells = both_cells("compiled")
    if discrete:
        cells = [(cnn_cell("compiled", Case(), discrete=True), cnn_inputs(Case()))]
    for cell, inputs in cells:
        weights = None if discrete else mixing_weights(cell)
        loss = cell(*inputs, weights).sin().sum()
        with pytest.raises(RuntimeError, match="differentiable_twice"):
            torch.autograd.grad(loss, list(inputs), create_graph=True)


@pytest.mark.parametrize("kind", [0, 1], ids=["cnn", "seqnn"])
def test_second_derivatives_twice_are_those_of_the_plain_one(
    kind: int, implementation: Implementation
) -> None:
    ends = []
    for name in (implementation, "plain"):
        cell, inputs = both_cells(name)[kind]
        weights = mixing_weights(cell)
        with differentiable_twice(cell):
            loss = cell(*inputs, weights).sin().sum()
            first = torch.autograd.grad(loss, list(inputs), create_graph=True)
            total = sum(g.square().sum() for g in first)
        ends.append(torch.autograd.grad(total, weights)[0])
    torch.testing.assert_close(*ends, rtol=1e-8, atol=1e-10)
    assert ends[0].any()


@pytest.mark.parametrize("kind", [0, 1], ids=["cnn", "seqnn"])
def test_single_precision_is_near(kind: int, implementation: Implementation) -> None:
    outs = []
    for name in (implementation, "plain"):
        cell, inputs = both_cells(name)[kind]
        weights = mixing_weights(cell).float()
        outs.append(cell.float()(*(x.float() for x in inputs), weights))
    assert outs[0].dtype == torch.float32
    torch.testing.assert_close(*outs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", [0, 1], ids=["cnn", "seqnn"])
def test_results_of_compiled_cells_do_not_depend_on_the_number_of_threads(
    kind: int, threads: Callable[[int], None]
) -> None:
    pytest.importorskip("numba")
    found = []
    for n in (1, 3):
        threads(n)
        cell, inputs = both_cells("compiled")[kind]
        weights = mixing_weights(cell)
        out = cell(*inputs, weights)
        found.append((out, *torch.autograd.grad(out.sin().sum(), [weights, *inputs])))
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-13)


def test_constant_maps_are_normalised_as_batch_norm_does(implementation: Implementation) -> None:
    """Padding of short utterances makes them: a variance of nothing must not become negative."""
    for value in (0.0, 0.7):
        outs = []
        for name in (implementation, "plain"):
            cell = cnn_cell(name, Case(channels=8, size=(16, 12))).float()
            inputs = [torch.full((BATCH, c, 16, 12), value) for c in (5, 7)]
            outs.append(cell(*inputs, mixing_weights(cell).float()))
        assert torch.isfinite(outs[0]).all()
        if value == 0.0:  # else rounding is all that is left to be normalised
            torch.testing.assert_close(*outs, rtol=1e-3, atol=1e-4)


def test_a_diverged_map_shows_in_the_output(implementation: Implementation) -> None:
    cell, inputs = both_cells(implementation)[0]
    with torch.no_grad():
        inputs[0][0, 0, 3, 4] = torch.nan
    assert cell(*inputs, mixing_weights(cell)).isnan().flatten(1).any(dim=1).all()


def test_running_statistics_stay_where_they_are_not_tracked(implementation: Implementation) -> None:
    cell, inputs = both_cells(implementation)[0]
    for module in cell.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
    before = {name: buffer.clone() for name, buffer in cell.named_buffers()}
    cell(*inputs, mixing_weights(cell))
    for name, buffer in cell.named_buffers():
        assert torch.equal(buffer, before[name])


def test_no_recurrent_module_of_torch_runs_in_a_compiled_cell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("numba")
    cell, inputs = both_cells("compiled")[1]
    for module in (nn.RNN, nn.LSTM):
        monkeypatch.setattr(module, "forward", None)
    cell(*inputs, mixing_weights(cell)).sum().backward()


def test_autocast_gives_maps_of_bfloat16_and_statistics_of_float32(
    implementation: Implementation,
) -> None:
    """Compiled loops are not for it: what they are asked for is computed plainly."""
    cell, plain = cnn_cell(implementation, Case()).float(), cnn_cell("plain", Case()).float()
    inputs = [x.detach().float() for x in cnn_inputs(Case())]
    weights = mixing_weights(cell).detach().float()
    with torch.autocast("cpu", torch.bfloat16):
        out = cell(*inputs, weights)
    expected = plain(*inputs, weights)
    assert out.dtype == torch.bfloat16
    assert functional.cosine_similarity(out.float().flatten(), expected.flatten(), 0) > 0.99
    for name, buffer in plain.named_buffers():
        found = dict(cell.named_buffers())[name]
        assert found.dtype == buffer.dtype
        if "running" in name:
            torch.testing.assert_close(found, buffer, rtol=0.1, atol=0.02, msg=name)
