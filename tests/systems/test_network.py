"""Supernet and discrete network: shapes, independence of utterances, counts."""

import json
from itertools import pairwise, product

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from emodarts.audio.features import delta
from emodarts.errors import GenotypeError, ShapeError
from emodarts.fast import IMPLEMENTATIONS, Implementation
from emodarts.genotype import SKIP, Edge, Genotype
from emodarts.recipe import SPACES, CNNSpec, FixedSeqNN, NetworkSpec, NoSeqNN, SearchedSeqNN
from emodarts.recipe.network import StemSpec
from emodarts.searching.derivation import random_genotype
from emodarts.searching.supernet import Supernet
from emodarts.space.cell import DropPath
from emodarts.space.cnn_ops import FactorisedReduce
from emodarts.space.sequence_ops import mean_and_deviation
from emodarts.systems.count import (
    count_multiply_adds,
    count_parameters,
    recurrent_multiply_adds,
)
from emodarts.systems.discrete import DiscreteNetwork

CNN_OPERATIONS = tuple(SPACES["all"].cnn)
SEQUENCE_OPERATIONS = tuple(SPACES["all"].sequence)

SEQNNS = {
    "searched": SearchedSeqNN(space="all", cells=2, nodes=2, width=5),
    "fixed": FixedSeqNN(mode="fixed", width=6, layers=2, attention=True),
    "fixed-bidirectional": FixedSeqNN(mode="fixed", recurrent="rnn", width=6, bidirectional=True),
    "gru": FixedSeqNN(mode="fixed", recurrent="gru", width=6, layers=2, bidirectional=True),
    "tcn": FixedSeqNN(mode="fixed", recurrent="tcn", width=6, layers=3),
    "none": NoSeqNN(mode="none"),
}
SPECS = {
    f"{name}-{frequency}-{pooling}": NetworkSpec(
        cnn=CNNSpec(cells=3, nodes=2, channels=2),
        seqnn=seqnn,
        frequency=frequency,
        pooling=pooling,
    )
    for (name, seqnn), frequency, pooling in product(
        SEQNNS.items(), ("join", "mean"), ("attention", "mean", "statistics")
    )
}
STEM = StemSpec(
    channels=(3, 4, 5), frequency_strides=(2, 1, 2), time_strides=(1, 3, 1), kernel=(5, 3)
)
STEMS = {
    f"{name}-stem-{cells}": NetworkSpec(
        stem=STEM,
        cnn=CNNSpec(cells=cells, nodes=2, channels=2),
        seqnn=seqnn,
        projection=7,
        pooling="statistics",
    )
    for (name, seqnn), cells in product(SEQNNS.items(), (0, 1, 3))
}
PROTOTYPE = NetworkSpec(
    stem=StemSpec(
        channels=(16, 32, 48, 64), frequency_strides=(2, 2, 2, 2), time_strides=(2, 2, 1, 1)
    ),
    cnn=CNNSpec(cells=0),
    projection=96,
    seqnn=FixedSeqNN(mode="fixed", width=48, bidirectional=True),
    pooling="mean",
    dropout=0.1,
)


def build(
    spec: NetworkSpec, n_features: int = 10, seed: int = 0, **kwargs: bool
) -> DiscreteNetwork:
    genotype = random_genotype(spec, torch.Generator().manual_seed(seed))
    torch.manual_seed(seed)
    return DiscreteNetwork(genotype, spec, n_features, 4, **kwargs)


def warm(network: nn.Module, features: Tensor) -> nn.Module:
    """Give batch norms statistics that are not trivial, then switch to eval mode."""
    network.train()
    network(features)
    return network.eval()


@pytest.mark.parametrize("name", [*SPECS, *STEMS])
def test_an_utterance_depends_on_nothing_but_itself(name: str) -> None:
    spec = {**SPECS, **STEMS}[name]
    features = torch.randn(17, 1, 10, 13)
    for network in (build(spec), Supernet(spec, 10, 4)):
        warm(network, features)
        with torch.inference_mode():
            whole = network(features)
            alone = torch.cat([network(x) for x in features[:3].split(1)])
            pair = network(features[3:5])
            order = torch.randperm(17)
            permuted = network(features[order])
        assert whole.shape == (17, 4)
        torch.testing.assert_close(whole[:5], torch.cat([alone, pair]), rtol=0, atol=1e-5)
        torch.testing.assert_close(permuted, whole[order], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["searched-join-attention", "none-mean-mean"])
def test_features_must_be_maps(name: str) -> None:
    network = build(SPECS[name])
    for shape in [(10, 13), (2, 10, 13), (2, 2, 10, 13), (2, 1, 9, 13)]:
        with pytest.raises(ShapeError, match="batch, 1, 10, time"):
            network(torch.zeros(shape))


@pytest.mark.parametrize("name", ["fixed-mean-mean", "gru-mean-mean", "tcn-mean-mean"])
def test_the_network_hears_the_order_of_frames(name: str) -> None:
    spec = SPECS[name]
    features = torch.randn(3, 1, 10, 16)
    network = warm(build(spec), features)
    with torch.inference_mode():
        assert not torch.allclose(network(features), network(features.flip(3)), atol=1e-4)


@pytest.mark.parametrize("cells", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("size", [(10, 13), (4, 4), (16, 7)])
def test_any_depth_and_any_map_size(cells: int, size: tuple[int, int]) -> None:
    spec = NetworkSpec(cnn=CNNSpec(cells=cells, nodes=2, channels=3), seqnn=SEQNNS["searched"])
    network = build(spec, size[0], auxiliary_weight=0.4)
    logits, [(extra, _, _)] = network.forward_with_auxiliary(torch.randn(2, 1, *size))
    assert logits.shape == (2, 4)
    assert extra.shape == (2, 4)
    assert network.cnn_cell_names.count("reduction") == len(spec.cnn.reductions)


@pytest.mark.parametrize("frequency", ["join", "mean"])
@pytest.mark.parametrize("pooling", ["attention", "mean", "statistics"])
def test_the_last_map_is_read_over_time_and_pooled(frequency: str, pooling: str) -> None:
    features = torch.randn(3, 1, 10, 13)
    network = build(SPECS[f"none-{frequency}-{pooling}"]).eval()
    maps = network.cnn_maps(features)[-1]  # (B, C, F, T)
    frames = [maps[..., t] for t in range(maps.shape[3])]
    steps = torch.stack([f.flatten(1) if frequency == "join" else f.mean(2) for f in frames], 1)
    mean = steps.mean(dim=1)
    match pooling:
        case "attention":
            assert network.attention is not None
            pooled = network.attention(steps)
        case "statistics":
            pooled = torch.cat([mean, steps.std(dim=1, correction=0)], dim=1)
        case _:
            pooled = mean
    torch.testing.assert_close(network(features), network.classifier(pooled))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_discrete_network_is_the_supernet_whose_alphas_choose_its_edges(seed: int) -> None:
    spec = NetworkSpec(cnn=CNNSpec(cells=3, nodes=3, channels=2), seqnn=SEQNNS["searched"])
    features = torch.randn(3, 1, 10, 13)
    network = build(spec, seed=seed).eval()
    supernet = Supernet(spec, 10, 4)
    warm(supernet, features)
    weights = {name: torch.zeros_like(alpha) for name, alpha in supernet.alphas.items()}
    state = supernet.network.state_dict()
    network.load_state_dict({k: v for k, v in state.items() if "cells" not in k}, strict=False)
    names = [*network.cnn_cell_names, *["sequence"] * len(network.sequence_cells)]
    cells = [*network.cnn_cells, *network.sequence_cells]
    mixed_cells = [*supernet.network.cnn_cells, *supernet.network.sequence_cells]
    for name, cell, mixed in zip(names, cells, mixed_cells, strict=True):
        cell.inputs.load_state_dict(mixed.inputs.state_dict(), strict=False)
        operations = SEQUENCE_OPERATIONS if name == "sequence" else CNN_OPERATIONS
        edges = iter(cell.edges)
        for node, chosen in enumerate(network.genotype.cells[name]):
            for edge in chosen:
                row = sum(range(2, 2 + node)) + edge.source
                column = operations.index(edge.operation)
                weights[name][row, column] = 1.0
                candidates, built = mixed.edges[row], next(edges)
                source = candidates.operations[candidates.columns.index(column)]
                target = built.operation if isinstance(built, DropPath) else built
                target.load_state_dict(source.state_dict(), strict=False)
    with torch.inference_mode():
        torch.testing.assert_close(network(features), supernet.network(features, weights))


def test_batch_norms_of_cells_rescale_in_the_discrete_network_only() -> None:
    """In a supernet they would hide the weight of an operation."""
    spec = SPECS["none-join-mean"]
    for network, affine in ((build(spec), True), (Supernet(spec, 10, 4).network, False)):
        norms = [m for m in network.cnn_cells.modules() if isinstance(m, nn.BatchNorm2d)]
        assert {m.affine for m in norms} == {affine}


def test_reduction_cells_sit_at_thirds_double_channels_and_halve_maps() -> None:
    spec = NetworkSpec(cnn=CNNSpec(cells=4, nodes=2, channels=3), seqnn=NoSeqNN(mode="none"))
    network = build(spec, 16)
    assert network.cnn_cell_names == ("normal", "reduction", "reduction", "normal")
    maps = network.cnn_maps(torch.randn(1, 1, 16, 24))
    assert [tuple(m.shape[1:]) for m in maps[2:]] == [
        (6, 16, 24),
        (12, 8, 12),
        (24, 4, 6),
        (24, 4, 6),
    ]


def test_genotype_and_network_must_agree_on_the_seqnn() -> None:
    searched, none = SPECS["searched-join-mean"], SPECS["none-join-mean"]
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(GenotypeError, match="has no sequence cell"):
        DiscreteNetwork(random_genotype(none, generator), searched, 10, 4)
    with pytest.raises(GenotypeError, match=r"has a sequence cell; .*: normal, reduction$"):
        DiscreteNetwork(random_genotype(searched, generator), none, 10, 4)


def test_the_prototype_has_the_parameters_and_shapes_of_its_layers() -> None:
    network = DiscreteNetwork(Genotype(), PROTOTYPE, 64, 4, auxiliary_weight=0.4)
    channels = (1, 16, 32, 48, 64)
    stem = sum(9 * a * b + 2 * b for a, b in pairwise(channels))
    projection = (4 * 64 + 1) * 96  # 64 bands, halved four times
    lstm = 2 * 4 * 48 * (96 + 48 + 2)
    assert count_parameters(network) == stem + projection + lstm + (96 + 1) * 4
    assert network.time_stride == 4
    features = torch.randn(3, 1, 64, 101)
    maps = network.cnn_maps(features)
    assert maps[-1].shape == (3, 64, 4, 26)
    assert network(features).shape == (3, 4)
    assert not network.forward_with_auxiliary(features)[1]


def test_the_prototype_is_its_layers_one_after_the_other() -> None:
    features = torch.randn(3, 1, 64, 101)
    network = DiscreteNetwork(Genotype(), PROTOTYPE, 64, 4)
    warm(network, features)
    convolutions = [m for m in network.stem if isinstance(m, nn.Conv2d)]
    norms = [m for m in network.stem if isinstance(m, nn.BatchNorm2d)]
    x = features
    for convolution, norm, stride in zip(convolutions, norms, (2, 2, 1, 1), strict=True):
        x = functional.conv2d(x, convolution.weight, stride=(2, stride), padding=1)
        x = functional.batch_norm(
            x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        ).relu()
    x = x.flatten(1, 2).transpose(1, 2)
    assert network.projection is not None
    assert network.fixed is not None
    dense = network.projection[0]
    x = functional.linear(x, dense.weight, dense.bias).relu()
    x = network.fixed.recurrent(x)[0].mean(dim=1)
    torch.testing.assert_close(network(features), network.classifier(x))


def test_dropout_precedes_the_dense_layer_where_no_cell_does() -> None:
    """In training, the answers of one utterance differ by what is dropped, and in nothing else."""
    network = build(PROTOTYPE, 64).train()
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.eval()
    network.dropout.p = 0.9
    inputs: list[Tensor] = []
    network.classifier.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    network(torch.randn(8, 1, 64, 40))
    assert float((inputs[0] == 0).float().mean()) > 0.8


@pytest.mark.parametrize("name", STEMS)
def test_strides_of_stem_and_cells_divide_frequency_and_time_rounded_up(name: str) -> None:
    spec = STEMS[name]
    network = build(spec)
    reductions = len(spec.cnn.reductions)
    assert network.time_stride == spec.time_stride == 3 * 2**reductions
    maps = network.cnn_maps(torch.randn(2, 1, 10, 40))
    assert maps[0].shape == (2, 5, 3, 14)
    assert maps[-1].shape[2] == -(-10 // (4 * 2**reductions))
    assert maps[-1].shape[3] == -(-40 // network.time_stride)
    assert set(network.genotype.cells) == set(spec.nodes)


def test_a_genotype_has_the_cells_of_its_network_only() -> None:
    assert NetworkSpec(cnn=CNNSpec(cells=0), seqnn=NoSeqNN(mode="none")).nodes == {}
    assert set(NetworkSpec(cnn=CNNSpec(cells=2), seqnn=NoSeqNN(mode="none")).nodes) == {"reduction"}
    skips = ((Edge(SKIP, 0), Edge(SKIP, 1)),)
    with pytest.raises(GenotypeError, match=r"has no normal cell; .*: normal, reduction$"):
        DiscreteNetwork(Genotype(reduction=skips), SPECS["none-join-mean"], 10, 4)


@pytest.mark.parametrize(
    ("macro", "message"),
    [
        ({"poling": "mean"}, "unknown key 'poling' (did you mean 'pooling'?); allowed: stem, cnn"),
        ({"pooling": "max"}, "pooling: 'max': Input should be 'attention', 'mean' or 'statistics'"),
        ({"stem.time_strides": [2]}, "time_strides [2] for 3 blocks"),
        ({"seqnn": {"mode": "none"}, "seqnn.width": 3}, "unknown key 'seqnn.width'"),
        ({"seqnn.mode": "lstm"}, "'searched', 'fixed', 'none'"),
        ({"cnn.space": "extendd"}, "did you mean 'extended'?"),
    ],
)
def test_a_macro_choice_that_cannot_be_is_explained(macro: dict[str, object], message: str) -> None:
    with pytest.raises(GenotypeError) as caught:
        DiscreteNetwork(Genotype(macro=macro), STEMS["none-stem-0"], 10, 4)
    assert "macro choices of the genotype" in str(caught.value)
    assert message in str(caught.value)


def test_macro_choices_change_the_network_and_nothing_else() -> None:
    macro = {
        "stem.channels": [4, 6, 8],
        "stem.kernel": [1, 3],
        "stem": {"channels": [1], "frequency_strides": [2, 2, 1], "time_strides": [1, 1, 1]},
        "seqnn": {"mode": "fixed", "recurrent": "gru"},
        "seqnn.width": 5,
        "frequency": "mean",
    }
    spec = STEMS["none-stem-0"]
    with pytest.raises(GenotypeError, match="for 1 blocks"):
        spec.with_choices({"stem": macro["stem"]})
    chosen = spec.with_choices(macro)
    assert chosen.stem == StemSpec(
        channels=(4, 6, 8), frequency_strides=(2, 2, 1), time_strides=(1, 1, 1), kernel=(1, 3)
    )
    assert chosen.seqnn == FixedSeqNN(mode="fixed", recurrent="gru", width=5)
    assert chosen.frequency == "mean"
    assert (chosen.cnn, chosen.pooling, chosen.projection) == (spec.cnn, spec.pooling, 7)
    network = DiscreteNetwork(Genotype(macro=macro), spec, 10, 4)
    assert network(torch.randn(2, 1, 10, 9)).shape == (2, 4)


def test_random_genotypes_of_the_extended_space_are_small_networks_of_many_kinds() -> None:
    spec = NetworkSpec(cnn=CNNSpec(space="extended"))
    generator = torch.Generator().manual_seed(0)
    drawn = [random_genotype(spec, generator) for _ in range(40)]
    for genotype in drawn:
        network = DiscreteNetwork(genotype, spec, 64, 8)
        assert count_parameters(network) < 500_000
        network(torch.randn(2, 1, 64, 20)).sum().backward()
        assert set(genotype.macro) == set(spec.macro)
        assert Genotype.from_dict(genotype.to_dict()) == genotype
    for key, choices in spec.macro.items():
        assert all(genotype.macro[key] in choices for genotype in drawn)
        assert len({str(genotype.macro[key]) for genotype in drawn}) > 1
    kinds = {choice.get("recurrent", choice["mode"]) for choice in spec.macro["seqnn"]}
    assert kinds == {"lstm", "gru", "tcn", "searched", "none"}
    around = {"stem", "stem.kernel", "deltas", "cnn.cells", "frequency", "projection", "pooling"}
    assert set(spec.macro) == {*around, "seqnn"}
    assert {"conv_3x3", "conv_1x3", "conv_3x1", "se_conv_3x3"} <= set(spec.cnn.operations)
    as_it_is = random_genotype(spec, generator, macro={})
    assert as_it_is.macro == {}
    assert set(as_it_is.cells) == {"normal", "reduction", "sequence"}


def test_the_largest_network_of_the_extended_space_has_under_half_a_million_parameters() -> None:
    spec = NetworkSpec(cnn=CNNSpec(space="extended"))
    generator = torch.Generator().manual_seed(0)

    def size(macro: dict[str, object]) -> int:
        drawn = random_genotype(spec, generator, macro)
        largest = {"sequence": "lstm_att_1"}
        cells = {
            name: tuple(
                tuple(Edge(largest.get(name, "conv_3x3"), e.source) for e in node) for node in cell
            )
            for name, cell in drawn.cells.items()
        }
        return count_parameters(DiscreteNetwork(Genotype(**cells, macro=macro), spec, 64, 8))

    base = {"projection": 128, "frequency": "join", "pooling": "statistics"}
    keys = ("stem", "stem.kernel", "cnn.cells")
    # The SeqNN reads the projection, whatever is before it: its share is the same everywhere.
    seqnn = max(spec.macro["seqnn"], key=lambda choice: size({**base, "seqnn": choice}))
    combinations = product(*(spec.macro[key] for key in keys))
    sizes = [
        size({**base, "seqnn": seqnn, **dict(zip(keys, chosen, strict=True))})
        for chosen in combinations
    ]
    assert max(sizes) < 500_000


def test_deviation_of_a_constant_has_a_gradient() -> None:
    x = torch.ones(2, 5, 3, requires_grad=True)
    mean_and_deviation(x).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_the_auxiliary_head_is_no_part_of_the_model() -> None:
    spec = SPECS["searched-join-mean"]
    plain, extra = build(spec), build(spec, auxiliary_weight=0.4)
    assert count_parameters(plain) == count_parameters(extra)
    assert count_parameters(plain) == sum(p.numel() for p in plain.parameters())
    assert extra.model_state().keys() == plain.state_dict().keys()
    assert count_multiply_adds(plain, (1, 10, 13)) == count_multiply_adds(extra, (1, 10, 13))


def test_drop_path_drops_whole_utterances_and_keeps_the_mean() -> None:
    layer = DropPath(nn.Identity())
    x = torch.ones(4000, 2, 3)
    layer.probability = 0.25
    out = layer.train()(x)
    per_utterance = out.flatten(1)
    assert torch.all((per_utterance == 0) | (per_utterance == 1 / 0.75))
    assert torch.all(per_utterance.std(dim=1) == 0)
    assert abs(float(out.mean()) - 1) < 0.05
    assert torch.equal(layer.eval()(x), x)
    network = build(SPECS["searched-join-mean"])
    network.drop_path = 1.0
    network.begin_epoch(0.5)
    assert {m.probability for m in network.modules() if isinstance(m, DropPath)} == {0.5}
    skips = ((Edge(SKIP, 0), Edge(SKIP, 1)),)
    network = DiscreteNetwork(Genotype(skips, skips, skips), SPECS["searched-join-mean"], 10, 4)
    dropped = {type(m.operation) for m in network.modules() if isinstance(m, DropPath)}
    assert dropped == {FactorisedReduce}  # every edge but the identity


@pytest.mark.parametrize(
    "name", ["none-join-mean", "none-mean-attention", "tcn-join-statistics", "tcn-stem-0"]
)
def test_multiply_adds_equal_torchs_counter_where_it_counts(name: str) -> None:
    network = build({**SPECS, **STEMS}[name]).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 1, 10, 13))
    assert 2 * count_multiply_adds(network, (1, 10, 13)) == counter.get_total_flops()


@pytest.mark.parametrize("kind", [nn.LSTM, nn.RNN, nn.GRU])
@pytest.mark.parametrize(("layers", "bidirectional"), [(1, False), (3, False), (2, True)])
def test_recurrent_multiply_adds_equal_those_of_the_cells_step_by_step(
    kind: type[nn.RNNBase], layers: int, bidirectional: bool
) -> None:
    layer = kind(5, 7, layers, bidirectional=bidirectional, batch_first=True)
    n_steps = 11
    # Every weight matrix multiplies one vector at every step.
    matrices = sum(p.numel() for p in layer.parameters() if p.dim() == 2)
    elementwise = 0 if kind is nn.RNN else 3 * 7 * layers * (2 if bidirectional else 1)
    assert recurrent_multiply_adds(layer, n_steps) == n_steps * (matrices + elementwise)


def test_recurrent_layers_are_counted_in_the_network() -> None:
    network = build(SPECS["fixed-join-mean"])
    assert network.fixed is not None
    recurrent = recurrent_multiply_adds(network.fixed.recurrent, 4)  # 13 frames, halved twice
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.zeros(1, 1, 10, 13))
    assert recurrent > 0
    assert count_multiply_adds(network, (1, 10, 13)) == counter.get_total_flops() // 2 + recurrent


def test_hand_engineered_count_of_a_convolution() -> None:
    spec = NetworkSpec(cnn=CNNSpec(cells=1, nodes=1, channels=2), seqnn=NoSeqNN(mode="none"))
    network = build(spec, 8)
    stem = 8 * 8 * 6 * 9
    assert count_multiply_adds(network.stem[0], (1, 8, 8)) == stem


@pytest.mark.parametrize("pooling", ["mean", "attention", "statistics"])
@pytest.mark.parametrize(
    "seqnn",
    [
        {"mode": "none"},
        {"mode": "fixed", "recurrent": "lstm", "width": 6, "attention": True},
        {"mode": "fixed", "recurrent": "gru", "width": 6, "layers": 2, "bidirectional": True},
        {"mode": "fixed", "width": 6, "bidirectional": True, "attention": True},
        {"mode": "fixed", "recurrent": "tcn", "width": 6, "layers": 2},
        *(
            {"mode": "searched", "space": space, "cells": 2, "nodes": 3, "width": 6}
            for space in ("lstm_att", "rnn_att", "extended")
        ),
    ],
)
def test_missing_frames_of_a_batch_count_for_nothing(
    pooling: str, seqnn: dict[str, object]
) -> None:
    """Utterances of other lengths in one batch answer as each does alone, cut to its frames."""
    keys = {"stem": {}, "cnn": {"cells": 0}, "projection": 8, "pooling": pooling, "seqnn": seqnn}
    spec = NetworkSpec.model_validate_json(json.dumps(keys))
    generator = torch.Generator().manual_seed(0)
    genotype = random_genotype(spec, generator, macro={})
    torch.manual_seed(0)
    network = DiscreteNetwork(genotype, spec, 32, 3).eval()
    features = torch.randn(3, 1, 32, 40)
    lengths = (40, 23, 9)
    for row, length in enumerate(lengths):
        features[row, ..., length:] = torch.nan
    together = network(features)
    for row, length in enumerate(lengths):
        alone = network(features[row : row + 1, ..., :length])
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("space", ["all", "extended"])
def test_missing_frames_of_a_batch_count_for_nothing_in_a_supernet(
    space: str, implementation: Implementation
) -> None:
    if implementation == "compiled":
        pytest.importorskip("numba")
    spec = NetworkSpec(
        stem=StemSpec(),
        cnn=CNNSpec(cells=0),
        projection=8,
        seqnn=SearchedSeqNN(space=space, cells=1, nodes=2, width=4),
    )
    torch.manual_seed(0)
    net = Supernet(spec, 32, 3, 0.5, implementation=implementation).eval()
    features = torch.randn(2, 1, 32, 40)
    features[1, ..., 17:] = torch.nan
    together = net(features)
    for row, length in enumerate((40, 17)):
        alone = net(features[row : row + 1, ..., :length])
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("orders", [1, 2])
def test_deltas_in_the_network_are_those_of_the_utterance(orders: int) -> None:
    keys = {"stem": {}, "cnn": {"cells": 0}, "deltas": orders, "seqnn": {"mode": "none"}}
    spec = NetworkSpec.model_validate_json(json.dumps(keys))
    torch.manual_seed(0)
    network = DiscreteNetwork(Genotype(), spec, 32, 3).eval()
    features = torch.randn(2, 1, 32, 40)
    features[1, ..., 23:] = torch.nan
    together = network(features)
    for row, length in enumerate((40, 23)):
        alone = network(features[row : row + 1, ..., :length])
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-5)
    seen: list[torch.Tensor] = []
    network.stem[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    network(features[:1])
    for order in range(1, orders + 1):
        expected = delta(features[:1], order)
        ratio = seen[0][:, order : order + 1] / expected
        torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=1e-3, atol=0)
    noise = delta(torch.randn(1, 1, 4, 100_000), orders)
    assert float(noise.std()) * float(ratio.mean()) == pytest.approx(1.0, rel=0.02)


def test_a_batch_with_missing_frames_has_gradients() -> None:
    keys = {"stem": {"channels": [4, 4], "frequency_strides": [2, 2], "time_strides": [2, 1]}}
    keys |= {"cnn": {"cells": 3, "nodes": 1, "channels": 2}}
    keys |= {"seqnn": {"space": "lstm_att", "cells": 1, "nodes": 1, "width": 4}}
    spec = NetworkSpec.model_validate_json(json.dumps(keys))
    genotype = random_genotype(spec, torch.Generator().manual_seed(0))
    network = DiscreteNetwork(genotype, spec, 16, 3)
    features = torch.randn(4, 1, 16, 30)
    features[1:, ..., 17:] = torch.nan
    functional.cross_entropy(network(features), torch.tensor([0, 1, 2, 0])).backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
