"""What training sees of an utterance in an epoch: a stretch of its map, perturbed anew each time.

All is changed on the map of the utterance, speed, tempo and vocal tract length by moving its frames
and bands, so that it can be drawn for every epoch on any device without computing features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import torch
from torch import Tensor, nn

from emodarts.recipe import PerturbationSpec

#: Of the cosines over frequency that make a random curve.
_HALF_PERIODS = (1, 2, 3, 4)


def valid_frames(features: Tensor) -> Tensor:
    """Frames of each map ``(B, C, F, T)`` before those that are missing (NaN): ``(B,)``."""
    return (~torch.isnan(features[:, 0, 0])).sum(dim=1)


@dataclass(frozen=True)
class Views:
    """How maps become what a network is trained on.

    Attributes
    ----------
    frames : of every view; those behind the end of a shorter utterance are missing (NaN).
    perturbation : what is drawn for every utterance.
    bands : (F,) frequencies of the bands in Hz, ascending; None where only time is changed.
    """

    frames: int
    perturbation: PerturbationSpec = field(default_factory=PerturbationSpec)
    bands: Tensor | None = None

    def draw(self, features: Tensor) -> Tensor:
        """Normalised maps ``(B, C, F, T)``, NaN where frames are missing -> ``(B, C, F, frames)``.

        Numbers are drawn from torch's generator of the device.
        """
        spec, device = self.perturbation, features.device
        speed, stretch, vtlp = (
            _factors(span, len(features), device) for span in (spec.speed, spec.stretch, spec.vtlp)
        )
        maps = played(features, speed * stretch, self.frames)
        if self.bands is not None and (spec.speed is not None or spec.vtlp is not None):
            maps = moved(maps, self.bands, speed * vtlp)
        if spec.equaliser > 0.0:
            maps = equalised(maps, spec.equaliser)
        if spec.mix_statistics > 0.0:
            maps = mix_statistics(maps, spec.mix_statistics)
        return maps


def played(maps: Tensor, rate: Tensor, frames: int) -> Tensor:
    """A stretch of each map ``(B, C, F, T)`` from a random frame on, ``rate`` (B,) times as fast.

    The result is ``(B, C, F, frames)``. Between frames, values are interpolated linearly.
    """
    valid = valid_frames(maps)[:, None]
    steps = torch.arange(frames, device=maps.device) * rate[:, None]
    latest = (valid - 1 - steps[:, -1:]).clamp(min=0.0).floor()
    # Whole frames, so that an unchanged rate leaves values as they are.
    first = (torch.rand(len(maps), 1, device=maps.device) * (latest + 1)).floor()
    place = first + steps
    beyond = place > valid - 1
    place = torch.minimum(place, valid - 1.0)
    below = place.floor().long()
    above = torch.minimum(below + 1, valid - 1)
    stretch = _between(maps, 3, below, above, place - below)
    return stretch.masked_fill(beyond[:, None, None], torch.nan)


def moved(maps: Tensor, bands: Tensor, factor: Tensor) -> Tensor:
    """Each map ``(B, C, F, T)`` with all frequencies multiplied by its ``factor`` (B,)."""
    bands = bands.to(maps.device)
    source = (bands / factor[:, None]).clamp(bands[0], bands[-1])
    above = torch.searchsorted(bands, source.contiguous()).clamp(1, len(bands) - 1)
    share = (source - bands[above - 1]) / (bands[above] - bands[above - 1])
    return _between(maps, 2, above - 1, above, share)


def equalised(maps: Tensor, sd: float | Tensor) -> Tensor:
    """Each map ``(B, C, F, T)`` plus a random smooth curve over frequency of deviation ``sd``.

    The curve is the same in all frames, so that channels of slopes after the first keep theirs.
    A tensor ``sd`` (B, 1) has a deviation for each map.
    """
    bands = maps.shape[2]
    place = (torch.arange(bands, device=maps.device, dtype=maps.dtype) + 0.5) / bands
    # Half a period to two; a constant would be the level. The mean square of a cosine is 1/2.
    waves = torch.stack([torch.cos(math.pi * k * place) for k in _HALF_PERIODS])
    heights = torch.randn(len(maps), len(waves), device=maps.device, dtype=maps.dtype)
    curve = heights @ waves * (sd * math.sqrt(2 / len(waves)))
    static, slopes = maps[:, :1], maps[:, 1:]
    return torch.cat([static + curve[:, None, :, None], slopes], dim=1)


class Hearing(nn.Module):
    """Maps as they are at several speeds, without a draw.

    As :meth:`Views.draw` plays and moves them, from the first frame to the last one that is there;
    in operations that can be exported.

    Parameters
    ----------
    speeds : factors of tempo and all frequencies.
    bands : (F,) frequencies of the bands in Hz, ascending.
    """

    def __init__(self, speeds: Sequence[float], bands: Tensor) -> None:
        super().__init__()
        self.speeds = [Fraction(speed).limit_denominator(1000) for speed in speeds]
        n = len(bands)
        for k, speed in enumerate(self.speeds):
            if speed == 1:
                continue
            # Row f: what band f is made of. A product, as factors are the same for all maps.
            one_hot = torch.eye(n)[:, None, :, None]  # (source, C, F, T)
            matrix = moved(one_hot, bands, torch.full((n,), float(speed)))[:, 0, :, 0].T
            self.register_buffer(f"bands_{k}", matrix, persistent=False)

    def forward(self, maps: Tensor) -> list[Tensor]:
        """``(B, C, F, T)``, NaN where frames are missing -> ``(B, C, F, T / speed)`` for each."""
        return [
            maps if speed == 1 else self._at(maps, speed, self.get_buffer(f"bands_{k}"))
            for k, speed in enumerate(self.speeds)
        ]

    def _at(self, maps: Tensor, speed: Fraction, bands: Tensor) -> Tensor:
        frames = maps.shape[3]
        over, under = speed.numerator, speed.denominator
        # In whole numbers, which an exported graph has for any length.
        place = torch.arange((frames - 1) * under // over + 1, device=maps.device) * over
        below, above = place // under, (place + under - 1) // under
        share = (place % under).to(maps.dtype) / under
        played = torch.lerp(maps.index_select(3, below), maps.index_select(3, above), share)
        return bands.to(maps.dtype) @ played


def _factors(span: tuple[float, ...] | None, n: int, device: torch.device) -> Tensor:
    """``(n,)`` log-uniform between two ends, so that a factor is as likely as its inverse."""
    if span is None:
        return torch.ones(n, device=device)
    low, high = (torch.tensor(end).log() for end in span)
    return torch.exp(low + (high - low) * torch.rand(n, device=device))


def _between(maps: Tensor, dim: int, first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """Weighted means of places ``first`` and ``second`` (B, N) on an axis of ``(B, C, F, T)``."""
    shape = [len(maps), 1, 1, 1]
    shape[dim] = first.shape[1]
    sizes = list(maps.shape)
    sizes[dim] = first.shape[1]
    one, other = (maps.gather(dim, place.view(shape).expand(sizes)) for place in (first, second))
    return torch.lerp(one, other, share.to(maps.dtype).view(shape).expand(sizes))


def mix_statistics(maps: Tensor, probability: float) -> Tensor:
    """Give maps the mean and deviation of each band of another utterance of the batch, in part.

    MixStyle (arXiv 2104.02008) on bands in place of channels: statistics over time of an utterance
    and a random partner are averaged with a weight from Beta(0.3, 0.3), each with ``probability``.
    It makes room and voice of a speaker less telling.

    Parameters
    ----------
    maps : (B, C, F, T), NaN where frames are missing.
    """
    n, device = len(maps), maps.device
    partner = torch.randperm(n, device=device)
    # A sample of Beta is one of two Gammas; torch draws it on the CPU from the global generator.
    share = torch.distributions.Beta(0.3, 0.3).sample((n,)).to(device)
    kept = torch.where(torch.rand(n, device=device) < probability, share, torch.ones_like(share))
    return with_statistics_of(maps, partner, kept)


def with_statistics_of(maps: Tensor, partner: Tensor, kept: Tensor) -> Tensor:
    """Maps ``(B, C, F, T)`` that keep a share ``kept`` (B,) of their mean and deviation over time.

    The rest of both is that of the map at ``partner`` (B,).
    """
    mean = maps.nanmean(dim=3, keepdim=True)
    sd = (maps - mean).square().nanmean(dim=3, keepdim=True).sqrt().clamp_min(1e-3)
    kept = kept.view(-1, 1, 1, 1)
    new_mean = torch.lerp(mean[partner], mean, kept)
    new_sd = torch.lerp(sd[partner], sd, kept)
    return (maps - mean) / sd * new_sd + new_mean
