"""How a search step grows: seconds and peak memory over order, space, batch, C0, cells, nodes.

    python benchmarks/scaling.py [--json FILE] [--plot FILE.png]

One setting at a time differs from the base, which is the papers' supernet. A step is the gradient
of the alphas and the training step of the weights that follows it, on made-up features. Each
setting runs in a process of its own; memory is what the process takes beyond its libraries (on a
GPU: what torch allocated). For each setting that is a number x, a power law ``a * x ** b`` is
fitted by least squares to the logarithms of the least values, as what else the machine does only
adds; ``b`` comes with its 95 % confidence
interval (Student's t).
"""

from __future__ import annotations

import argparse
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from scipy import stats
from torch.nn import functional

from emodarts import files
from emodarts.fast import keep_freed_memory, resolve
from emodarts.recipe import CNNSpec, ComputeSpec, NetworkSpec, SearchedSeqNN
from emodarts.runtime import configure, resolve_device
from emodarts.searching.gradients import LookAhead, first_order_gradient, second_order_gradient
from emodarts.searching.supernet import Supernet
from measure import MIB, Spread, in_fresh_process, parser, seconds, show, size_of, spread, write

N_CLASSES = 4
#: Settings that are numbers, and thus have a growth law; the number of nodes is that of all cells.
NUMBERS = ("batch", "channels", "cells", "nodes")
NAMES = {"batch": "batch", "channels": "C0", "cells": "CNN cells", "nodes": "nodes per cell"}

#: Loads what is loaded on first use.
TINY: dict[str, Any] = {
    **{"order": 1, "space": "rnn_att", "batch": 2, "channels": 2, "cells": 3},
    **{"nodes": 1, "size": 8, "seqnn_cells": 1, "width": 2},
}

#: The base, the values of each setting, rounds over all settings, and timed steps in each.
PLANS: dict[str, dict[str, Any]] = {
    "full": {
        "base": {
            **{"order": 1, "space": "lstm_att", "batch": 16, "channels": 8, "cells": 4},
            **{"nodes": 4, "size": 128, "seqnn_cells": 4, "width": 128},
        },
        "values": {
            "order": (1, 2),
            "space": ("lstm", "rnn", "lstm_att", "rnn_att", "all"),
            "batch": (4, 8, 16, 32),
            "channels": (2, 4, 8, 16),
            "cells": (3, 4, 6, 8),
            "nodes": (1, 2, 3, 4),
        },
        "rounds": 2,
        "steps": 2,
    },
    "quick": {
        "base": {
            **{"order": 1, "space": "lstm_att", "batch": 8, "channels": 4, "cells": 3},
            **{"nodes": 2, "size": 32, "seqnn_cells": 1, "width": 32},
        },
        "values": {
            "order": (1, 2),
            "space": ("lstm_att", "all"),
            "batch": (4, 8, 16, 32),
            "channels": (4, 8, 16),
            "cells": (3, 4, 6),
            "nodes": (1, 2, 4),
        },
        "rounds": 1,
        "steps": 2,
    },
    "small": {
        "base": TINY,
        "values": {"order": (1, 2), "batch": (2, 4, 8)},
        "rounds": 1,
        "steps": 2,
    },
}


def search_steps(
    setting: dict[str, Any], steps: int, device_name: str, threads: int
) -> tuple[list[float], int]:
    """Seconds of some steps after a first one; the peak of the device's memory, 0 on a CPU."""
    device = configure(ComputeSpec(device=device_name, threads=threads))
    spec = NetworkSpec(
        cnn=CNNSpec(cells=setting["cells"], nodes=setting["nodes"], channels=setting["channels"]),
        seqnn=SearchedSeqNN(
            space=setting["space"],
            cells=setting["seqnn_cells"],
            nodes=setting["nodes"],
            width=setting["width"],
        ),
    )
    torch.manual_seed(0)
    keep_freed_memory()
    implementation = resolve(True, device)
    supernet = Supernet(spec, setting["size"], N_CLASSES, implementation=implementation)
    supernet.train().to(device)
    shape = (setting["batch"], 1, setting["size"], setting["size"])
    train, validation = (
        (
            torch.randn(shape, device=device),
            torch.randint(N_CLASSES, shape[:1], device=device),
        )
        for _ in range(2)
    )
    loss = functional.cross_entropy
    weights = list(supernet.weight_parameters().values())
    optimiser = torch.optim.SGD(weights, 0.025, 0.9, weight_decay=3e-4)
    ahead = LookAhead(0.025, 0.9, 3e-4, {})

    def step() -> None:
        if setting["order"] == 1:
            first_order_gradient(supernet, validation, loss)
        else:
            second_order_gradient(
                supernet,
                *(train, validation, loss, ahead),
                hessian="finite_difference",
                epsilon=0.3,
            )
        optimiser.zero_grad()
        loss(supernet(train[0]), train[1]).backward()
        torch.nn.utils.clip_grad_norm_(weights, 5.0)
        optimiser.step()

    step()
    taken = [seconds(step, device) for _ in range(steps)]
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    return taken, peak


def settings_of(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """The base, then every other value of every setting."""
    base = plan["base"]
    others = [
        {**base, name: value}
        for name, values in plan["values"].items()
        for value in values
        if value != base[name]
    ]
    return [base, *others]


def measure_steps(plan: dict[str, Any], device: torch.device, threads: int) -> list[dict[str, Any]]:
    """Each setting with its seconds and its memory in bytes."""
    settings = settings_of(plan)
    taken: list[list[float]] = [[] for _ in settings]
    memory: list[list[float]] = [[] for _ in settings]
    for turn in range(plan["rounds"]):
        for k, setting in enumerate(settings):
            (times, on_device), process = in_fresh_process(
                search_steps,
                *(setting, plan["steps"], str(device), threads),
                first=(TINY, 1, str(device), threads),
            )
            taken[k] += times
            # A page at least: a law needs a logarithm.
            memory[k].append(on_device or max(process["peak"] - process["before"], 4096))
            changed = {n: v for n, v in setting.items() if v != plan["base"][n]} or "base"
            print(
                f"{turn + 1}/{plan['rounds']} {changed}: {show(spread(times), 3)} s, "
                f"{memory[k][-1] / MIB:.0f} MiB",
                flush=True,
            )
    return [
        {"setting": setting, "seconds": spread(t), "bytes": spread(m)}
        for setting, t, m in zip(settings, taken, memory, strict=True)
    ]


def along(rows: Sequence[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The rows that differ from the base, the first one, in one setting alone; sorted by it."""
    base = {k: v for k, v in rows[0]["setting"].items() if k != name}
    same = [r for r in rows if {k: v for k, v in r["setting"].items() if k != name} == base]
    return sorted(same, key=lambda r: r["setting"][name])


def power_law(x: Sequence[float], y: Sequence[float]) -> dict[str, float]:
    """``y = factor * x ** exponent`` by least squares of logarithms, from three points or more.

    ``low`` and ``high`` bound the exponent with 95 % confidence.
    """
    fit = stats.linregress([math.log(v) for v in x], [math.log(v) for v in y])
    margin = float(stats.t.ppf(0.975, len(x) - 2)) * float(fit.stderr)
    exponent = float(fit.slope)
    return {
        "factor": math.exp(float(fit.intercept)),
        "exponent": exponent,
        "low": exponent - margin,
        "high": exponent + margin,
    }


def laws_of(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Growth of seconds and bytes over every number that takes three values or more."""
    laws = {}
    for name in NUMBERS:
        line = along(rows, name)
        if len(line) >= 3:
            x = [row["setting"][name] for row in line]
            laws[name] = {
                what: power_law(x, [row[what]["least"] for row in line])
                for what in ("seconds", "bytes")
            }
    return laws


def plot(rows: Sequence[dict[str, Any]], laws: dict[str, Any], path: Path) -> None:
    """Points with their ranges and fitted laws, one column a setting, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(laws), 5.6), layout="constrained")
    axes = figure.subplots(2, len(laws), squeeze=False, sharex="col", sharey="row")
    units = {"seconds": ("s", 1.0), "bytes": ("MiB", 1.0 / MIB)}
    for column, (name, law) in enumerate(laws.items()):
        line = along(rows, name)
        x = [row["setting"][name] for row in line]
        for row, (what, (unit, scale)) in enumerate(units.items()):
            ax = axes[row][column]
            found: list[Spread] = [r[what] for r in line]
            ax.errorbar(
                x,
                [scale * f["median"] for f in found],
                yerr=[
                    [scale * (f["median"] - f["least"]) for f in found],
                    [scale * (f["most"] - f["median"]) for f in found],
                ],
                fmt="o",
                capsize=3,
            )
            fit = law[what]
            ax.plot(x, [scale * fit["factor"] * v ** fit["exponent"] for v in x], "--")
            ax.set_title(
                f"exponent {fit['exponent']:.2f} ({fit['low']:.2f} to {fit['high']:.2f})", size=9
            )
            ax.set_xscale("log")
            ax.set_yscale("log")
            ax.set_xticks(x, [str(v) for v in x])
            ax.minorticks_off()
            if column == 0:
                ax.set_ylabel(f"{'step' if what == 'seconds' else 'memory'} [{unit}]")
        axes[1][column].set_xlabel(NAMES[name])
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    files.write_bytes(path, buffer.getvalue())


def main() -> None:
    """Print the steps and their laws; write them as JSON and PNG if asked."""
    taking = parser(__doc__)
    taking.add_argument("--plot", type=Path, metavar="FILE", help="default: beside the JSON")
    taking.add_argument("--device", default="cpu")
    taking.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments: argparse.Namespace = taking.parse_args()
    device = resolve_device(arguments.device)
    rows = measure_steps(PLANS[size_of(arguments)], device, arguments.threads)
    laws = laws_of(rows)
    for name, law in laws.items():
        for what, fit in law.items():
            print(
                f"{what:8} ~ {NAMES[name]} ** {fit['exponent']:.2f} "
                f"({fit['low']:.2f} to {fit['high']:.2f})"
            )
    picture = arguments.plot
    if picture is None and arguments.json is not None:
        picture = arguments.json.with_suffix(".png")
    if picture is not None:
        plot(rows, laws, picture)
    write("scaling", arguments, {"steps": rows, "laws": laws}, device)


if __name__ == "__main__":
    main()
