"""The discrete network: a training step, and the latency of one answer on one thread.

    python benchmarks/network.py [--network default] [--json FILE]

Against a plain build of the same network with the same weights: contiguous NCHW maps, torch's
dropout, batch norms that are not folded, nothing compiled. Training has that where a run with
``compute.fast: true`` would. Both sides run in one process, in turn; a ratio is between neighbours
in time. Memory is that of a fresh process that takes one training step.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from emodarts import load_recipe
from emodarts.fast import resolve
from emodarts.genotype import Genotype
from emodarts.recipe import CNNSpec, NetworkSpec, SearchedSeqNN
from emodarts.searching.derivation import random_genotype
from emodarts.systems.count import count_multiply_adds, count_parameters
from emodarts.systems.discrete import DiscreteNetwork
from emodarts.systems.folding import fold
from emodarts.systems.neural import training_views
from emodarts.training.views import Views
from measure import MIB, in_fresh_process, in_turn, parser, show, size_of, speedup, spreads, write

#: Training steps and answers that are timed, and the batch where it is not that of the network.
SIZES = {"full": (5, 50, None), "quick": (3, 20, 16), "small": (2, 2, 4)}
N_CLASSES = 4
EPOCHS, UTTERANCES = 30, 250
AUXILIARY_WEIGHT, DROP_PATH = 0.4, 0.1


@dataclass(frozen=True)
class Case:
    """A network and what it is trained on.

    Attributes
    ----------
    batch : utterances of a training step.
    map : frequencies and frames.
    shortest : frames of the shortest utterance; the others have all lengths between.
    views : what draws and perturbs a batch, if anything does.
    """

    spec: NetworkSpec
    genotype: Genotype
    batch: int
    map: tuple[int, int]
    shortest: int
    views: Views | None = None


def _searched() -> Case:
    """The papers' CNN under a SeqNN that makes 310,648 parameters of it."""
    spec = NetworkSpec(
        cnn=CNNSpec(cells=4, nodes=4, channels=8),
        seqnn=SearchedSeqNN(space="lstm_att", cells=1, nodes=2, width=48),
        frequency="mean",
    )
    genotype = random_genotype(spec, torch.Generator().manual_seed(2))
    return Case(spec, genotype, 96, (128, 128), 128)


def _default() -> Case:
    """One network of the recipe, and crops of the length that it has."""
    recipe = load_recipe("default")
    samples = round(recipe.training.crop * recipe.features.sample_rate)
    frames = int(recipe.features.frames_of(samples))
    size = (recipe.features.n_features, frames)
    batch, views = recipe.training.batch_size, training_views(recipe)
    return Case(recipe.network, Genotype(), batch, size, frames // 2, views)


CASES = {"searched": _searched, "default": _default}


class PlainNetwork(DiscreteNetwork):
    """The same modules on contiguous maps."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.dropout = nn.Dropout(self.spec.dropout)
        self._layout = torch.contiguous_format


KINDS = {"emodarts": DiscreteNetwork, "plain": PlainNetwork}


def build(kind: str, case: Case, *, trained: bool = False) -> DiscreteNetwork:
    """The network as it is trained or answers; both kinds have the same weights."""
    torch.manual_seed(0)
    implementation = resolve(trained and kind == "emodarts", torch.device("cpu"))
    return KINDS[kind](
        case.genotype,
        case.spec,
        case.map[0],
        N_CLASSES,
        drop_path=DROP_PATH,
        auxiliary_weight=AUXILIARY_WEIGHT,
        implementation=implementation,
    )


def made_up(case: Case, batch: int) -> Tensor:
    """Features of utterances from the longest to the shortest."""
    features = torch.randn(batch, 1, *case.map, generator=torch.Generator().manual_seed(0))
    for row, length in enumerate(torch.linspace(case.map[1], case.shortest, batch).int()):
        features[row, :, :, length:] = torch.nan
    return features


def training_step(network: DiscreteNetwork, features: Tensor) -> Callable[[], None]:
    """A step as ``training.fit`` takes it, on made-up features."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(N_CLASSES, features.shape[:1], generator=generator)
    optimiser = torch.optim.SGD(network.parameters(), 0.025, 0.9, weight_decay=3e-4)

    def step() -> None:
        network.train()
        network.begin_epoch(1.0)
        logits, heads = network.forward_with_auxiliary(features)
        loss = functional.cross_entropy(logits, targets)
        for head in heads:
            loss = loss + head.weight * functional.cross_entropy(head.logits, targets)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()

    return step


def one_step(kind: str, name: str, batch: int, threads: int) -> None:
    """All that a process does whose memory is measured."""
    torch.set_num_threads(threads)
    case = CASES[name]()
    training_step(build(kind, case, trained=True), made_up(case, batch))()


def measure_training(name: str, batch: int, repeats: int, threads: int) -> dict[str, Any]:
    """Seconds of a step, speed-up, peak memory, and what that makes of a training."""
    torch.set_num_threads(threads)
    case = CASES[name]()
    features = made_up(case, batch)
    ways = {kind: training_step(build(kind, case, trained=True), features) for kind in KINDS}
    rows = in_turn(ways, repeats)
    taken = spreads(rows)
    memory = {kind: in_fresh_process(one_step, kind, name, batch, threads)[1] for kind in KINDS}
    # Batches are of nearly equal size: an epoch costs what its utterances do.
    share = EPOCHS * UTTERANCES / batch
    return {
        "training_step_s": taken,
        "training_speedup": speedup(rows, "plain", "emodarts"),
        "training_peak_bytes": {kind: found["peak"] for kind, found in memory.items()},
        "training_30_epochs_of_250_s": {k: share * v["median"] for k, v in taken.items()},
    }


def measure_views(case: Case, batch: int, repeats: int, threads: int) -> dict[str, Any]:
    """Seconds to draw and perturb a batch of whole utterances, and their share of a step's."""
    views = case.views
    if views is None:
        return {}
    torch.set_num_threads(threads)
    step = training_step(build("emodarts", case, trained=True), made_up(case, batch))
    whole = replace(case, map=(case.map[0], 2 * case.map[1]), shortest=case.map[1])
    features = made_up(whole, batch)
    rows = in_turn({"views": lambda: views.draw(features), "step": step}, repeats)
    return {
        "views_s": spreads(rows)["views"],
        "views_share_of_step": speedup(rows, "views", "step"),
    }


def measure_latency(case: Case, repeats: int) -> dict[str, Any]:
    """Seconds of one answer on one thread, and how far the two answers are apart."""
    torch.set_num_threads(1)
    plain, ours = build("plain", case), build("emodarts", case)
    features = made_up(case, 4)
    with torch.no_grad():
        plain.train()(features)  # batch norms get statistics that are not trivial
    plain.eval()
    ours.load_state_dict(copy.deepcopy(plain.state_dict()))
    folded = fold(ours)
    one = features[:1]
    with torch.inference_mode():
        difference = float((plain(one) - folded(one)).abs().max())
        rows = in_turn({"emodarts": lambda: folded(one), "plain": lambda: plain(one)}, repeats)
    return {
        "latency_s": spreads(rows),
        "latency_speedup": speedup(rows, "plain", "emodarts"),
        "largest_logit_difference": difference,
    }


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All numbers."""
    steps, answers, batch = SIZES[size_of(arguments)]
    case = CASES[arguments.network]()
    batch = arguments.batch or batch or case.batch
    network = build("emodarts", case)
    return {
        "batch": batch,
        "parameters": count_parameters(network),
        "multiply_adds": count_multiply_adds(network, (1, *case.map)),
        **measure_latency(case, arguments.repeats or answers),
        **measure_training(arguments.network, batch, arguments.repeats or steps, arguments.threads),
        **measure_views(case, batch, arguments.repeats or steps, arguments.threads),
    }


def main() -> None:
    """Print the numbers, and write them as JSON if asked."""
    taking = parser(__doc__)
    taking.add_argument(
        "--network",
        choices=CASES,
        default="searched",
        help="a random genotype, or the plain CNN with LSTM of the recipe default",
    )
    taking.add_argument("--batch", type=int, help="of the training step")
    taking.add_argument("--repeats", type=int, help="of every timing")
    taking.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of training")
    arguments = taking.parse_args()
    found = measure(arguments)
    print(f"{found['parameters']:,} parameters, {found['multiply_adds'] / 1e6:.0f} M multiply-adds")
    for kind in KINDS:
        latency = {k: 1e3 * v for k, v in found["latency_s"][kind].items()}
        print(
            f"{kind:9} answer {show(latency, 1)} ms, training step of {found['batch']} "
            f"{show(found['training_step_s'][kind])} s, "
            f"{found['training_peak_bytes'][kind] / MIB:.0f} MiB, {EPOCHS} epochs of {UTTERANCES} "
            f"utterances {found['training_30_epochs_of_250_s'][kind]:.0f} s"
        )
    print(f"speed-up of an answer {show(found['latency_speedup'])}")
    print(f"speed-up of a training step {show(found['training_speedup'])}")
    print(f"largest difference of a logit {found['largest_logit_difference']:.1e}")
    if "views_s" in found:
        share = {k: 100 * v for k, v in found["views_share_of_step"].items()}
        print(f"drawing and perturbing a batch takes {show(share, 1)} % as long as a training step")
    torch.set_num_threads(arguments.threads)
    write("network", arguments, found, torch.device("cpu"))


if __name__ == "__main__":
    main()
