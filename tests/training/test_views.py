"""Views of maps: which frames they show, what each change does, and what is never seen."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from emodarts.audio.features import band_frequencies
from emodarts.recipe import FeatureSpec, PerturbationSpec
from emodarts.training.views import (
    Hearing,
    Views,
    equalised,
    mix_statistics,
    moved,
    played,
    valid_frames,
)

LOG_MEL = FeatureSpec(kind="log_mel", sample_rate=16000, duration=1.0, n_fft=512, hop_length=160)


def ramp(frames: int, valid: int, bands: int = 4) -> Tensor:
    """(1, 1, F, T): every value is the number of its frame; NaN from ``valid`` on."""
    maps = torch.arange(frames, dtype=torch.float32).expand(1, 1, bands, frames).clone()
    maps[..., valid:] = math.nan
    return maps


@pytest.mark.parametrize("valid", [1, 3, 7, 12])
def test_valid_frames_are_those_before_the_missing_ones(valid: int) -> None:
    assert valid_frames(ramp(12, valid)).tolist() == [valid]


def test_an_unperturbed_view_is_a_stretch_of_the_map_itself() -> None:
    starts = set()
    for seed in range(40):
        torch.manual_seed(seed)
        (row,) = Views(5).draw(ramp(12, 9))[0, 0, :1].tolist()
        assert row == [row[0] + k for k in range(5)]
        starts.add(row[0])
    assert starts == {0.0, 1.0, 2.0, 3.0, 4.0}


def test_a_short_utterance_is_whole_and_frames_behind_it_are_missing() -> None:
    view = Views(7, PerturbationSpec(mix_statistics=1.0)).draw(ramp(12, 3).repeat(4, 1, 1, 1))
    assert torch.isnan(view).tolist() == torch.isnan(ramp(7, 3)).repeat(4, 1, 1, 1).tolist()
    view = Views(7).draw(ramp(12, 3))
    assert view[0, 0, 0, :3].tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("key", ["speed", "stretch"])
def test_a_faster_view_shows_more_frames(key: str) -> None:
    torch.manual_seed(0)
    maps = ramp(100, 100)
    seen = Views(11, PerturbationSpec(**{key: (1.5, 1.5)})).draw(maps)[0, 0, 0]
    assert torch.allclose(seen.diff(), torch.tensor(1.5), atol=1e-4)


@pytest.mark.parametrize(("key", "moved"), [("speed", 1.25), ("vtlp", 1.25), ("stretch", 1.0)])
def test_frequencies_are_multiplied_by_the_factor(key: str, moved: float) -> None:
    bands = band_frequencies(LOG_MEL)
    assert bands is not None
    maps = bands.log().view(1, 1, -1, 1).expand(1, 1, len(bands), 30)
    seen = Views(10, PerturbationSpec(**{key: (1.25, 1.25)}), bands).draw(maps)[0, 0, :, 0]
    inner = slice(30, 100)  # away from the ends, where there is nothing to move in
    # What stands at f came from f / factor.
    assert torch.allclose(seen[inner], (bands / moved).log()[inner], atol=0.01)


@pytest.mark.parametrize("speed", [0.5, 0.9, 1.0, 1.1, 1.37, 2.0])
def test_a_map_at_a_speed_is_the_view_from_the_first_frame_on(
    speed: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "rand", torch.zeros)  # a view from the first frame on
    bands = band_frequencies(LOG_MEL)
    assert bands is not None
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(5, 2, len(bands), 40, generator=generator)
    for row, valid in enumerate((40, 33, 7, 2, 1)):
        maps[row, ..., valid:] = math.nan
    (found,) = Hearing([speed], bands)(maps)
    frames = int(39 / speed + 1e-6) + 1
    assert found.shape == (5, 2, len(bands), frames)
    for row, valid in enumerate((40, 33, 7, 2, 1)):
        cut, there = maps[row : row + 1, ..., :valid], int((valid - 1) / speed + 1e-6) + 1
        expected = played(cut, torch.tensor([speed]), there)
        expected = moved(expected, bands, torch.tensor([speed]))
        torch.testing.assert_close(found[row : row + 1, ..., :there], expected, atol=1e-4, rtol=0)
        assert torch.isnan(found[row, ..., there:]).all()


def test_maps_at_several_speeds_are_those_at_each() -> None:
    bands = band_frequencies(LOG_MEL)
    assert bands is not None
    maps = torch.randn(2, 1, len(bands), 20)
    slow, same, fast = Hearing([0.8, 1.0, 1.25], bands)(maps)
    assert same is maps
    assert [x.shape[3] for x in (slow, fast)] == [24, 16]
    assert not Hearing([0.8, 1.0, 1.25], bands).state_dict(), "a bundle would not hold it"


def test_factors_are_as_often_above_one_as_below() -> None:
    torch.manual_seed(0)
    views = Views(2, PerturbationSpec(stretch=(0.5, 2.0)))
    rates = views.draw(ramp(100, 100).expand(4000, 1, 4, 100))[:, 0, 0].diff(dim=1)
    assert abs(float((rates > 1).float().mean()) - 0.5) < 0.03
    assert float(rates.min()) >= 0.5
    assert float(rates.max()) <= 2.001


def test_an_equaliser_adds_a_smooth_curve_over_frequency_of_the_given_deviation() -> None:
    torch.manual_seed(0)
    maps = torch.randn(4000, 2, 16, 3)
    maps[0, ..., 2] = math.nan
    added = equalised(maps, 0.3) - maps
    assert torch.isnan(added).equal(torch.isnan(maps))
    assert float(added[:, 1].nan_to_num().abs().max()) == 0.0, "slopes over time stay"
    curves = added[:, 0, :, 0]
    assert torch.allclose(curves, added[:, 0, :, 1], atol=1e-5)
    assert abs(float(curves.square().mean().sqrt()) - 0.3) < 0.01
    assert float(curves.mean(dim=1).abs().max()) < 1e-5, "the level stays"
    place = (torch.arange(16) + 0.5) / 16
    quick = torch.stack([torch.cos(math.pi * k * place) for k in range(5, 16)])
    assert float((curves @ quick.T).abs().max()) < 1e-4, "no more than two periods"


def test_an_equaliser_is_drawn_for_every_utterance() -> None:
    torch.manual_seed(0)
    seen = Views(5, PerturbationSpec(equaliser=0.5)).draw(torch.zeros(2, 1, 8, 9))
    assert not torch.allclose(seen[0], seen[1], atol=0.05)
    assert torch.equal(seen[..., :1].expand_as(seen), seen)


def test_mixed_statistics_keep_the_shape_over_time() -> None:
    torch.manual_seed(0)
    maps = torch.randn(6, 1, 4, 50) * torch.rand(6, 1, 4, 1) * 5 + torch.randn(6, 1, 4, 1)
    mixed = mix_statistics(maps, 1.0)

    def standardised(x: Tensor) -> Tensor:
        return (x - x.mean(3, keepdim=True)) / x.std(3, keepdim=True)

    assert torch.allclose(standardised(mixed), standardised(maps), atol=1e-4)
    assert not torch.allclose(mixed.mean(3), maps.mean(3), atol=0.1)
    low, high = maps.mean(3).amin(0), maps.mean(3).amax(0)
    assert (mixed.mean(3) >= low - 1e-4).all()
    assert (mixed.mean(3) <= high + 1e-4).all()


def test_statistics_are_mixed_with_the_given_probability() -> None:
    torch.manual_seed(0)
    maps = torch.randn(400, 1, 2, 10) + 3 * torch.randn(400, 1, 2, 1)
    changed = (mix_statistics(maps, 0.5) - maps).abs().amax((1, 2, 3)) > 1e-3
    assert 0.3 < float(changed.float().mean()) < 0.6
    assert torch.allclose(mix_statistics(maps, 0.0), maps, atol=1e-5)


def test_a_seed_decides_what_is_drawn() -> None:
    spec = PerturbationSpec(speed=(0.8, 1.2), vtlp=(0.9, 1.1), mix_statistics=0.5)
    views = Views(20, spec, torch.linspace(50, 5000, 4))
    maps = torch.randn(5, 1, 4, 60)
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append(views.draw(maps))
    assert torch.equal(*drawn)
    assert not torch.equal(drawn[0], views.draw(maps))
