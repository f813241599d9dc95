"""What two processes of ``torchrun`` do in tests: gradients and a search, written to a folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from emodarts import parallel
from emodarts.checkpoint import save_tensors
from emodarts.errors import EmodartsError
from emodarts.recipe import DartsSpec
from emodarts.recipe.search import AlphaOptimiser
from emodarts.searching.gradients import LookAhead, first_order_gradient, second_order_gradient
from emodarts.searching.supernet import Supernet
from toy_search import NETWORK, halves, make_task, search

#: Dropout masks are drawn by each process for its own rows.
EXACT = NETWORK.model_copy(update={"dropout": 0.0})
#: Two steps an epoch; the first two batches of 5 rows are shared as 2 and 3.
SPEC = DartsSpec(
    epochs=3,
    warmup="fixed",
    warmup_epochs=1,
    order=2,
    batch_size=6,
    alphas=AlphaOptimiser(learning_rate=0.1),
)


def gradients() -> dict[str, torch.Tensor]:
    """Gradients of alphas of both orders in float64, with weights of classes, and logits."""
    torch.manual_seed(0)
    supernet = Supernet(EXACT, 8, 3).double().train()
    parallel.join_batch_norms(supernet)
    weights = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        mean = functional.cross_entropy(logits, targets, weight=weights)
        return parallel.part_of_mean(mean, weights[targets].sum())

    train, validation = (
        parallel.own((part.features[:5].double(), part.targets[:5])) for part in halves()
    )
    found = {f"first.{k}": v for k, v in first_order_gradient(supernet, validation, loss).items()}
    for hessian in ("exact", "finite_difference"):
        step: dict[str, Any] = {"hessian": hessian, "epsilon": 1e-3}
        second = second_order_gradient(
            supernet, train, validation, loss, LookAhead(0.1, 0.9, 3e-4, {}), **step
        )
        found |= {f"{hessian}.{k}": v for k, v in second.items()}
    found["logits"] = parallel.gathered(supernet(train[0]).detach())
    found |= {f"state.{k}": v for k, v in supernet.state_dict().items() if "running" in k}
    return found


def part_from(rank: int) -> None:
    """Let the alphas of one process go another way from the second step of alphas on."""
    step = torch.optim.Adam.step
    calls = 0

    def wrong(self: torch.optim.Adam, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        done = step(self, *arguments)
        if calls == 2 and parallel.rank() == rank:
            self.param_groups[0]["params"][0].data[0, 0] += 1e-7
        return done

    torch.optim.Adam.step = wrong  # type: ignore[method-assign]


def main(folder: Path) -> None:
    """Search as one process would; then with alphas that part."""
    torch.set_num_threads(1)
    with parallel.joined("cpu"):
        own = folder / f"rank-{parallel.rank()}"
        save_tensors(own / "gradients", gradients())
        found = search(SPEC, make_task(folder / "search", network=EXACT))
        found.save(own / "genotype.json")
        part_from(1)
        try:
            search(SPEC, make_task(folder / "parted", network=EXACT))
        except EmodartsError as error:
            (own / "error.txt").write_text(str(error))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
