"""Many small networks of one structure as one: views, forward pass, loss and optimiser step.

The networks are those of recipes without cells, as `default` has: convolutions, one projection, at
most a bidirectional LSTM, pooling over time. Every tensor has the networks first; none of them
influences another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from emodarts.audio.features import band_frequencies
from emodarts.errors import RecipeError
from emodarts.genotype import Genotype
from emodarts.recipe import AugmentationSpec, FixedSeqNN, NoSeqNN, Recipe
from emodarts.systems.discrete import DiscreteNetwork
from emodarts.systems.neural import training_views
from emodarts.training.views import equalised, moved, played, with_statistics_of

#: Samples of Beta, of which shares are drawn.
SAMPLES = 2**20


def require_stackable(recipe: Recipe) -> None:
    """Raise :class:`RecipeError` for what only the product trains."""
    network, training = recipe.network, recipe.training
    match network.seqnn:
        case FixedSeqNN(recurrent="lstm", layers=1, bidirectional=True, attention=False):
            sequence = True
        case other:
            sequence = isinstance(other, NoSeqNN)
    fits = {
        "system": recipe.system.kind == "searched",
        "system.gender_weight": not getattr(recipe.system, "gender_weight", 0),
        "network.stem": network.stem is not None,
        "network.cnn": not recipe.searches,
        "network.deltas": network.deltas == 0,
        "network.frequency": network.frequency == "join",
        "network.projection": network.projection is not None,
        "network.seqnn": sequence,
        "training.optimiser": training.optimiser == "adamw",
        "training.augmentation": training.augmentation == AugmentationSpec(),
        "training.mixup": training.mixup == 0,
        "training.oversample": not training.oversample,
    }
    if wrong := [key for key, fit in fits.items() if not fit]:
        raise RecipeError(
            f"networks with this {', '.join(wrong)} are not trained in lockstep; "
            "allowed: what recipe default has there"
        )


def build(recipe: Recipe, n_classes: int, seed: int) -> DiscreteNetwork:
    """The untrained network of a recipe."""
    (spec,) = recipe.inputs.values()
    torch.manual_seed(seed)
    return DiscreteNetwork(
        Genotype(), recipe.network, spec.n_features, n_classes, n_channels=spec.n_channels
    )


class Convolution(torch.autograd.Function):
    """One convolution a network, each a product of matrices: cuDNN is slow at many small groups."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, strides: tuple[int, int]) -> Tensor:
        """Maps ``(N, C, B, F, T)``, weights ``(N, D, C, h, w)`` -> ``(N, D, B, F', T')``."""
        n, c, b, *size = x.shape
        height, width = ctx.kernel = weight.shape[3:]
        padded = functional.pad(x, (width // 2, width // 2, height // 2, height // 2))
        ctx.padded, ctx.out = (
            padded.shape,
            [-(-s // by) for s, by in zip(size, strides, strict=True)],
        )
        ctx.strides = strides
        columns = x.new_empty(n, c, height * width, b, *ctx.out)
        for k, place in enumerate(_places(ctx)):
            columns[:, :, k].copy_(padded[place])
        ctx.save_for_backward(columns, weight)
        return torch.bmm(weight.flatten(2), columns.view(n, c * height * width, -1)).view(
            n, -1, b, *ctx.out
        )

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, None]:
        """Gradients of maps, if they need one, and of weights."""
        columns, weight = ctx.saved_tensors
        flat = gradient.flatten(2)
        of_weight = torch.bmm(flat, columns.flatten(3).flatten(1, 2).transpose(1, 2))
        of_maps = None
        if ctx.needs_input_grad[0]:
            of_columns = torch.bmm(weight.flatten(2).transpose(1, 2), flat).view(columns.shape)
            padded = gradient.new_zeros(ctx.padded)
            for k, place in enumerate(_places(ctx)):
                padded[place].add_(of_columns[:, :, k])
            top, left = (size // 2 for size in ctx.kernel)
            of_maps = padded[..., top : padded.shape[3] - top, left : padded.shape[4] - left]
        return of_maps, of_weight.view(weight.shape), None


def _places(ctx: Any) -> Iterator[tuple[Any, ...]]:
    """Where each weight of a kernel meets padded maps."""
    spans = [
        [slice(i, i + by * (n - 1) + 1, by) for i in range(size)]
        for size, by, n in zip(ctx.kernel, ctx.strides, ctx.out, strict=True)
    ]
    return ((..., rows, columns) for rows in spans[0] for columns in spans[1])


class Stack:
    """N networks of one structure, with parameters and buffers ``(N, ...)`` named as in each.

    Parameters
    ----------
    networks : whose weights are copied; :func:`require_stackable` says which fit.
    """

    def __init__(self, networks: Sequence[DiscreteNetwork], device: torch.device) -> None:
        parameters, buffers = torch.func.stack_module_state(list(networks))
        self.spec = networks[0].spec
        self.parameters = {
            name: p.detach().to(device).requires_grad_() for name, p in parameters.items()
        }
        self.buffers = {name: b.to(device) for name, b in buffers.items()}

    def __call__(self, features: Tensor, dropout: Tensor | None = None) -> Tensor:
        """Features ``(N, B, C, F, T)``, NaN where frames are missing -> logits ``(N, B, K)``.

        ``dropout`` (N,) are probabilities in training mode; without it the mode is eval.
        """
        present = ~torch.isnan(features[:, :, 0, 0])
        x = features.masked_fill(torch.isnan(features), 0.0).transpose(1, 2)
        for k, strides in enumerate(zip(*self.spec.stem_strides, strict=True)):
            weight = self.parameters[f"stem.{3 * k}.weight"]
            x = Convolution.apply(x, weight, strides)  # type: ignore[no-untyped-call]
            x = self._batch_norm(x, f"stem.{3 * k + 1}", dropout is not None)
            present = present[:, :, :: strides[1]]
            x = torch.relu(x) * present[:, None, :, None]
        x = x.permute(0, 2, 4, 1, 3).flatten(3)  # (N, B, T, C * F)
        x = _dropped(torch.relu(self._linear(x, "projection.0")), dropout) * present[..., None]
        if isinstance(self.spec.seqnn, FixedSeqNN):
            x = self._lstm(x, present)
        return self._linear(_dropped(self._pooled(x, present), dropout), "classifier")

    def _batch_norm(self, x: Tensor, name: str, training: bool) -> Tensor:
        """Channels of all networks are the channels of one batch norm."""
        mean, var = (self.buffers[f"{name}.running_{of}"].view(-1) for of in ("mean", "var"))
        weight, bias = (self.parameters[f"{name}.{of}"].view(-1) for of in ("weight", "bias"))
        flat = x.reshape(1, len(mean), -1)
        return functional.batch_norm(flat, mean, var, weight, bias, training).view(x.shape)

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return _product(x, self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"])

    def _lstm(self, x: Tensor, present: Tensor) -> Tensor:
        """Both directions of all networks take a step together; the way back begins at the end."""

        def both(name: str) -> Tensor:
            ways = (self.parameters[f"fixed.recurrent.{name}_l0{w}"] for w in ("", "_reverse"))
            return torch.stack(list(ways), 1).flatten(0, 1)

        n, b, t, _ = x.shape
        step, length = torch.arange(t, device=x.device), present.sum(2, keepdim=True)
        turned = torch.where(step < length, length - 1 - step, step)[..., None]
        x = torch.stack([x, x.take_along_dim(turned, 2)], 1).flatten(0, 1)
        gates = _product(x, both("weight_ih"), both("bias_ih") + both("bias_hh"))
        weight = both("weight_hh").transpose(1, 2)  # (2N, H, 4H)
        h = x.new_zeros(2 * n, b, weight.shape[1])
        c, steps = h.flatten(0, 1), []
        for now in gates.movedim(2, 0).contiguous():
            h, c = _lstm_cell(now.flatten(0, 1), torch.bmm(h, weight).flatten(0, 1), c)
            h = h.view(2 * n, b, -1)
            steps.append(h)
        ahead, back = torch.stack(steps, 2).view(n, 2, b, t, -1).unbind(1)
        return torch.cat([ahead, back.take_along_dim(turned, 2)], 3)

    def _pooled(self, x: Tensor, present: Tensor) -> Tensor:
        """``(N, B, T, D)`` -> ``(N, B, D)``, or twice as many statistics."""
        kept = present[..., None]
        if self.spec.pooling == "attention":
            scores = self._linear(x, "attention.score").masked_fill(~kept, -torch.inf)
            return (scores.softmax(2) * x).sum(2)
        mean = (x * kept).sum(2) / kept.sum(2)
        if self.spec.pooling == "mean":
            return mean
        variance = ((x - mean[:, :, None]).square() * kept).sum(2) / kept.sum(2)
        return torch.cat([mean, variance.clamp(min=1e-8).sqrt()], 2)


def _product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Linear layers ``(N, D, E)`` of ``(N, ..., E)``."""
    out = torch.baddbmm(bias[:, None], x.flatten(1, -2), weight.transpose(1, 2))
    return out.view(*x.shape[:-1], -1)


def _lstm_cell(gates: Tensor, recurrent: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Gates ``(M, 4H)`` of input and state, cell ``(M, H)`` -> state and cell."""
    if c.device.type == "cuda":
        h, c, _ = torch.ops.aten._thnn_fused_lstm_cell(gates, recurrent, c)
        return h, c
    i, f, g, o = (gates + recurrent).chunk(4, 1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def _dropped(x: Tensor, dropout: Tensor | None) -> Tensor:
    if dropout is None:
        return x
    p = _per_network(dropout, x)
    return x * (torch.rand_like(x) >= p) / (1 - p)


def _per_network(values: Tensor, x: Tensor) -> Tensor:
    """``(N,)`` in the dimensions of ``x``."""
    return values.view(-1, *[1] * (x.dim() - 1))


def cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor, smoothing: Tensor) -> Tensor:
    """Torch's loss of each network ``(N,)``.

    Logits ``(N, B, K)``, targets ``(N, B)``, weights of classes ``(N, K)``, smoothing ``(N,)``.
    """
    log = logits.log_softmax(2) * weights[:, None]
    of_target = log.take_along_dim(targets[..., None], 2)[..., 0]
    share = smoothing[:, None]
    losses = (1 - share) * of_target + share * log.mean(2)
    return -losses.sum(1) / weights.take_along_dim(targets, 1).sum(1)


class AdamW:
    """AdamW (arXiv 1711.05101) with the gradient of each network clipped by itself.

    Parameters
    ----------
    decay : (N,) weight decay.
    """

    def __init__(
        self, parameters: Sequence[Tensor], decay: Tensor, momentum: float, clip: float
    ) -> None:
        self.parameters, self.decay, self.clip = parameters, decay, clip
        self.betas = momentum, 0.999
        self.first, self.second = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
        self.steps = decay.new_zeros(())

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], rate: Tensor) -> None:
        """Change the parameters at ``rate`` (N,)."""
        norm = sum(g.flatten(1).square().sum(1) for g in gradients) ** 0.5
        scale = (self.clip / (norm + 1e-6)).clamp(max=1.0)
        self.steps += 1
        bias, bias_of_square = (1 - beta**self.steps for beta in self.betas)
        for p, g, first, second in zip(
            self.parameters, gradients, self.first, self.second, strict=True
        ):
            g = g * _per_network(scale, g)
            first.lerp_(g, 1 - self.betas[0])
            second.lerp_(g.square(), 1 - self.betas[1])
            p.mul_(1 - _per_network(rate * self.decay, p))
            change = first / ((second / bias_of_square).sqrt() + 1e-8)
            p.sub_(change * _per_network(rate / bias, p))


class Views:
    """Crops, perturbation and masks of N networks, drawn for each utterance of each.

    Parameters
    ----------
    recipes : of the networks, whose features and crop are the same.
    """

    def __init__(self, recipes: Sequence[Recipe], device: torch.device) -> None:
        (spec,) = recipes[0].inputs.values()
        views = training_views(recipes[0])
        self.frames = spec.n_frames if views is None else views.frames
        bands = band_frequencies(spec)
        self.bands = None if bands is None else bands.to(device)
        perturbations = [r.training.perturbation for r in recipes]
        self.spans = [
            torch.tensor([getattr(p, key) or (1.0, 1.0) for p in perturbations]).log().to(device)
            for key in ("speed", "stretch", "vtlp")
        ]
        self.tilt = torch.tensor([p.equaliser for p in perturbations], device=device)
        self.equalises = any(p.equaliser > 0 for p in perturbations)
        self.mixed = torch.tensor([[p.mix_statistics] for p in perturbations], device=device)
        # Beta is drawn on the CPU, for which a graph of a GPU cannot wait.
        self.shares = torch.distributions.Beta(0.3, 0.3).sample((SAMPLES,)).to(device)
        masks = [r.training.masks for r in recipes]
        #: Axis of a map, the largest number of masks on it, and ``(N, 1)`` numbers and widths.
        self.masks = [
            self._masks_on(3, [(m.frequency_masks, m.frequency_width) for m in masks], device),
            self._masks_on(4, [(m.time_masks, m.time_width) for m in masks], device),
        ]

    def draw(self, features: Tensor) -> Tensor:
        """Normalised maps ``(N, B, C, F, T)``, NaN where frames are missing, at ``frames``."""
        n, b = features.shape[:2]
        speed, stretch, vtlp = (self._factors(span, b) for span in self.spans)
        maps = played(features.flatten(0, 1), speed * stretch, self.frames)
        if self.bands is not None:
            maps = moved(maps, self.bands, speed * vtlp)
        if self.equalises:
            maps = equalised(maps, self.tilt[:, None].expand(n, b).reshape(-1, 1))
        maps = with_statistics_of(maps, *self._partners(n, b))
        maps = maps.view(n, b, *maps.shape[1:])
        return maps.masked_fill(self._masked(maps) & ~torch.isnan(maps), 0.0)

    def _factors(self, span: Tensor, b: int) -> Tensor:
        """``(N * B,)`` log-uniform between the logarithms of two ends ``(N, 2)``."""
        low, high = span[:, :1], span[:, 1:]
        share = torch.rand(len(span), b, device=span.device)
        return torch.exp(low + (high - low) * share).flatten()

    def _partners(self, n: int, b: int) -> tuple[Tensor, Tensor]:
        """Another utterance of the same network for each ``(N * B,)``, and the shares to keep."""
        device = self.mixed.device
        first = torch.arange(n, device=device)[:, None] * b
        partner = torch.rand(n, b, device=device).argsort(1) + first
        kept = self.shares[torch.randint(SAMPLES, (n, b), device=device)]
        kept = torch.where(
            torch.rand(n, b, device=device) < self.mixed, kept, torch.ones_like(kept)
        )
        return partner.flatten(), kept.flatten()

    @staticmethod
    def _masks_on(
        axis: int, masks: Sequence[tuple[int, int]], device: torch.device
    ) -> tuple[int, int, Tensor, Tensor]:
        counts, widths = torch.tensor(masks, device=device).T[..., None]
        return axis, max(count for count, _ in masks), counts, widths

    def _masked(self, maps: Tensor) -> Tensor:
        """What masks hide, as :func:`emodarts.training.augment.mask_features` places them."""
        masked = torch.zeros_like(maps, dtype=torch.bool)
        for axis, most, counts, widths in self.masks:
            size = maps.shape[axis]
            shape = [*maps.shape[:2], 1, 1, 1]
            shape[axis] = size
            place = torch.arange(size, device=maps.device)
            for k in range(most):
                draw = torch.rand(2, *maps.shape[:2], device=maps.device)
                length = (draw[0] * (widths.clamp(max=size) + 1)).floor() * (k < counts)
                start = (draw[1] * (size - length + 1)).floor()
                inside = (place >= start[..., None]) & (place < (start + length)[..., None])
                masked |= inside.view(shape)
        return masked
