"""From sound to probabilities as one module of tensor operations, which can be exported.

It computes what :class:`emodarts.serving.model.Model` does, for a batch of sounds of equal length,
without a branch on a value: trimming, level, pieces and their mean are masks and gathered samples.
"""

from __future__ import annotations

import copy
import math
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from emodarts.audio import pieces, speech
from emodarts.audio.features import dct_basis, decibels, delta, mel_filterbank
from emodarts.bundle import Bundle
from emodarts.errors import ExportError
from emodarts.recipe import FeatureSpec
from emodarts.recipe.features import LogMelSpec, MfccSpec, StftSpec, WaveformSpec
from emodarts.space.sequence_ops import Recurrent
from emodarts.systems.neural import FittedNetwork


class Graph(nn.Module):
    """Waveforms ``(B, n)`` at the model's sample rate -> probabilities ``(B, K)``, n at least 1.

    Sound is not judged: silence and noise get probabilities too. A row is one sound of any length;
    see :class:`emodarts.serving.model.Model` for how it is answered.

    Raises
    ------
    ExportError
        If the model is of a kind that cannot be written as such a module.
    """

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        spec = _exportable(bundle)
        self.sample_rate = spec.sample_rate
        self.pieces = Pieces(spec)
        self.answers = Answers(spec, cast(FittedNetwork, bundle.fitted))
        self.mean = Mean(bundle.temperature)

    def forward(self, waveform: Tensor) -> Tensor:
        """See the class."""
        sound, samples, weights = self.pieces(waveform)
        found: Tensor = self.mean(self.answers(sound, samples), weights)
        return found


class Answers(nn.Module):
    """Pieces ``(R, n_samples)`` and the samples of sound in each ``(R,)`` -> ``(R, K)``."""

    mean: Tensor
    sd: Tensor

    def __init__(self, spec: FeatureSpec, fitted: FittedNetwork) -> None:
        super().__init__()
        self.spec = spec
        self.front = Columns(spec) if isinstance(spec, WaveformSpec) else Spectral(cast(Any, spec))
        self.network = _unrolled(fitted.network.for_inference())
        self.register_buffer("mean", fitted.normalisation.mean[..., None])
        self.register_buffer("sd", fitted.normalisation.sd[..., None])

    def forward(self, sound: Tensor, samples: Tensor) -> Tensor:
        """See the class."""
        spec = self.spec
        pool = functional.max_pool2d if spec.pool_by == "max" else functional.avg_pool2d
        maps = pool(self.front(sound)[:, None], (1, spec.pool))  # (R, 1, F, T)
        maps = torch.cat([maps, *(delta(maps, order) for order in range(1, spec.deltas + 1))], 1)
        maps = (maps - self.mean) / self.sd
        if spec.padding == "masked":
            steps = torch.arange(maps.shape[3], dtype=torch.int32)
            valid = spec.frames_of(samples).to(torch.int32)[:, None, None, None]
            maps = torch.where(steps < valid, maps, torch.full_like(maps, math.nan))
        return torch.softmax(self.network(maps), dim=1)


class Mean(nn.Module):
    """Probabilities of pieces ``(B P, K)`` and their weights ``(B, P)`` -> ``(B, K)``."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, found: Tensor, weights: Tensor) -> Tensor:
        """See the class."""
        shares = weights / weights.sum(dim=1, keepdim=True)
        found = found.reshape(weights.shape[0], weights.shape[1], found.shape[1])
        joined = (found * shares[:, :, None]).sum(dim=1)
        if self.temperature == 1.0:
            return joined
        return torch.softmax(joined.clamp(min=1e-30).log() / self.temperature, dim=1)


class Pieces(nn.Module):
    """Sounds ``(B, n)`` -> pieces, as :mod:`emodarts.audio.pieces` makes them.

    Returns
    -------
    samples ``(B P, n_samples)``, zeros behind the sound; samples of sound in each ``(B P,)``; and 1
    for the pieces that count ``(B, P)``.
    """

    def __init__(self, spec: FeatureSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        spec, n = self.spec, waveform.shape[1]
        start = torch.zeros_like(waveform[:, :1], dtype=torch.int64)  # (B, 1)
        length = start + n
        if spec.trim is not None:
            start, length = self._trimmed(waveform, spec.trim)
        if spec.level is not None:
            waveform = self._levelled(waveform, start, length, spec.level)
        whole = spec.n_samples
        if spec.length == "segments":
            step = max(1, whole // 2)
            places = torch.arange((_largest(n - whole, 0) + step - 1) // step + 1)
            last = torch.clamp(length - whole, min=0)  # (B, 1)
            counted = places * step < last + step  # (B, P)
            first = torch.minimum(places * step, last)
        else:
            counted = torch.ones_like(start, dtype=torch.bool)
            first = torch.zeros_like(start)
        samples = torch.clamp(length - first, max=whole)
        place = torch.arange(n + whole)[:whole]  # a constant would be a megabyte of the file
        if spec.length == "repeat":
            inside = place % samples[:, :, None]
            samples = torch.full_like(samples, whole)
        else:
            inside = place.expand(first.shape[0], first.shape[1], -1)
        index = torch.clamp((start + first)[:, :, None] + inside, max=n - 1)
        found = torch.gather(waveform, 1, index.flatten(1)).reshape(index.shape)
        found = torch.where(place < samples[:, :, None], found, torch.zeros_like(found))
        weights = counted.to(found.dtype)
        if spec.length == "segments":
            heard = weights * self._sounds(found).to(found.dtype)
            any_heard = heard.amax(dim=1, keepdim=True)
            weights = torch.where(any_heard > 0, heard, weights)
        return found.flatten(0, 1), samples.flatten(), weights

    def _trimmed(self, waveform: Tensor, decibels: float) -> tuple[Tensor, Tensor]:
        n = waveform.shape[1]
        block = round(pieces.BLOCK * self.spec.sample_rate)
        hop = max(1, block // 4)
        margin = block - hop
        squares = functional.pad(waveform.double().square(), (margin + 1, margin + (-n) % hop))
        sums = squares.cumsum(dim=1)  # begins with 0
        starts = torch.arange((n + margin * 2 + (-n) % hop - block) // hop + 1) * hop
        power = sums.index_select(1, starts + block) - sums.index_select(1, starts)
        top = power.amax(dim=1, keepdim=True)
        loud = (power > top * 10 ** (-decibels / 10)).to(torch.int32)
        first = loud.argmax(dim=1, keepdim=True) * hop
        final = (loud.shape[1] - 1 - loud.flip(1).argmax(dim=1, keepdim=True)) * hop
        end = torch.clamp(torch.clamp(final - margin, min=0) + hop, max=n)
        silent = loud.amax(dim=1, keepdim=True) == 0
        first = torch.where(silent, torch.zeros_like(first), first)
        end = torch.where(silent, torch.zeros_like(end) + n, end)
        return first, end - first

    def _levelled(self, waveform: Tensor, start: Tensor, length: Tensor, level: float) -> Tensor:
        place = torch.arange(waveform.shape[1])
        within = (place >= start) & (place < start + length)
        kept = torch.where(within, waveform, torch.zeros_like(waveform))
        power = kept.double().square().sum(dim=1, keepdim=True) / length
        scale = 10 ** (level / 20) / torch.sqrt(power.clamp(min=1e-30))
        return waveform * torch.where(power > 0, scale, torch.ones_like(scale)).float()

    def _sounds(self, pieces: Tensor) -> Tensor:
        """Whether a block of a whole piece is louder than silence."""
        block = round(speech.BLOCK * self.spec.sample_rate)
        size = pieces.shape[2] // block * block
        blocks = _split(pieces[:, :, :size], 2, (-1, block))
        centred = blocks - blocks.mean(dim=3, keepdim=True)
        loud: Tensor = centred.square().mean(dim=3).amax(dim=2) > 10 ** (speech.SILENT_LEVEL / 10)
        return loud


class Power(nn.Module):
    r"""Power spectrum in two products of matrices, by Cooley and Tukey (doi 10.2307/2003354).

    With ``n_fft = a b``, sample ``b n_1 + n_2`` and frequency ``k_1 + a k_2``,

    .. math:: X = \sum_{n_2} e^{-2 \pi i n_2 (k_1 + a k_2) / ab}
              \sum_{n_1} x[b n_1 + n_2] e^{-2 \pi i n_1 k_1 / a}

    and frequencies above ``a / 2`` modulo a mirror others, as samples are real. A fifth of the
    products of the plain DFT, and two thirds of the time of onnxruntime's own.
    """

    window: Tensor
    first: Tensor
    real: Tensor
    imaginary: Tensor

    def __init__(self, n_fft: int, hop: int, window: Tensor) -> None:
        super().__init__()
        common = math.gcd(n_fft, hop)
        divisors = [d for d in range(1, common + 1) if common % d == 0]
        self.b = min(divisors, key=lambda d: d + n_fft // d)
        self.a = n_fft // self.b
        self.n_fft, self.hop = n_fft, hop
        a, b, half = self.a, self.b, self.a // 2 + 1
        left = (n_fft - len(window)) // 2
        padded = functional.pad(window, (left, n_fft - len(window) - left))
        k1, n1, n2, k2 = np.arange(half), np.arange(a), np.arange(b), np.arange(b)
        inner = np.exp(-2j * np.pi * np.outer(k1, n1) / a)
        frequency = k1[:, None, None] + a * k2
        outer = np.exp(-2j * np.pi * n2[:, None] * frequency / n_fft)  # (half, n2, k2)
        self._keep("window", padded.reshape(a, 1, b).double().numpy())
        self._keep("first", np.concatenate([inner.real, inner.imag]))
        self._keep("real", np.concatenate([outer.real, outer.imag], axis=2))
        self._keep("imaginary", np.concatenate([-outer.imag, outer.real], axis=2))

    def _keep(self, name: str, values: Any) -> None:
        self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(values)).float())

    def slots(self) -> list[int]:
        """Where frequencies 0 to ``n_fft / 2`` lie in the flattened ``(half, b)`` of the result."""
        found = []
        for k in range(self.n_fft // 2 + 1):
            low = k if k % self.a <= self.a // 2 else self.n_fft - k
            found.append(low % self.a * self.b + low // self.a)
        return found

    def forward(self, sound: Tensor) -> Tensor:
        """(R, n) -> power (R, half, frames, b) of centred frames, zeros at both ends."""
        a, b, half = self.a, self.b, self.n_fft // 2
        n = sound.shape[1]
        frames = 1 + (n + 2 * half - self.n_fft) // self.hop
        padded = functional.pad(sound, (half, half + (-(n + 2 * half)) % b))
        index = torch.arange(frames) * (self.hop // b) + torch.arange(a)[:, None]  # (a, frames)
        blocks = _split(padded, 1, (-1, b)).index_select(1, index.flatten())
        framed = _split(blocks, 1, (a, -1)) * self.window  # (R, a, frames, b)
        inner = _split(_split(self.first @ framed.flatten(2), 2, (-1, b)), 1, (2, -1))
        found = inner[:, 0] @ self.real + inner[:, 1] @ self.imaginary  # (R, half, frames, 2 b)
        power: Tensor = found[..., :b].square() + found[..., b:].square()
        return power


class Spectral(nn.Module):
    """Sound ``(R, n)`` -> log-mel, spectrogram or MFCC ``(R, F, frames)``."""

    bands: Tensor
    dct: Tensor

    def __init__(self, spec: LogMelSpec | MfccSpec | StftSpec) -> None:
        super().__init__()
        shape = torch.hann_window
        if isinstance(spec, StftSpec):
            weights = np.eye(spec.n_features)
            shape = {"hann": torch.hann_window, "hamming": torch.hamming_window}[spec.window]
        else:
            weights = mel_filterbank(
                spec.sample_rate, spec.n_fft, spec.n_mels, spec.fmin, spec.fmax
            )
        self.power = Power(spec.n_fft, spec.hop_length, shape(spec.win_length or spec.n_fft))
        half = self.power.a // 2 + 1
        placed = np.zeros((half * self.power.b, len(weights)))
        np.add.at(placed, self.power.slots(), weights.T)
        bands = placed.reshape(half, self.power.b, -1)
        self.register_buffer("bands", torch.from_numpy(bands).float())
        self.coefficients = isinstance(spec, MfccSpec)
        if isinstance(spec, MfccSpec):
            self.register_buffer("dct", dct_basis(spec))

    def forward(self, sound: Tensor) -> Tensor:
        """See the class."""
        power = (self.power(sound) @ self.bands).sum(dim=1)  # (R, frames, F)
        maps = decibels(power.transpose(1, 2))
        return self.dct @ maps if self.coefficients else maps


class Columns(nn.Module):
    """Sound ``(R, n)`` -> its samples, a column for each frame ``(R, F, frames)``."""

    def __init__(self, spec: WaveformSpec) -> None:
        super().__init__()
        self.length = spec.frame_length

    def forward(self, sound: Tensor) -> Tensor:
        """See the class."""
        frames = sound.shape[1] // self.length
        return _split(sound[:, : frames * self.length], 1, (-1, self.length)).transpose(1, 2)


class _BothWays(Recurrent):
    """A bidirectional :class:`Recurrent` whose way back begins at the last step that is present."""

    def __init__(self, source: Recurrent) -> None:
        nn.Module.__init__(self)
        self.out_features, self.attention = source.out_features, source.attention
        if source.attention is not None:
            self.project = source.project
        old = source.recurrent
        self.layers = nn.ModuleList()
        for layer in range(old.num_layers):
            ways = []
            for suffix in ("", "_reverse"):
                width = getattr(old, f"weight_ih_l{layer}{suffix}").shape[1]
                way = cast(Any, type(old))(width, old.hidden_size, batch_first=True)
                state = {
                    f"{name}_l0": getattr(old, f"{name}_l{layer}{suffix}").detach()
                    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                }
                way.load_state_dict(state)
                ways.append(way.eval().requires_grad_(False))
            self.layers.append(nn.ModuleList(ways))

    def _steps(self, x: Tensor, present: Tensor | None) -> Tensor:
        place = torch.arange(x.shape[1])
        steps = x.shape[1] if present is None else present.sum(dim=1, keepdim=True)
        index = torch.where(place < steps, steps - 1 - place, place)  # its own inverse
        index = index.expand(x.shape[0], -1)[:, :, None]
        for layer in self.layers:
            onwards, back = cast(nn.ModuleList, layer)
            turned = back(x.gather(1, index.expand(-1, -1, x.shape[2])))[0]
            turned = turned.gather(1, index.expand(-1, -1, turned.shape[2]))
            x = torch.cat([onwards(x)[0], turned], dim=2)
        return x


def _split(x: Tensor, dim: int, sizes: tuple[int, int]) -> Tensor:
    """One axis as two."""
    found: Tensor = x.unflatten(dim, sizes)  # type: ignore[no-untyped-call]
    return found


def _largest(one: int, two: int) -> int:
    """Of sizes that may be symbols."""
    found: int = torch.sym_max(one, two)  # type: ignore[no-untyped-call]
    return found


def _unrolled(network: nn.Module) -> nn.Module:
    network = copy.deepcopy(network).float().eval().requires_grad_(False)
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, Recurrent) and child.recurrent.bidirectional:
                setattr(parent, name, _BothWays(child))
    made: nn.Module = cast(Any, network).to(memory_format=torch.contiguous_format)
    return made


def _exportable(bundle: Bundle) -> FeatureSpec:
    """The features of a model that can be exported. Raises :class:`ExportError`."""
    reason = ""
    if not isinstance(bundle.fitted, FittedNetwork):
        reason = f"its system is {bundle.system.kind}; allowed: systems that are one network"
    elif len(bundle.inputs) > 1:
        reason = f"it takes {len(bundle.inputs)} feature maps; allowed: one"
    else:
        [spec] = bundle.inputs.values()
        if isinstance(spec, LogMelSpec | MfccSpec | StftSpec | WaveformSpec):
            return spec
        reason = (
            f"its features are {spec.kind}, which another program computes; allowed: log_mel, "
            "mfcc, stft, waveform"
        )
    raise ExportError(f"this model cannot be exported to ONNX: {reason}")
