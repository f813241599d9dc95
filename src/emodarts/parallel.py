"""One search by several processes of ``torchrun``: each takes a share of every batch.

Processes hold the same weights and alphas. A gradient is the sum over the processes' shares of the
loss, and batch norms in training use the statistics of the whole batch, so that a step is that of
one process with that batch, but for the order of sums and the dropout masks. In one process, every
function here returns what it is given.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from emodarts.errors import EmodartsError, RunError, TrainingError
from emodarts.runtime import at_least_single, resolve_device

#: The first process may extract features for long while the others wait; ``torchrun`` itself ends
#: all of them when one dies.
_PATIENCE = datetime.timedelta(days=7)


def launched() -> int:
    """Number of processes that ``torchrun`` started; 1 without it."""
    by_torchrun = dist.is_available() and dist.is_torchelastic_launched()
    return int(os.environ["WORLD_SIZE"]) if by_torchrun else 1


def rank() -> int:
    """Number of this process, from 0."""
    return int(os.environ["RANK"]) if launched() > 1 else 0


def leads() -> bool:
    """Whether this process is the one that writes and prints."""
    return rank() == 0


@contextmanager
def joined(device_name: str) -> Iterator[None]:
    """Let processes of ``torchrun`` work together: over NCCL on GPUs, one for each, else over gloo.

    Raises
    ------
    RecipeError
        If the device is not available.
    """
    if launched() == 1:
        yield
        return
    on_gpu = resolve_device(device_name).type == "cuda"
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=_PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def size() -> int:
    """Number of processes that work together now."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def of_first(work: Callable[[], Any]) -> Any:
    """What the first process gets from ``work``, as JSON values; the others wait for it.

    Raises
    ------
    EmodartsError
        That of ``work``; in the other processes a :class:`RunError` that says so.
    """
    if size() == 1:
        return work()
    answer: dict[str, Any] = {}
    failed: EmodartsError | None = None
    if leads():
        try:
            answer["value"] = work()
        except EmodartsError as error:
            failed = error
    data = json.dumps(answer).encode() if leads() else b""
    length = torch.tensor([len(data)], device=_device())
    dist.broadcast(length, 0)
    text = torch.zeros(int(length), dtype=torch.uint8, device=_device())
    if leads():
        text.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    dist.broadcast(text, 0)
    if failed is not None:
        raise failed
    received = json.loads(bytes(text.cpu().tolist()))
    if "value" not in received:
        raise RunError("process 0 has failed; see its message")
    return received["value"]


def share(n: int) -> slice:
    """The rows of this process, of ``n`` rows that all have together."""
    return slice(n * rank() // size(), n * (rank() + 1) // size()) if size() > 1 else slice(0, n)


def own(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The share of this process in the features and targets of a batch."""
    if size() == 1:
        return batch
    features, targets = batch
    rows = share(len(targets))
    return features[rows], targets[rows]


def gathered(own_rows: Tensor) -> Tensor:
    """The rows of all processes, in order."""
    if size() == 1:
        return own_rows
    lengths = _table(torch.tensor([len(own_rows)], device=own_rows.device))[:, 0].tolist()
    rows = own_rows.new_zeros((sum(lengths), *own_rows.shape[1:]))
    before = sum(lengths[: rank()])
    rows[before : before + len(own_rows)] = own_rows
    dist.all_reduce(rows)  # others have zeros there
    return rows


def part_of_mean(mean: Tensor, mass: float | Tensor) -> Tensor:
    """The part that a mean over the own rows has in the mean over all; the parts add up to it.

    ``mass`` is the number of own rows, or the sum of their weights.
    """
    if size() == 1:
        return mean
    whole = torch.as_tensor(mass, dtype=mean.dtype, device=mean.device).detach().clone()
    dist.all_reduce(whole)
    return mean * (mass / whole)


def total(parts: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The sum of each tensor over all processes; None is None in all of them."""
    given = [t.detach() for t in parts if t is not None]
    if size() == 1 or not given:
        return list(parts)
    flat = torch.cat([t.reshape(-1) for t in given])
    dist.all_reduce(flat)
    sums = iter(torch.split(flat, [t.numel() for t in given]))
    return [t if t is None else next(sums).view_as(t) for t in parts]


def require_in_step(tensors: Mapping[str, Tensor], where: str) -> None:
    """Check that every process has the same bits.

    Raises
    ------
    TrainingError
        In every process, naming the first tensor that differs.
    """
    if size() == 1:
        return
    digests = [_digest(value) for value in tensors.values()]
    table = _table(torch.tensor(digests, dtype=torch.int64, device=_device()))
    for name, column in zip(tensors, table.T.tolist(), strict=True):
        if other := [k for k, digest in enumerate(column) if digest != column[0]]:
            raise TrainingError(
                f"{where}: {name} of process {other[0]} differs from that of process 0; the "
                "processes are no longer in step. The last checkpoint is from before: go on from "
                "it with --resume"
            )


def join_batch_norms(network: nn.Module) -> nn.Module:
    """Let the batch norms of a network use the statistics of the whole batch, in place."""
    if size() > 1:
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                if type(module) is not nn.BatchNorm2d:
                    raise TypeError(f"{type(module).__name__} cannot be computed by processes")
                module.__class__ = _JoinedBatchNorm2d
    return network


class _JoinedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the maps of all processes, by moments that are joined without cancellation.

    T. F. Chan et al., Updating formulae and a pairwise algorithm for computing sample variances
    (1979), eq. 1.5, for several samples. Can be differentiated twice.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(B, C, F, T)`` -> the same shape."""
        if not self.training:
            return super().forward(x)
        maps = at_least_single(x)
        mean = maps.mean(dim=(0, 2, 3))
        squares = (maps - mean[:, None, None]).square().sum(dim=(0, 2, 3))
        counts = torch.full_like(mean, maps.numel() / maps.shape[1])
        place = torch.zeros(size(), 1, 1, dtype=maps.dtype, device=maps.device)
        place[rank()] = 1.0
        counts, means, sums = _sum(place * torch.stack([counts, mean, squares])).unbind(1)
        n = counts.sum(dim=0)
        mean = (counts * means).sum(dim=0) / n
        squares = sums.sum(dim=0) + (counts * (means - mean).square()).sum(dim=0)
        out = (maps - mean[:, None, None]) * torch.rsqrt(squares / n + self.eps)[:, None, None]
        if self.affine:
            out = out * self.weight[:, None, None] + self.bias[:, None, None]
        if self.track_running_stats:
            with torch.no_grad():
                momentum = self.momentum or 0.0
                self.running_mean.lerp_(mean, momentum)  # type: ignore[union-attr]
                self.running_var.lerp_(squares / (n - 1), momentum)  # type: ignore[union-attr]
                self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        joined_out: Tensor = out.to(x.dtype)
        return joined_out


class _Sum(torch.autograd.Function):
    """The sum over all processes; so is its gradient, as every process uses it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = x.clone()
        dist.all_reduce(out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _sum(gradient.contiguous())


def _sum(x: Tensor) -> Tensor:
    out: Tensor = _Sum.apply(x)  # type: ignore[no-untyped-call]
    return out


def _table(row: Tensor) -> Tensor:
    """The rows ``(n,)`` of all processes ``(size, n)``."""
    table = row.new_zeros((size(), len(row)))
    table[rank()] = row
    dist.all_reduce(table)
    return table


def _device() -> torch.device:
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")


def _digest(value: Tensor) -> int:
    data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return int.from_bytes(hashlib.sha256(data).digest()[:7], "big")
