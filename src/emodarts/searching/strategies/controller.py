"""A recurrent controller, trained by policy gradient (arXiv 1611.01578)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from emodarts.genotype import Genotype
from emodarts.recipe import ControllerSpec, NetworkSpec
from emodarts.runtime import derive_seed
from emodarts.searching.derivation import compose_genotype
from emodarts.searching.strategy import SearchTask


class Controller:
    """Tries genotypes, and makes the decisions of good ones more probable."""

    def __init__(self, spec: ControllerSpec) -> None:
        self.spec = spec

    def search(self, task: SearchTask) -> Genotype:
        """The best that was tried, by ``task.evaluate``; the first of equals."""
        spec, seed = self.spec, derive_seed(task.seed, "controller")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            policy = Policy(spec.hidden)
        generator = torch.Generator().manual_seed(seed)
        found: list[tuple[float, Genotype]] = []
        baseline: float | None = None
        while len(found) < spec.evaluations:
            tried = [
                policy.decide(task.network, generator)
                for _ in range(min(spec.batch, spec.evaluations - len(found)))
            ]
            rewards = [task.evaluate(one.genotype, spec.epochs) for one in tried]
            mean = sum(rewards) / len(rewards)
            baseline = mean if baseline is None else baseline
            policy.learn(tried, [r - baseline for r in rewards], spec)
            baseline = spec.baseline_decay * baseline + (1 - spec.baseline_decay) * mean
            found += zip(rewards, (one.genotype for one in tried), strict=True)
        return max(found, key=lambda pair: pair[0])[1]


@dataclass
class Tried:
    """A genotype and what the policy thought of its decisions.

    Attributes
    ----------
    log_probability, entropy : scalars with gradients: sums over the decisions.
    """

    genotype: Genotype
    log_probability: Tensor
    entropy: Tensor


@dataclass
class _State:
    hidden: tuple[Tensor, Tensor]
    last: Tensor
    log_probabilities: list[Tensor] = field(default_factory=list)
    entropies: list[Tensor] = field(default_factory=list)


class Policy(nn.Module):
    """An LSTM that makes one decision after the other; each has a linear layer of its own."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(hidden, hidden)
        self.start = nn.Parameter(torch.zeros(1, hidden))
        self.heads = nn.ModuleDict()
        self.choices = nn.ModuleDict()
        self.optimiser: torch.optim.Adam | None = None

    def decide(self, network: NetworkSpec, generator: torch.Generator) -> Tried:
        """Draw a genotype."""
        zeros = torch.zeros_like(self.start)
        state = _State((zeros, zeros), self.start)

        def choose(decision: str, count: int, taken: int | None = None) -> int:
            state.hidden = self.cell(state.last, state.hidden)
            key = self._known(decision, count, generator)
            logits = self.heads[key](state.hidden[0])[0]
            if taken is not None:
                logits = logits.masked_fill(torch.arange(count) == taken, -torch.inf)
            log_probabilities = torch.log_softmax(logits, dim=0)
            probabilities = log_probabilities.exp()
            index = int(torch.multinomial(probabilities.detach(), 1, generator=generator))
            state.log_probabilities.append(log_probabilities[index])
            finite = log_probabilities.masked_fill(probabilities == 0, 0.0)
            state.entropies.append(-(probabilities * finite).sum())
            state.last = self.choices[key](torch.tensor([index]))
            return index

        genotype = compose_genotype(network, choose)
        return Tried(
            genotype,
            torch.stack(state.log_probabilities).sum(),
            torch.stack(state.entropies).sum(),
        )

    def learn(self, tried: list[Tried], advantages: list[float], spec: ControllerSpec) -> None:
        """A step of REINFORCE: ascend the mean of advantage times log-probability."""
        if self.optimiser is None:
            self.optimiser = torch.optim.Adam(self.parameters(), lr=spec.learning_rate)
        gains = [
            advantage * one.log_probability + spec.entropy_weight * one.entropy
            for one, advantage in zip(tried, advantages, strict=True)
        ]
        loss = -torch.stack(gains).mean()
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()

    def _known(self, decision: str, count: int, generator: torch.Generator) -> str:
        """Key of the layers of a decision, which are made when it first comes up."""
        key = f"{decision.replace('.', '_')}_{count}"
        if key not in self.heads:
            width = self.start.shape[1]
            head = nn.Linear(width, count)
            for parameter in head.parameters():  # at first, all choices are equally probable
                nn.init.zeros_(parameter)
            self.heads[key] = head
            # The generator of the search, so that an interrupted search goes on with the same.
            drawn = torch.randn(count, width, generator=generator)
            self.choices[key] = nn.Embedding(count, width, _weight=drawn)
            if self.optimiser is not None:
                added = [*self.heads[key].parameters(), *self.choices[key].parameters()]
                self.optimiser.add_param_group({"params": added})
        return key
