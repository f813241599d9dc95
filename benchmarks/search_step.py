"""Time and memory of a search step: the fast supernet against the plain one.

    python benchmarks/search_step.py [--json FILE] [--order 1] [--space lstm_att] [--small] ...

Both have the same weights and threads and take turns in one process; seconds are medians. Peak
memory is that of a process of its own, less what it held before the supernet was built. Errors
are in float32 against the fast cell in float64, which equals the plain one
(``tests/fast/test_cells.py``), with dropout off, as both draw other masks. With ``--precision
bf16``, of the fast side alone, its errors are those of bfloat16 maps. Calls of torch are those that
a GPU would get, which waits for them at small batches; no GPU is needed to count them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from emodarts.fast import keep_freed_memory, resolve
from emodarts.recipe import SPACES, CNNSpec, ComputeSpec, NetworkSpec, SearchedSeqNN
from emodarts.runtime import autocast, configure
from emodarts.searching.gradients import (
    Batch,
    LookAhead,
    first_order_gradient,
    second_order_gradient,
)
from emodarts.searching.supernet import Supernet
from measure import parser as common_parser
from measure import size_of, write
from yardstick import Yardstick

N_CLASSES = 4
SIDES = ("yardstick", "fast")
MEASURED = ("memory", "cnn", "seqnn", "step", "errors", "calls")
_LARGE = 2048
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def build(side: str, arguments: argparse.Namespace) -> Any:
    """A supernet in training mode; all sides have the same weights."""
    torch.manual_seed(0)
    precision = arguments.precision if side == "fast" else "fp32"
    net: Any = Supernet(
        spec_of(arguments),
        arguments.features,
        N_CLASSES,
        implementation=resolve(True, torch.device(arguments.device), precision),
        precision=precision,
    )
    if side == "yardstick":
        state = net.state_dict()
        net = Yardstick(spec_of(arguments), arguments.features, N_CLASSES)
        net.load_state_dict(state, assign=True)
    return net.train().to(arguments.device)


def compute_of(arguments: argparse.Namespace) -> ComputeSpec:
    """Where it runs."""
    return ComputeSpec(
        device=arguments.device, threads=arguments.threads, precision=arguments.precision
    )


def spec_of(arguments: argparse.Namespace) -> NetworkSpec:
    """Shape of the network."""
    return NetworkSpec(
        cnn=CNNSpec(cells=arguments.cells, nodes=arguments.nodes, channels=arguments.channels),
        seqnn=SearchedSeqNN(
            space=arguments.space,
            cells=arguments.seqnn_cells,
            nodes=arguments.nodes,
            width=arguments.width,
            normalise=False,  # the yardstick is what was published
        ),
    )


def batch(arguments: argparse.Namespace, seed: int) -> Batch:
    """Features (B, 1, F, F) and targets (B,)."""
    generator = torch.Generator().manual_seed(seed)
    shape = (arguments.batch, 1, arguments.features, arguments.features)
    features = torch.randn(shape, generator=generator).to(arguments.device)
    return features, (torch.arange(arguments.batch) % N_CLASSES).to(arguments.device)


def rounding(net: Any, device: torch.device) -> AbstractContextManager[object]:
    """For a part of a forward pass, what ``Supernet`` does for all of it."""
    return autocast(getattr(net, "precision", "fp32"), device)


class Step:
    """A step of alphas and one of weights, as ``searching.loop`` takes them."""

    def __init__(self, net: Any, arguments: argparse.Namespace) -> None:
        self.net, self.order = net, arguments.order
        self.train, self.validation = batch(arguments, 1), batch(arguments, 2)
        self.weights = net.weight_parameters()
        self.sgd = torch.optim.SGD(self.weights.values(), 0.025, 0.9, weight_decay=3e-4)
        alphas = net.alpha_parameters()
        self.adam = torch.optim.Adam(alphas.values(), 3e-4, (0.5, 0.999), weight_decay=1e-3)

    def __call__(self) -> None:
        """Take it."""
        loss = functional.cross_entropy
        if self.order == 1:
            found = first_order_gradient(self.net, self.validation, loss)
        else:
            state = self.sgd.state
            buffers = {k: state[w]["momentum_buffer"] for k, w in self.weights.items() if state[w]}
            found = second_order_gradient(
                self.net,
                self.train,
                self.validation,
                loss,
                LookAhead(0.025, 0.9, 3e-4, buffers),
                hessian="finite_difference",
                epsilon=0.3,
            )
        for name, gradient in found.items():
            self.net.alphas[name].grad = gradient
        self.adam.step()
        value = loss(self.net(self.train[0]), self.train[1])
        grads = torch.autograd.grad(value, list(self.weights.values()))
        for w, g in zip(self.weights.values(), grads, strict=True):
            w.grad = g
        nn.utils.clip_grad_norm_(self.weights.values(), 5.0)
        self.sgd.step()
        self.sgd.zero_grad(set_to_none=True)
        synchronise(self.train[0])


def synchronise(like: Tensor) -> None:
    """Wait for the device."""
    if like.device.type == "cuda":
        torch.cuda.synchronize()


def seconds_of(
    calls: dict[str, Callable[[], None]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median of each, in turns, after one call of each that is not counted."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            begun = clock()
            call()
            if turn:
                found[name].append(clock() - begun)
    return {name: statistics.median(values) for name, values in found.items()}


def cnn_part(net: Any, arguments: argparse.Namespace) -> Callable[[], None]:
    """Both passes of a first-order step through the CNN: for alphas alone, and for weights."""
    x = batch(arguments, 1)[0]
    alphas = [net.alphas["normal"], net.alphas["reduction"]]
    weights = [*net.network.stem.parameters(), *net.network.cnn_cells.parameters()]

    def passes() -> None:
        for wanted in (alphas, weights):
            set_trainable(weights, wanted is weights)
            with rounding(net, x.device):
                maps = net.network.cnn_maps(x, net.edge_weights())[-2:]
            torch.autograd.grad(sum(m.float().square().mean() for m in maps), wanted)
        synchronise(x)

    return passes


def seqnn_part(net: Any, arguments: argparse.Namespace) -> Callable[[], None]:
    """Both passes of a first-order step through the SeqNN, on the CNN's maps."""
    x = batch(arguments, 1)[0]
    with torch.no_grad(), rounding(net, x.device):
        maps = net.network.cnn_maps(x, net.edge_weights())[-2:]
    maps = [m.detach().requires_grad_() for m in maps]
    alphas = [net.alphas["sequence"]]
    weights = list(net.network.sequence_cells.parameters())

    def passes() -> None:
        for wanted in (alphas, weights):
            set_trainable(weights, wanted is weights)
            with rounding(net, x.device):
                logits = net.network.classify(maps, net.edge_weights())
            torch.autograd.grad(logits.float().square().sum(), [*wanted, *maps])
        synchronise(maps[0])

    return passes


def set_trainable(weights: list[nn.Parameter], flag: bool) -> None:
    """As ``searching.gradients`` does for both sides."""
    for w in weights:
        w.requires_grad_(flag)


def large_products(arguments: argparse.Namespace) -> Callable[[], None]:
    """Ten products of large matrices, which show what the machine can do meanwhile."""
    a = torch.randn(_LARGE, _LARGE, device=arguments.device)

    def products() -> None:
        for _ in range(10):
            torch.mm(a, a)
        synchronise(a)

    return products


def copy_rate(arguments: argparse.Namespace) -> float:
    """Bytes a second, read and written, of a copy that fits in no cache."""
    a = torch.randn(2**26, device=arguments.device)
    b = torch.empty_like(a)

    def copy() -> None:
        b.copy_(a)
        synchronise(a)

    return 2 * 4 * a.numel() / seconds_of({"": copy}, 9, CLOCKS[arguments.clock])[""]


def seqnn_operations(net: Any, arguments: argparse.Namespace) -> float:
    """Floating-point operations that both passes need: weights meet every step of every utterance.

    Forward and backward to inputs in both, and to weights in one: 2 + 2 + 1 products. The context
    of an attention is the same at every step, so that its weights are needed once an utterance.
    """
    frames = arguments.features // 2 ** len(spec_of(arguments).cnn.reductions)
    meetings = 0
    for name, w in net.network.sequence_cells.named_parameters():
        if name.endswith("project.weight"):
            meetings += w.numel() // 2 * (frames + 1)
        elif w.dim() == 2:
            meetings += w.numel() * frames
    return 5 * 2.0 * arguments.batch * meetings


def peak_memory(side: str, arguments: argparse.Namespace) -> int:
    """Bytes that two steps need beyond what the process held before; in a process of its own."""
    keep_freed_memory()
    configure(compute_of(arguments))
    if arguments.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    before = resident()
    step = Step(build(side, arguments), arguments)
    step()
    step()
    if arguments.device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resident() - before


def resident() -> int:
    """Highest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def measure_memory(arguments: argparse.Namespace) -> dict[str, int]:
    """Peak memory of both sides; 0 for a side that was killed for it."""
    found = {}
    for side in SIDES:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found[side] = pool.apply(peak_memory, (side, arguments))
    return found


class Counted(TorchDispatchMode):
    """Counts calls that are no views: about what is launched on a GPU."""

    calls = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        self.calls += not func.is_view
        return func(*args, **(kwargs or {}))


def measure_calls(arguments: argparse.Namespace) -> dict[str, int]:
    """Calls of both passes through the CNN as a GPU would get them, on a device that is none."""
    arguments = argparse.Namespace(**{**vars(arguments), "device": "meta"})
    found = {}
    for side in SIDES:
        passes = cnn_part(build(side, arguments), arguments)
        with Counted() as counted:
            passes()
        found[side] = counted.calls
    return found


def measure_errors(arguments: argparse.Namespace) -> dict[str, float]:
    """Of the loss between both sides, and of alpha gradients against float64."""
    found: dict[str, tuple[float, Tensor]] = {}
    features, targets = batch(arguments, 1)
    for side, dtype in (
        ("yardstick", torch.float32),
        ("fast", torch.float32),
        ("", torch.float64),
    ):
        net = build(side, arguments).to(dtype)
        net.network.dropout.p = 0.0
        alphas = net.alpha_parameters()
        set_trainable(list(net.weight_parameters().values()), False)
        loss = functional.cross_entropy(net(features.to(dtype)), targets)
        gradients = torch.autograd.grad(loss, list(alphas.values()))
        flat = torch.cat([g.flatten().double() for g in gradients])
        found[side] = (loss.item(), flat)
    exact_loss, exact = found[""]
    losses = {side: abs(found[side][0] - exact_loss) / exact_loss for side in SIDES}
    errors = {side: float((found[side][1] - exact).norm() / exact.norm()) for side in SIDES}
    difference = abs(found["fast"][0] - found["yardstick"][0])
    return {
        "loss_relative_error": difference / found["yardstick"][0],
        "loss_relative_error_float64": losses["fast"],
        "alpha_grad_relative_error": errors["fast"],
        "yardstick_loss_relative_error_float64": losses["yardstick"],
        "yardstick_alpha_grad_relative_error": errors["yardstick"],
    }


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """The numbers that are asked for, ratios first."""
    keep_freed_memory()
    configure(compute_of(arguments))
    clock = CLOCKS[arguments.clock]
    found: dict[str, Any] = {}
    details: dict[str, Any] = {}
    if "memory" in arguments.only:
        memory = measure_memory(arguments)
        found["peak_memory_ratio"] = memory["fast"] / memory["yardstick"]
        details["peak_memory_bytes"] = memory
    nets = {side: build(side, arguments) for side in SIDES}
    parts = {}
    for name, part in (("cnn", cnn_part), ("seqnn", seqnn_part), ("step", Step)):
        if name not in arguments.only:
            continue
        calls = {side: part(net, arguments) for side, net in nets.items()}
        if name == "seqnn":
            calls["matrices"] = large_products(arguments)
        parts[name] = seconds_of(calls, arguments.repeats, clock)
        found[f"{name}_speedup"] = parts[name]["yardstick"] / parts[name]["fast"]
        for net in nets.values():
            set_trainable(list(net.weight_parameters().values()), True)
    if "seqnn" in parts:
        peak = 10 * 2 * _LARGE**3 / parts["seqnn"].pop("matrices")
        operations = seqnn_operations(nets["fast"], arguments)
        achieved = {side: operations / seconds for side, seconds in parts["seqnn"].items()}
        found["seqnn_peak_fraction"] = achieved["fast"] / peak
        details["seqnn_operations_per_second"] = achieved
        details["matrix_operations_per_second"] = peak
    del nets
    if "errors" in arguments.only:
        found.update(measure_errors(arguments))
    if "calls" in arguments.only:
        calls = measure_calls(arguments)
        found["cnn_calls_ratio"] = calls["fast"] / calls["yardstick"]
        details["cnn_calls_elsewhere"] = calls
    if "cnn" in parts:
        details["copied_bytes_per_second"] = copy_rate(arguments)
    return {**found, "seconds": parts, **details}


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = common_parser(__doc__)
    parser.add_argument("--order", type=int, choices=(1, 2), default=1)
    parser.add_argument("--space", choices=SPACES, default="lstm_att")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), default="fp32", help="of the fast side's maps"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="processor: the threads' own time, where other programs share the cores",
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--only", nargs="+", choices=MEASURED, default=MEASURED, help="measure no more than that"
    )
    sizes = {"batch": 16, "features": 128, "channels": 8, "cells": 4, "nodes": 4}
    sizes.update({"seqnn_cells": 4, "width": 128})
    quick = {"batch": 8, "features": 64, "channels": 8, "cells": 4, "nodes": 2}
    quick.update({"seqnn_cells": 2, "width": 64})
    small = {"batch": 4, "features": 16, "channels": 2, "cells": 3, "nodes": 1}
    small.update({"seqnn_cells": 1, "width": 4})
    for name, default in sizes.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help=f"default: {default}")
    arguments = parser.parse_args(argv)
    for name in sizes:
        if getattr(arguments, name) is None:
            chosen = {"full": sizes, "quick": quick, "small": small}[size_of(arguments)]
            setattr(arguments, name, chosen[name])
    return arguments


def main() -> None:
    """Print the numbers, and write them as JSON if asked."""
    arguments = parse()
    result = measure(arguments)
    for name, value in result.items():
        print(f"{name:40} {value:.3g}" if isinstance(value, float) else f"{name:40} {value}")
    write("search_step", arguments, result, torch.device(arguments.device))


if __name__ == "__main__":
    main()
