"""Features equal librosa's and depend on their own utterance alone."""

from __future__ import annotations

from pathlib import Path

import librosa
import numpy as np
import pytest
import scipy.signal
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emodarts.audio.features import FeatureExtractor, fit_length, mel_filterbank
from emodarts.audio.io import load_audio
from emodarts.errors import ShapeError
from emodarts.recipe import FeatureSpec

PAPER = FeatureSpec()
SMALL_MFCC = FeatureSpec(
    sample_rate=16000, duration=2.0, n_fft=512, hop_length=160, n_mels=64, n_mfcc=40, pool=4
)
SMALL_MEL = FeatureSpec(
    kind="log_mel", sample_rate=16000, duration=3.0, n_fft=400, hop_length=200, n_mels=40, pool=1
)
BAND_LIMITED = FeatureSpec(
    sample_rate=16000, duration=2.0, n_fft=512, hop_length=160, n_mels=40, fmax=7000.0, pool=2
)
ODD = FeatureSpec(
    kind="log_mel", sample_rate=11025, duration=1.0, n_fft=301, hop_length=77, n_mels=20, pool=4
)
SPECS = {"paper": PAPER, "mfcc": SMALL_MFCC, "log_mel": SMALL_MEL, "fmax": BAND_LIMITED, "odd": ODD}


@pytest.fixture(params=SPECS.values(), ids=SPECS.keys())
def spec(request: pytest.FixtureRequest) -> FeatureSpec:
    return request.param


def batch(spec: FeatureSpec, size: int, seed: int = 0) -> torch.Tensor:
    """Noise of very different loudness, each with some silence at its end."""
    generator = torch.Generator().manual_seed(seed)
    waveform = torch.randn(size, spec.n_samples, generator=generator)
    waveform *= 10.0 ** torch.linspace(-4, 1, size)[:, None]
    waveform[:, spec.n_samples * 3 // 4 :] = 0
    return waveform


def by_librosa(waveform: np.ndarray, spec: FeatureSpec) -> np.ndarray:
    where = {
        "sr": spec.sample_rate,
        "n_fft": spec.n_fft,
        "hop_length": spec.hop_length,
        "n_mels": spec.n_mels,
        "fmax": spec.fmax,
    }
    if spec.kind == "mfcc":
        maps = librosa.feature.mfcc(y=waveform, n_mfcc=spec.n_features, **where)
    else:
        maps = librosa.power_to_db(librosa.feature.melspectrogram(y=waveform, **where))
    groups = maps.shape[1] // spec.pool
    return maps[:, : groups * spec.pool].reshape(len(maps), groups, spec.pool).max(-1)


@pytest.mark.parametrize("pattern", ["03*W?.wav", "08*N?.wav", "16*T?.wav", "11*F?.wav"])
def test_equals_librosa_on_real_speech(emodb_root: Path, spec: FeatureSpec, pattern: str) -> None:
    path = min(emodb_root.rglob(pattern))
    waveform = fit_length(load_audio(path, spec.sample_rate), spec.n_samples)
    ours = FeatureExtractor(spec)(torch.from_numpy(waveform[None]))[0, 0].numpy()
    reference = by_librosa(waveform, spec)
    assert ours.shape == reference.shape == (spec.n_features, spec.n_frames)
    assert np.abs(ours - reference).max() <= 1e-3 * np.abs(reference).max()


def test_equals_librosa_on_noise_and_silence(spec: FeatureSpec) -> None:
    for waveform in batch(spec, 4):
        ours = FeatureExtractor(spec)(waveform[None])[0, 0].numpy()
        reference = by_librosa(waveform.numpy(), spec)
        assert np.abs(ours - reference).max() <= 1e-3 * np.abs(reference).max()


@settings(deadline=None, max_examples=25)
@given(
    sample_rate=st.integers(4000, 96000),
    n_fft=st.integers(64, 4096),
    n_mels=st.integers(1, 128),
)
@pytest.mark.filterwarnings("ignore:Empty filters detected")
def test_filterbank_equals_librosa(sample_rate: int, n_fft: int, n_mels: int) -> None:
    ours = mel_filterbank(sample_rate, n_fft, n_mels)
    reference = librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels, dtype=np.float64)
    assert ours.shape == reference.shape
    assert np.allclose(ours, reference, rtol=1e-6, atol=1e-9 * reference.max())


def test_paper_spec_is_128_by_128() -> None:
    assert FeatureExtractor(PAPER)(batch(PAPER, 2)).shape == (2, 1, 128, 128)


def test_alone_or_in_a_batch_of_any_size_and_order(spec: FeatureSpec) -> None:
    extractor = FeatureExtractor(spec)
    waveforms = batch(spec, 17)
    alone = torch.cat([extractor(w[None]) for w in waveforms])
    bound = 1e-5 * alone.abs().max()
    together = extractor(waveforms)
    in_twos = torch.cat([extractor(pair) for pair in waveforms.split(2)])
    order = torch.randperm(17, generator=torch.Generator().manual_seed(1))
    assert (together - alone).abs().max() <= bound
    assert (in_twos - alone).abs().max() <= bound
    assert (extractor(waveforms[order]) - together[order]).abs().max() <= bound


def test_loud_batch_mate_does_not_raise_the_floor(spec: FeatureSpec) -> None:
    extractor = FeatureExtractor(spec)
    quiet = batch(spec, 1)
    with_loud = extractor(torch.cat([quiet, batch(spec, 1, seed=1) * 1e7]))
    alone = extractor(quiet)
    assert (with_loud[:1] - alone).abs().max() <= 1e-5 * alone.abs().max()


def test_floor_is_80_db_below_the_loudest() -> None:
    maps = FeatureExtractor(SMALL_MEL)(batch(SMALL_MEL, 3))
    for utterance in maps[1:]:  # the first is so quiet that the absolute floor comes first
        assert (utterance.max() - utterance.min()).item() == pytest.approx(80.0, abs=1e-3)


def test_pool_takes_the_maximum_and_drops_the_rest() -> None:
    fine = FeatureExtractor(SMALL_MFCC.model_copy(update={"pool": 1}))(batch(SMALL_MFCC, 1))
    coarse = FeatureExtractor(SMALL_MFCC)(batch(SMALL_MFCC, 1))
    assert coarse.shape[-1] == fine.shape[-1] // 4 < fine.shape[-1] / 4
    for frame in range(coarse.shape[-1]):
        assert torch.equal(coarse[..., frame], fine[..., 4 * frame : 4 * frame + 4].amax(-1))


def test_gain_moves_log_mel_by_its_decibels() -> None:
    extractor = FeatureExtractor(SMALL_MEL)
    waveform = torch.randn(1, SMALL_MEL.n_samples, generator=torch.Generator().manual_seed(0))
    moved = extractor(10.0 * waveform) - extractor(waveform)
    assert torch.allclose(moved, torch.full_like(moved, 20.0), atol=1e-3)


def test_rate_and_channels_do_not_matter(emodb_root: Path, tmp_path: Path) -> None:
    path = next(emodb_root.rglob("03a01Wa.wav"))
    sound, rate = soundfile.read(path)
    assert rate == 16000
    stereo = np.repeat(scipy.signal.resample_poly(sound, 3, 1)[:, None], 2, axis=1)
    soundfile.write(tmp_path / "stereo.flac", stereo / 2, 48000, subtype="PCM_24")
    soundfile.write(tmp_path / "mono.wav", sound / 2, 16000, subtype="PCM_24")
    maps = [
        FeatureExtractor(SMALL_MEL)(
            torch.from_numpy(
                fit_length(load_audio(tmp_path / name, 16000), SMALL_MEL.n_samples)[None]
            )
        )
        for name in ("stereo.flac", "mono.wav")
    ]
    # The top band reaches 8 kHz, where two resampling filters may differ.
    assert (maps[0] - maps[1])[:, :, :-1].abs().mean() < 0.1


def test_nothing_is_stored_in_a_checkpoint() -> None:
    extractor = FeatureExtractor(SMALL_MFCC)
    assert not extractor.state_dict()
    assert not list(extractor.parameters())


def test_gradient_reaches_the_waveform() -> None:
    waveform = batch(SMALL_MFCC, 2).requires_grad_()
    FeatureExtractor(SMALL_MFCC)(waveform).sum().backward()
    assert waveform.grad is not None
    assert torch.isfinite(waveform.grad).all()
    assert (waveform.grad != 0).any()


@pytest.mark.parametrize("shape", [(1000,), (2, 1000), (1, 1, 32000), (2, 32001)])
def test_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"legal: \(B, 32000\)"):
        FeatureExtractor(SMALL_MFCC)(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(5,), (2, 5)])
def test_fit_length(shape: tuple[int, ...]) -> None:
    sound = np.arange(1, 1 + np.prod(shape), dtype=np.float32).reshape(shape)
    longer, shorter = fit_length(sound, 8), fit_length(sound, 3)
    assert longer.shape == (*shape[:-1], 8)
    assert longer.dtype == np.float32
    assert np.array_equal(longer[..., :5], sound)
    assert not longer[..., 5:].any()
    assert np.array_equal(shorter, sound[..., :3])
    assert np.array_equal(fit_length(sound, 5), sound)
