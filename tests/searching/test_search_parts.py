"""The parts of differentiable search: each has the equation that defines it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from emodarts import files
from emodarts.errors import RecipeError, RunError
from emodarts.genotype import NONE, SKIP, Edge, Genotype
from emodarts.progress import Silent
from emodarts.recipe import CNNSpec, DartsSpec, NetworkSpec, NoSeqNN, Recipe
from emodarts.recipe.search import RelaxationSpec, SmoothingSpec, StageSpec
from emodarts.searching import penalties, relaxation, stages, stops
from emodarts.searching.derivation import derive_genotype
from emodarts.searching.edges import (
    AuxiliarySkip,
    Edges,
    PartialChannels,
    SkipDropout,
    SparseOperation,
)
from emodarts.searching.one_shot import Hooks, Search, search_one_shot
from emodarts.searching.selection import masked
from emodarts.searching.smoothing import perturbed
from emodarts.searching.supernet import mixed_edge
from emodarts.searching.toys import one_candidate
from emodarts.space.cell import MixedOperation, edges
from killing import Kill, Killed
from toy_search import SPEC, make_task, records, search

PARTS: dict[str, dict[str, Any]] = {
    "fair-darts": {"relaxation": {"kind": "sigmoid"}, "penalties": {"zero_one": 1.0}},
    "snas": {"relaxation": {"kind": "gumbel", "temperature": [2.0, 0.5]}},
    "gdas": {"relaxation": {"kind": "one_hot"}},
    "drnas": {"relaxation": {"kind": "dirichlet"}, "penalties": {"anchor": 1e-3}},
    "pc-darts": {"partial_channels": 2, "edge_normalisation": True},
    "path dropout": {"relaxation": {"path_dropout": 0.5}},
    "darts-minus": {"auxiliary_skip": True},
    "beta-darts": {"penalties": {"beta_decay": 1.0}},
    "random smoothing": {"smoothing": {"kind": "random"}},
    "adversarial smoothing": {"smoothing": {"kind": "adversarial", "steps": 2}},
    "p-darts": {
        "stages": [{"cells": 3}, {"cells": 4, "candidates": 3, "skip_dropout": 0.4}],
        "derivation": {"max_skips": 2},
    },
    "eigenvalue": {"stop": {"eigenvalue": 1.3}},
    "oles": {"stop": {"gradient_matching": 0.3}},
    "darts-pt": {"derivation": {"by": "perturbation"}},
}
ALPHA = torch.tensor([[1.0, -0.5, 0.2], [0.3, 0.0, -2.0]])


def darts(**keys: Any) -> DartsSpec:
    """A spec as a recipe would have it."""
    spec = Recipe.from_dict({"search": {**SPEC.model_dump(mode="json"), "order": 1, **keys}}).search
    assert isinstance(spec, DartsSpec)
    return spec


# --- all of them ---

#: Every part in one of a few searches: what a search forgets shows in whatever it is combined with.
COMBINED = {
    "fair-darts, adversarial": ["fair-darts", "adversarial smoothing", "darts-minus"],
    "fair-darts, eigenvalue": ["fair-darts", "eigenvalue"],
    "snas, random": ["snas", "path dropout", "random smoothing", "pc-darts", "beta-darts"],
    "gdas, stops": ["gdas", "eigenvalue", "oles"],
    "drnas": ["drnas"],
    "p-darts": ["p-darts"],
    "darts-pt": ["darts-pt"],
}


def test_every_part_is_interrupted() -> None:
    assert {part for parts in COMBINED.values() for part in parts} == set(PARTS)


@pytest.mark.parametrize("combined", COMBINED)
def test_an_interrupted_search_ends_as_one_that_was_not(combined: str, tmp_path: Path) -> None:
    keys: dict[str, Any] = {}
    for part in COMBINED[combined]:
        for key, value in PARTS[part].items():
            keys[key] = {**keys[key], **value} if key in keys else value
    spec = darts(**keys)
    whole = search(spec, make_task(tmp_path / "whole"))
    with pytest.raises(Killed):
        search(spec, make_task(tmp_path / "killed", Kill(5)))
    torch.manual_seed(99)
    assert search(spec, make_task(tmp_path / "killed")) == whole
    assert records(tmp_path / "killed") == records(tmp_path / "whole")
    eigenvalues = [
        [row.get("eigenvalue") for row in files.read_csv(tmp_path / name / "search.csv", RunError)]
        for name in ("killed", "whole")
    ]
    assert eigenvalues[0] == eigenvalues[1]


def test_a_selection_that_is_interrupted_goes_on_as_the_search_was(tmp_path: Path) -> None:
    """With the last learning rate, and auxiliary skips that have faded out."""
    seen: list[list[float]] = []

    def note(found: Search) -> Genotype:
        [group] = found.weight_optimiser.param_groups
        skips = [m.weight for m in found.supernet.modules() if isinstance(m, AuxiliarySkip)]
        seen.append([group["lr"], *skips])
        return Genotype.from_dict(found.records[-1]["genotype"])

    spec = darts(**PARTS["darts-minus"])
    for _ in range(2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "emodarts.searching.strategies.darts.Darts._choose", lambda _, found: note(found)
            )
            search(spec, make_task(tmp_path))
    assert seen[0] == seen[1]
    assert seen[0][1:] == [0.0] * len(seen[0][1:])
    assert len(seen[0]) > 1
    assert seen[0][0] < spec.weights.learning_rate


def test_the_dropout_of_skips_is_kept(tmp_path: Path) -> None:
    edge, again = SkipDropout(nn.Identity()), SkipDropout(nn.Identity())
    edge.dropout.p = 0.3
    again.load_state_dict(edge.state_dict())
    assert again.dropout.p == 0.3


#: The toy has no skip connection, which two of the parts are about, and where channels pass
#: untouched its signal does so without any candidate.
FINDS = set(PARTS) - {"darts-minus", "p-darts", "pc-darts"}


@pytest.mark.slow
@pytest.mark.parametrize("part", sorted(FINDS))
def test_each_finds_the_only_candidate_that_passes_the_signal(part: str, tmp_path: Path) -> None:
    toy = one_candidate(0)
    keys = {"epochs": 20, "batch_size": 12, "warmup_epochs": 0, "alphas": {"learning_rate": 5e-2}}
    found = search(darts(**{**keys, **PARTS[part]}), toy.task(tmp_path, 0))
    operations = {e.operation for cell in found.cells.values() for node in cell for e in node}
    assert operations == {toy.answer}


# --- relaxations ---


def test_sigmoid_weights_need_not_sum_to_one() -> None:
    weights = relaxation.EXPECTED["sigmoid"](ALPHA)
    torch.testing.assert_close(weights, 1 / (1 + torch.exp(-ALPHA)))
    assert float(weights.sum()) != pytest.approx(2.0)


def test_gumbel_softmax_is_the_tempered_softmax_of_noisy_alphas() -> None:
    spec = RelaxationSpec(kind="gumbel", temperature=(2.0, 0.5))
    torch.manual_seed(0)
    weigh = relaxation.draw(spec, {"normal": ALPHA}, 1.0)["normal"]
    torch.manual_seed(0)
    noise = -torch.empty_like(ALPHA).exponential_().log()
    torch.testing.assert_close(weigh(ALPHA), torch.softmax((ALPHA + noise) / 0.5, dim=1))


def test_the_gradient_of_one_hot_weights_is_that_of_the_tempered_softmax() -> None:
    torch.manual_seed(1)
    noise = -torch.empty_like(ALPHA).exponential_().log()
    torch.manual_seed(1)
    weigh = relaxation.draw(RelaxationSpec(kind="one_hot"), {"normal": ALPHA}, 0.0)["normal"]
    alpha, same = ALPHA.clone().requires_grad_(), ALPHA.clone().requires_grad_()
    factors = torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.5, 4.0]])
    hard = weigh(alpha)
    assert torch.equal(hard.detach().sort(dim=1).values, torch.tensor([[0.0, 0.0, 1.0]] * 2))
    (hard * factors).sum().backward()
    (torch.softmax((same + noise) / 10.0, dim=1) * factors).sum().backward()
    torch.testing.assert_close(alpha.grad, same.grad)


class Counted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return 2.0 * x


@pytest.mark.parametrize("stride", [1, 2])
def test_a_sparse_operation_computes_only_what_has_weight(stride: int) -> None:
    operations = [Counted(), Counted()]
    edge = SparseOperation(("a", NONE, "b"), operations, stride)
    x = torch.randn(2, 3, 5, 7)
    out = edge(x, torch.tensor([0.0, 0.0, 1.0]))
    assert [one.calls for one in operations] == [0, 1]
    assert torch.equal(out, 2.0 * x)
    none = torch.tensor([0.0, 1.0, 0.0], requires_grad=True)
    nothing = edge(x, none)
    assert torch.equal(nothing, torch.zeros_like(x[:, :, ::stride, ::stride]))
    # A step may draw `none` on every edge: it then has a gradient, of zero.
    assert torch.equal(torch.autograd.grad(nothing.sum(), none)[0], torch.zeros(3))
    plain = MixedOperation(("a", NONE, "b"), operations)
    weights = torch.tensor([0.3, 0.2, 0.5])
    torch.testing.assert_close(edge(x, weights), plain(x, weights))


def test_dirichlet_weights_have_the_mean_of_the_distribution_and_one_sample_a_step() -> None:
    spec = RelaxationSpec(kind="dirichlet")
    torch.manual_seed(0)
    many = ALPHA.repeat(4000, 1)
    weigh = relaxation.draw(spec, {"normal": many}, 0.0)["normal"]
    samples = weigh(many).view(4000, 2, 3)
    torch.testing.assert_close(samples.sum(dim=2), torch.ones(4000, 2))
    concentration = torch.where(ALPHA > 0, 1 + ALPHA, ALPHA.exp())
    expected = concentration / concentration.sum(dim=1, keepdim=True)
    torch.testing.assert_close(samples.mean(dim=0), expected, atol=0.02, rtol=0)
    torch.testing.assert_close(relaxation.EXPECTED["dirichlet"](ALPHA), expected)
    assert torch.equal(weigh(many).view(4000, 2, 3), samples)


def test_dropped_paths_leave_the_sum_of_an_edge_and_at_least_one_candidate() -> None:
    torch.manual_seed(0)
    weights = torch.softmax(torch.randn(400, 5), dim=1)
    left = relaxation.drop_paths(weights, 0.6)
    torch.testing.assert_close(left.sum(dim=1), weights.sum(dim=1))
    assert float((left == 0).float().mean()) == pytest.approx(0.6, abs=0.05)
    for row, kept in zip(weights, left, strict=True):
        ratios = (kept / row)[kept > 0]
        torch.testing.assert_close(ratios, ratios[:1].expand_as(ratios))


def test_weights_of_edges_sum_to_one_at_every_node() -> None:
    found = relaxation.edge_weights(torch.randn(9))  # three nodes: 2 + 3 + 4 edges
    nodes = torch.tensor([node for _, node in edges(3)])
    torch.testing.assert_close(
        torch.zeros(3).index_add_(0, nodes, found), torch.ones(3), rtol=0, atol=1e-6
    )


# --- edges ---


def test_all_channels_are_the_mixture_itself() -> None:
    assert Edges(parts=1).builder is mixed_edge
    operation = MixedOperation(("a", "b"), [nn.Identity(), nn.Tanh()])
    x, weights = torch.randn(2, 4, 3, 5), torch.tensor([0.3, 0.7])
    assert torch.equal(PartialChannels(operation, 1, 1)(x, weights), operation(x, weights))


@pytest.mark.parametrize("shape", [(2, 8, 3, 5), (2, 5, 8)])
def test_channels_that_candidates_do_not_see_pass_untouched(shape: tuple[int, ...]) -> None:
    operation = MixedOperation(("a",), [Counted()])
    x = torch.randn(shape)
    out = PartialChannels(operation, 4, 1)(x, torch.tensor([1.0]))
    dim = 1 if x.dim() == 4 else 2
    seen = [2.0 * c if k < 2 else c for k, c in enumerate(x.unbind(dim))]
    # Shuffled, so that the first part of the next edge has a channel of every part.
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    assert torch.equal(out, torch.stack([seen[k] for k in order], dim=dim))


def test_an_auxiliary_skip_adds_its_share() -> None:
    edge = AuxiliarySkip(MixedOperation(("a",), [Counted()]), nn.Identity())
    x, weights = torch.randn(2, 3), torch.tensor([0.5])
    for share in (1.0, 0.25, 0.0):
        edge.weight = share
        torch.testing.assert_close(edge(x, weights), x + share * x)


def test_the_auxiliary_skip_fades_out_over_the_epochs(tmp_path: Path) -> None:
    seen: list[float] = []

    class Noting(AuxiliarySkip):
        def forward(self, x: Tensor, weights: Tensor, present: Tensor | None = None) -> Tensor:
            if not seen or seen[-1] != self.weight:
                seen.append(self.weight)
            return super().forward(x, weights, present)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("emodarts.searching.edges.AuxiliarySkip", Noting)
        search(darts(auxiliary_skip=True), make_task(tmp_path))
    assert seen == pytest.approx([1.0, 2 / 3, 1 / 3, 0.0])


@pytest.mark.parametrize("cells", [0, 1, 2])
def test_stages_need_a_normal_cell(cells: int) -> None:
    value: dict[str, Any] = {"network": {"cnn": {"cells": cells}}}
    value["search"] = {"epochs": 4, "stages": [{"cells": 3}, {"cells": 4}]}
    with pytest.raises(
        RecipeError, match=rf"stages .*cells {cells} there is none; allowed: at least 3"
    ):
        Recipe.from_dict(value)


def test_partial_channels_must_divide_the_channels() -> None:
    with pytest.raises(RecipeError, match=r"partial_channels 3 .*network\.cnn\.channels 8"):
        Recipe.from_dict({"search": {"partial_channels": 3}})


# --- penalties ---


def test_beta_decay_adds_the_softmax_to_the_gradient() -> None:
    alphas = {"normal": ALPHA.clone().requires_grad_(), "sequence": torch.zeros(3, 2)}
    penalties.beta_decay(alphas).backward()  # type: ignore[no-untyped-call]
    # d mean logsumexp(alpha) / d alpha = softmax(alpha) / number of edges.
    torch.testing.assert_close(alphas["normal"].grad, torch.softmax(ALPHA, dim=1) / 5)


def test_beta_decay_grows_over_the_epochs() -> None:
    spec = darts(penalties={"beta_decay": 50.0}).penalties
    alphas = {"normal": ALPHA}
    found = [float(penalties.total(spec, alphas, alphas, share)) for share in (0.0, 0.5, 1.0)]
    full = 50.0 * float(penalties.beta_decay(alphas))
    assert found == pytest.approx([0.0, full / 2, full])


def test_zero_one_is_least_at_zero_and_one() -> None:
    undecided, decided = torch.full((2, 2), 0.5), torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    assert float(penalties.zero_one({"a": undecided})) == 0.0
    assert float(penalties.zero_one({"a": decided})) == -0.25


def test_the_anchor_is_zero_for_the_uniform_distribution_alone() -> None:
    assert float(penalties.anchor({"a": torch.zeros(3, 4)})) == pytest.approx(0.0, abs=1e-6)
    assert float(penalties.anchor({"a": ALPHA})) > 0.01


# --- smoothing ---


def a_search(folder: Path, **keys: Any) -> Search:
    """A search before its first epoch."""
    made: list[Search] = []

    class Stopped(Exception):
        pass

    def stop(found: Search) -> None:
        made.append(found)
        raise Stopped

    with pytest.raises(Stopped):
        search_one_shot(darts(**keys), make_task(folder), Hooks(begin_epoch=stop))
    return made[0]


@pytest.mark.parametrize("kind", ["random", "adversarial"])
def test_smoothing_of_size_zero_is_darts(kind: str, tmp_path: Path) -> None:
    plain = search(darts(), make_task(tmp_path / "plain"))
    keys = {"kind": kind, "size": [0.0, 0.0], "steps": 2}
    assert search(darts(smoothing=keys), make_task(tmp_path / "smooth")) == plain
    assert records(tmp_path / "smooth") == records(tmp_path / "plain")


@pytest.mark.parametrize("kind", ["random", "adversarial"])
def test_perturbed_weights_stay_near_and_the_adversarial_raise_the_loss(
    kind: str, tmp_path: Path
) -> None:
    found = a_search(tmp_path)
    supernet, size = found.supernet.eval(), 0.1
    batch = found.task.weights.batch(torch.arange(10))
    torch.manual_seed(0)
    spec = SmoothingSpec(kind=kind, steps=7)  # type: ignore[arg-type]
    mixing = perturbed(found, batch, found.mixing, spec, size)
    with torch.no_grad():
        before = found.loss(supernet(batch[0]), batch[1])
        plain = supernet.edge_weights()
        supernet.mixing = mixing
        after = found.loss(supernet(batch[0]), batch[1])
        changed = supernet.edge_weights()
    for name, weights in plain.items():
        assert float((changed[name] - weights).abs().max()) <= size + 1e-6
        assert float(changed[name].min()) >= 0.0
        assert not torch.equal(changed[name], weights)
    if kind == "adversarial":
        assert float(after) > float(before)


# --- stages ---


def test_stages_keep_the_strongest_candidates_and_grow(tmp_path: Path) -> None:
    seen: list[tuple[int, list[int]]] = []

    def note(found: Search) -> None:
        stages.enter(found, (StageSpec(cells=3), StageSpec(cells=5, candidates=3)))
        weights = found.mixing(found.supernet.alpha_parameters())["normal"]
        seen.append((len(found.supernet.network.cnn_cells), (weights > 0).sum(dim=1).tolist()))

    keys = PARTS["p-darts"] | {"stages": [{"cells": 3}, {"cells": 5, "candidates": 3}]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "emodarts.searching.strategies.darts.Darts._begin_epoch",
            lambda self, found: note(found),
        )
        search(darts(**keys), make_task(tmp_path))
    assert [cells for cells, _ in seen] == [3, 3, 5, 5]
    assert seen[0][1] == [8, 8]
    assert seen[2][1] == [3, 3]
    (begun,) = [r["alphas"]["normal"] for r in records(tmp_path)[1:2]]
    weights = torch.softmax(torch.tensor(begun), dim=1)
    names = make_task(tmp_path).network.operations
    kept = stages.strongest({"normal": weights}, names, 3)["normal"]
    for row, columns in zip(weights.tolist(), kept, strict=True):
        assert sorted(row)[-3:] == sorted(row[k] for k in columns)


def test_a_stage_leaves_every_edge_an_operation() -> None:
    names = {"normal": ["none", "max_pool_3x3", "skip_connect", "sep_conv_3x3"]}
    weights = {"normal": torch.tensor([[0.5, 0.1, 0.3, 0.1], [0.1, 0.2, 0.3, 0.4]])}
    assert stages.strongest(weights, names, 1) == {"normal": [[1], [3]]}
    assert stages.strongest(weights, names, 2) == {"normal": [[0, 1], [2, 3]]}


def test_smoothing_gives_no_weight_to_a_candidate_that_dropped_out(tmp_path: Path) -> None:
    found = a_search(tmp_path)
    batch = found.task.weights.batch(torch.arange(10))
    kept = {"normal": [[0, 1]] * len(found.supernet.alpha_parameters()["normal"])}
    spec = SmoothingSpec(kind="random")
    mixing = perturbed(found, batch, stages.restricted(found.mixing, kept), spec, 0.3)
    weights = mixing(found.supernet.alpha_parameters())["normal"].detach()
    assert float(weights[:, 2:].abs().max()) == 0.0
    assert float(weights[:, :2].min()) > 0.0


def test_what_was_found_of_one_supernet_is_forgotten_with_it(tmp_path: Path) -> None:
    """Candidates that a stage froze are trained again in the deeper network of the next."""
    seen: list[list[str]] = []
    begin = stages.enter

    def note(found: Search, asked: tuple[StageSpec, ...]) -> None:
        before = list(found.memory.get("frozen", []))
        begin(found, asked)
        if found.epoch == 4:
            seen.extend([before, list(found.memory.get("frozen", []))])

    keys = {"epochs": 8, "alphas": {"learning_rate": 1e-3}, "stop": {"gradient_matching": 1.0}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stops, "MATCHING_STEPS", 4)  # of the six that a stage takes after warm-up
        patch.setattr(stages, "enter", note)
        search(darts(**keys, stages=[{"cells": 3}, {"cells": 4}]), make_task(tmp_path))
    before, after = seen
    assert before
    assert after == []


def test_the_weakest_skips_give_way() -> None:
    network = NetworkSpec(cnn=CNNSpec(cells=1, nodes=2), seqnn=NoSeqNN(mode="none"))
    names = network.operations["reduction"]
    alpha = torch.zeros(5, len(names))
    alpha[:, names.index(SKIP)] = torch.tensor([3.0, 4.0, 5.0, 2.0, 0.1])
    for limit in (4, 2, 1, 0):
        found = derive_genotype({"reduction": alpha}, network, max_skips=limit)
        skips = found.skip_counts()["reduction"]
        assert skips == min(limit, 4)
    kept = derive_genotype({"reduction": alpha}, network, max_skips=1).cells["reduction"]
    places = [(n, e.source) for n, node in enumerate(kept) for e in node if e.operation == SKIP]
    assert places == [(1, 0)]  # the third row: node 1 reads state 0


# --- stops ---


#: Most skip connections in a cell of each epoch, of which the first trains weights alone; epochs
#: that are done with a limit of 2, and the one whose genotype is taken.
ENDS = [
    ([0, 1, 1, 0], 4, 3),
    ([0, 1, 2, 0], 3, 1),
    ([0, 1, 0, 2], 4, 2),  # the last epoch counts like every other
    ([2, 2, 2, 2], 4, 3),  # so many from the start are no collapse
    ([0, 2, 1, 2], 4, 2),
    ([0, 2, 0, 0], 4, 3),  # the warm-up has no genotype to return to
]


@pytest.mark.parametrize(("counts", "done", "taken"), ENDS)
def test_a_search_ends_with_the_genotype_before_there_were_too_many_skips(
    counts: list[int], done: int, taken: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(tmp_path)
    others = [o for o in task.network.operations["normal"] if o not in (NONE, SKIP)]

    def genotype(epoch: int) -> Genotype:
        names = [SKIP] * counts[epoch] + [others[epoch]] * (2 - counts[epoch])
        cell = (tuple(Edge(name, source) for source, name in enumerate(names)),)
        return Genotype(normal=cell, reduction=((Edge(others[0], 0), Edge(others[0], 1)),))

    monkeypatch.setattr(
        "emodarts.searching.strategies.darts.Darts._derive", lambda _, found: genotype(found.epoch)
    )
    spec = darts(epochs=4, warmup="fixed", warmup_epochs=1, stop={"skips": 2})
    assert search(spec, task) == genotype(taken)
    assert len(records(tmp_path)) == done


def test_eigenvalues_have_grown_when_their_mean_has() -> None:
    assert not stops.has_grown([1.0] * 5 + [9.0] * 4, 1.3)
    assert not stops.has_grown([1.0] * 5 + [1.3] * 5, 1.31)
    assert stops.has_grown([1.0] * 5 + [1.4] * 5, 1.3)
    assert stops.has_grown([7.0, *[1.0] * 5, *[1.4] * 5], 1.3)


def test_the_eigenvalues_that_are_watched_are_written(tmp_path: Path) -> None:
    keys = {"epochs": 3, "warmup_epochs": 1}
    search(darts(**keys, **PARTS["eigenvalue"]), make_task(tmp_path / "watched"))
    rows = files.read_csv(tmp_path / "watched" / "search.csv", RunError)
    assert [bool(row["eigenvalue"]) for row in rows] == [False, False, True]
    search(darts(**keys), make_task(tmp_path / "other"))
    assert "eigenvalue" not in files.read_csv(tmp_path / "other" / "search.csv", RunError)[0]


def test_the_dominant_eigenvalue_is_that_of_the_hessian(tmp_path: Path) -> None:
    network = NetworkSpec(
        cnn=CNNSpec(cells=1, nodes=1, channels=2), seqnn=NoSeqNN(mode="none"), pooling="mean"
    )
    task = make_task(tmp_path)
    parts = {
        key: replace(part, features=part.features.double())
        for key, part in (("weights", task.weights), ("alphas", task.alphas))
    }
    task = replace(task, network=network, **parts)
    found = Search(darts(class_weights=False), task, Hooks())
    found.supernet.double().eval()
    batch = task.alphas.batch(torch.arange(10))
    alpha = found.supernet.alpha_parameters()["reduction"]
    alpha.data = torch.randn(alpha.shape, generator=torch.Generator().manual_seed(0)).double()
    before = alpha.detach().clone()
    gradient = torch.autograd.grad(
        found.loss(found.supernet(batch[0]), batch[1]), alpha, create_graph=True
    )[0].flatten()
    rows = [torch.autograd.grad(g, alpha, retain_graph=True)[0].flatten() for g in gradient]
    values = torch.linalg.eigvalsh(torch.stack(rows))
    dominant = float(values[values.abs().argmax()])
    torch.manual_seed(0)
    assert stops.dominant_eigenvalue(found, batch) == pytest.approx(dominant, rel=0.1)
    assert torch.equal(alpha, before)


def test_candidates_whose_gradients_disagree_are_trained_no_more(tmp_path: Path) -> None:
    keys = {"epochs": 13, "alphas": {"learning_rate": 1e-3}, "stop": {"gradient_matching": 1.0}}
    states: list[dict[str, Tensor]] = []

    def keep(found: Search) -> None:
        weights = found.supernet.weight_parameters()
        states.append({name: w.detach().clone() for name, w in weights.items()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "emodarts.searching.strategies.darts.Darts._begin_epoch",
            lambda self, found: keep(found),
        )
        search(darts(**keys), make_task(tmp_path))
    # Two steps an epoch and one epoch of warm-up: 20 steps are over after 11 epochs.
    inside = [name for name in states[0] if ".operations." in name]
    outside = [name for name in states[0] if "classifier" in name]
    assert any(not torch.equal(states[9][n], states[10][n]) for n in inside)
    assert all(torch.equal(states[11][n], states[12][n]) for n in inside)
    assert any(not torch.equal(states[11][n], states[12][n]) for n in outside)


# --- DARTS-PT ---


def test_masked_weights_keep_the_sum_of_an_edge() -> None:
    kept = {"normal": torch.tensor([[True, False, True], [False, False, False]])}
    weights = torch.softmax(ALPHA, dim=1)
    found = masked(lambda alphas: {"normal": weights}, kept)({})["normal"]
    torch.testing.assert_close(found.sum(dim=1), torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(found[0, 0] / found[0, 2], weights[0, 0] / weights[0, 2])


@pytest.mark.parametrize("tune_epochs", [0, 1])
def test_the_operation_whose_removal_hurts_is_kept_whatever_its_alpha(
    tune_epochs: int, tmp_path: Path
) -> None:
    """Alphas that never move prefer none; the supernet works through one candidate alone."""
    toy = one_candidate(0)
    keys: dict[str, Any] = {"epochs": 6, "batch_size": 12, "warmup_epochs": 5}
    keys |= {"alphas": {"learning_rate": 1e-9, "initial_sd": 0.0}}
    keys |= {"derivation": {"by": "perturbation", "tune_epochs": tune_epochs}}
    shown = Shown()
    found = search(darts(**keys), replace(toy.task(tmp_path, 0), progress=shown))
    operations = {e.operation for cell in found.cells.values() for node in cell for e in node}
    assert operations == {toy.answer}
    # The search, and then 4 edges and 2 nodes of the selection.
    assert shown.asked[-1] == ["search, selection", 6, 6]
    assert all(total == done for _, total, done in shown.asked)


class Shown(Silent):
    """Tasks with their totals, and how far they came."""

    def __init__(self) -> None:
        self.asked: list[list[Any]] = []

    def start(self, task: str, total: int, done: int = 0) -> None:
        self.asked.append([task, total, done])

    def advance(self, **values: float) -> None:
        self.asked[-1][2] += 1


# --- what cannot be combined ---


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"relaxation": {"kind": "sigmoid"}, "partial_channels": 4}, "partial_channels"),
        ({"relaxation": {"kind": "one_hot"}, "smoothing": {"kind": "random"}}, "smoothing"),
        ({"relaxation": {"kind": "one_hot", "path_dropout": 0.2}}, "path_dropout"),
        ({"relaxation": {"kind": "one_hot"}, "derivation": {"by": "perturbation"}}, "derivation"),
        ({"derivation": {"by": "perturbation", "max_skips": 2}}, "max_skips"),
        ({"derivation": {"by": "perturbation"}, "genotype_epoch": "best"}, "genotype_epoch best"),
        ({"derivation": {"by": "perturbation"}, "stop": {"skips": 2}}, "stop: derivation.by"),
        ({"penalties": {"zero_one": 1.0}}, "zero_one"),
        ({"penalties": {"anchor": 1.0}}, "anchor"),
        ({"relaxation": {"kind": "dirichlet"}, "stages": [{"cells": 3}]}, "stages"),
        ({"stages": [{"cells": 3}] * 9, "epochs": 8}, "9 stages"),
        ({"stages": [{"cells": 3, "candidates": 4}]}, "stages: the first has candidates 4"),
        ({"relaxation": {"temperature": [1.0, 0.0]}}, "temperature"),
    ],
)
def test_an_impossible_combination_is_refused_with_the_reason(
    keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        Recipe.from_dict({"search": {"order": 1, **keys}})
    assert "allowed" in str(caught.value)
