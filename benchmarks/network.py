"""The discrete network: a training step, and the latency of one answer on one thread.

    python benchmarks/network.py [--json FILE]

Against a plain build of the same genotype with the same weights: contiguous NCHW maps, torch's
dropout, batch norms that are not folded, no compiled cells. Training has those where a run with
``compute.fast: true`` would. Both sides run in one process, in turn; a ratio is between neighbours
in time. Memory is that of a fresh process that takes one training step.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from emodarts.fast import resolve
from emodarts.recipe import CNNSpec, NetworkSpec, SearchedSeqNN
from emodarts.searching.derivation import random_genotype
from emodarts.systems.count import count_multiply_adds, count_parameters
from emodarts.systems.discrete import DiscreteNetwork
from emodarts.systems.folding import fold
from measure import MIB, in_fresh_process, in_turn, parser, show, size_of, speedup, spreads, write

#: Batch, size of the map, training steps and answers that are timed.
SIZES = {"full": (96, 128, 5, 50), "quick": (16, 128, 3, 20), "small": (4, 16, 2, 2)}
#: The papers' CNN under a SeqNN that makes 310,648 parameters of it.
SPEC = NetworkSpec(
    cnn=CNNSpec(cells=4, nodes=4, channels=8),
    seqnn=SearchedSeqNN(space="lstm_att", cells=1, nodes=2, width=48),
    frequency="mean",
)
GENOTYPE_SEED = 2
N_CLASSES = 4
EPOCHS, UTTERANCES = 30, 250
AUXILIARY_WEIGHT, DROP_PATH = 0.4, 0.1


class PlainNetwork(DiscreteNetwork):
    """The same modules on contiguous maps."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.dropout = nn.Dropout(self.spec.dropout)

    def cnn_maps(
        self, features: Tensor, weights: Mapping[str, Tensor] | None = None
    ) -> list[Tensor]:
        """Features ``(B, C, F, T)`` -> twice the stem's map, every cell's map."""
        maps = [self.stem(features.contiguous())] * 2
        for cell in self.cnn_cells:
            maps.append(self.dropout(cell(maps[-2], maps[-1])))
        return maps


KINDS = {"emodarts": DiscreteNetwork, "plain": PlainNetwork}


def build(kind: str, n_features: int, *, trained: bool = False) -> DiscreteNetwork:
    """The network of a random genotype, as it is trained or answers; both have the same weights."""
    genotype = random_genotype(SPEC, torch.Generator().manual_seed(GENOTYPE_SEED))
    torch.manual_seed(0)
    implementation = resolve(trained and kind == "emodarts", torch.device("cpu"))
    return KINDS[kind](
        genotype,
        SPEC,
        n_features,
        N_CLASSES,
        drop_path=DROP_PATH,
        auxiliary_weight=AUXILIARY_WEIGHT,
        implementation=implementation,
    )


def training_step(network: DiscreteNetwork, batch: int, size: int) -> Callable[[], None]:
    """A step as ``training.fit`` takes it, on made-up features."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(batch, 1, size, size, generator=generator)
    targets = torch.randint(N_CLASSES, (batch,), generator=generator)
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


def one_step(kind: str, batch: int, size: int, threads: int) -> None:
    """All that a process does whose memory is measured."""
    torch.set_num_threads(threads)
    training_step(build(kind, size, trained=True), batch, size)()


def measure_training(batch: int, size: int, repeats: int, threads: int) -> dict[str, Any]:
    """Seconds of a step, speed-up, peak memory, and what that makes of a training."""
    torch.set_num_threads(threads)
    ways = {kind: training_step(build(kind, size, trained=True), batch, size) for kind in KINDS}
    rows = in_turn(ways, repeats)
    taken = spreads(rows)
    memory = {kind: in_fresh_process(one_step, kind, batch, size, threads)[1] for kind in KINDS}
    # Batches are of nearly equal size: an epoch costs what its utterances do.
    share = EPOCHS * UTTERANCES / batch
    return {
        "training_step_s": taken,
        "training_speedup": speedup(rows, "plain", "emodarts"),
        "training_peak_bytes": {kind: found["peak"] for kind, found in memory.items()},
        "training_30_epochs_of_250_s": {k: share * v["median"] for k, v in taken.items()},
    }


def measure_latency(size: int, repeats: int) -> dict[str, Any]:
    """Seconds of one answer on one thread, and how far the two answers are apart."""
    torch.set_num_threads(1)
    plain, ours = build("plain", size), build("emodarts", size)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(4, 1, size, size, generator=generator)
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
    batch, size, steps, answers = SIZES[size_of(arguments)]
    batch = arguments.batch or batch
    network = build("emodarts", size)
    return {
        "batch": batch,
        "parameters": count_parameters(network),
        "multiply_adds": count_multiply_adds(network, (1, size, size)),
        **measure_latency(size, arguments.repeats or answers),
        **measure_training(batch, size, arguments.repeats or steps, arguments.threads),
    }


def main() -> None:
    """Print the numbers, and write them as JSON if asked."""
    taking = parser(__doc__)
    taking.add_argument("--batch", type=int, help="of the training step; default: 96")
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
    torch.set_num_threads(arguments.threads)
    write("network", arguments, found, torch.device("cpu"))


if __name__ == "__main__":
    main()
