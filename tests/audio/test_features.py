"""Features equal librosa's and depend on their own utterance alone."""

from __future__ import annotations

from pathlib import Path

import librosa
import numpy as np
import pytest
import scipy.signal
import soundfile
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from emodarts.audio.features import FeatureExtractor, delta, fit_length, mel_filterbank
from emodarts.audio.io import load_audio
from emodarts.errors import ShapeError
from emodarts.recipe.features import FeatureSpec

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
# 25 ms Hamming windows that overlap by 14 ms (EmotionNAS), and the STFT of emoDARTS' code.
EMOTION_NAS = FeatureSpec(kind="stft", duration=2.0, pool=3)
CODE = FeatureSpec(
    kind="stft", duration=2.0, window="hann", win_length=278, n_fft=278, hop_length=229
)
SPECS = {"paper": PAPER, "mfcc": SMALL_MFCC, "log_mel": SMALL_MEL, "fmax": BAND_LIMITED, "odd": ODD}
SPECS |= {"emotion_nas": EMOTION_NAS, "code": CODE}
SPECS["bands"] = FeatureSpec(
    kind="log_mel",
    sample_rate=16000,
    duration=2.0,
    n_fft=512,
    win_length=400,
    hop_length=160,
    n_mels=64,
    fmin=50.0,
    fmax=7600.0,
    pool=2,
    pool_by="mean",
)


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
    if spec.kind == "stft":
        where = {"n_fft": spec.n_fft, "hop_length": spec.hop_length, "window": spec.window}
        spectrum = librosa.stft(waveform, win_length=spec.win_length, **where)
        return pooled(librosa.amplitude_to_db(np.abs(spectrum)), spec)
    where = {
        "sr": spec.sample_rate,
        "n_fft": spec.n_fft,
        "hop_length": spec.hop_length,
        "n_mels": spec.n_mels,
        "win_length": spec.win_length,
        "fmin": spec.fmin,
        "fmax": spec.fmax,
    }
    if spec.kind == "mfcc":
        maps = librosa.feature.mfcc(y=waveform, n_mfcc=spec.n_features, **where)
    else:
        maps = librosa.power_to_db(librosa.feature.melspectrogram(y=waveform, **where))
    return pooled(maps, spec)


def pooled(maps: np.ndarray, spec: FeatureSpec) -> np.ndarray:
    groups = maps.shape[1] // spec.pool
    joined = maps[:, : groups * spec.pool].reshape(len(maps), groups, spec.pool)
    return joined.max(-1) if spec.pool_by == "max" else joined.mean(-1)


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


@pytest.mark.usefixtures("one_thread")
def test_alone_or_in_a_batch_of_any_size_and_order(spec: FeatureSpec) -> None:
    """To the last bit."""
    extractor = FeatureExtractor(spec.model_copy(update={"deltas": 2}))
    waveforms = batch(spec, 17)
    alone = torch.cat([extractor(w[None]) for w in waveforms])
    together = extractor(waveforms)
    in_twos = torch.cat([extractor(pair) for pair in waveforms.split(2)])
    order = torch.randperm(17, generator=torch.Generator().manual_seed(1))
    assert torch.equal(together, alone)
    assert torch.equal(in_twos, alone)
    assert torch.equal(extractor(waveforms[order]), together[order])


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
    with pytest.raises(ShapeError, match=r"allowed: \(B, 32000\)"):
        FeatureExtractor(SMALL_MFCC)(torch.zeros(shape))


def test_transform_that_denies_its_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    extractor = FeatureExtractor(SMALL_MEL)
    monkeypatch.setattr(extractor.transform, "forward", lambda waveform: waveform[:, None])
    with pytest.raises(ShapeError, match=r"\(2, 1, 48000\); its spec requires \(2, 40, 241\)"):
        extractor(batch(SMALL_MEL, 2))


@settings(deadline=None, max_examples=30)
@given(
    kind=st.sampled_from(["mfcc", "log_mel", "stft"]),
    n_samples=st.integers(400, 5000),
    n_fft=st.integers(200, 400),
    hop_length=st.integers(16, 160),
    pool=st.integers(1, 3),
    deltas=st.sampled_from([0, 1, 2]),
)
@example(kind="stft", n_samples=800, n_fft=201, hop_length=80, pool=1, deltas=0)
def test_spec_gives_the_shape(kind: str, n_samples: int, deltas: int, **keys: int) -> None:
    own = {"win_length": 180} if kind == "stft" else {"n_mels": 8}
    rate = {"sample_rate": 8000, "duration": n_samples / 8000}
    spec = FeatureSpec(kind=kind, deltas=deltas, **rate, **keys, **own)
    assert spec.n_samples == n_samples
    shape = (2, 1 + deltas, spec.n_features, spec.n_frames)
    assert FeatureExtractor(spec)(torch.zeros(2, n_samples)).shape == shape


# --- waveform ---


def test_frames_are_the_samples_in_order() -> None:
    spec = FeatureSpec(kind="waveform", duration=0.5, frame_length=300)
    waveforms = batch(spec, 3)
    maps = FeatureExtractor(spec)(waveforms)
    assert maps.shape == (3, 1, 300, 26) == (3, 1, spec.n_features, spec.n_frames)
    assert torch.equal(maps[:, 0].transpose(1, 2).flatten(1), waveforms[:, : 26 * 300])


# --- deltas ---


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("frames", [1, 3, 9, 40])
def test_delta_equals_librosa(order: int, frames: int) -> None:
    maps = torch.randn(2, 1, 5, frames, generator=torch.Generator().manual_seed(0))
    ours = delta(maps, order).numpy()
    reference = librosa.feature.delta(maps.numpy(), width=9, order=order, mode="nearest")
    np.testing.assert_allclose(ours, reference, atol=1e-6)


def test_delta_of_a_parabola_is_its_derivative() -> None:
    time = torch.arange(30.0, dtype=torch.float64)
    parabola = (3 + 2 * time + 5 * time**2)[None, None, None]
    inside = slice(4, -4)
    slope, curvature = (delta(parabola, order)[0, 0, 0, inside] for order in (1, 2))
    torch.testing.assert_close(slope, (2 + 10 * time)[inside])
    torch.testing.assert_close(curvature, torch.full_like(curvature, 10.0))


@pytest.mark.parametrize("deltas", [1, 2])
def test_deltas_are_channels_after_the_map(spec: FeatureSpec, deltas: int) -> None:
    waveforms = batch(spec, 2)
    plain = FeatureExtractor(spec)(waveforms)
    maps = FeatureExtractor(spec.model_copy(update={"deltas": deltas}))(waveforms)
    expected = [plain, delta(plain, 1), delta(plain, 2)][: 1 + deltas]
    assert torch.equal(maps, torch.cat(expected, dim=1))


# --- length ---


def test_short_sound_is_repeated_and_long_sound_cut() -> None:
    sound = np.arange(1, 6, dtype=np.float32)
    repeated = fit_length(sound, 13, "repeat")
    assert repeated.dtype == np.float32
    assert repeated.tolist() == [*(1, 2, 3, 4, 5), *(1, 2, 3, 4, 5), *(1, 2, 3)]
    assert np.array_equal(fit_length(sound[None], 3, "repeat"), sound[None, :3])
    assert not fit_length(sound[:0], 4, "repeat").any()
    assert np.array_equal(fit_length(sound, 8, "segments"), fit_length(sound, 8))


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


@pytest.mark.parametrize("seconds", [0.2, 0.5131, 0.9, 1.0])
def test_frames_behind_the_sound_are_missing_and_the_others_are_those_of_the_sound_alone(
    spec: FeatureSpec, seconds: float
) -> None:
    """Whatever the length of the input, an utterance has the same frames."""
    spec = spec.model_copy(update={"duration": 1.0, "n_fft": min(spec.n_fft, 2048)})
    n = round(seconds * spec.sample_rate)
    sound = batch(spec, 1)[0, :n].numpy()
    padded = fit_length(sound, spec.n_samples, fill=np.nan)
    found = FeatureExtractor(spec)(torch.from_numpy(padded)[None])[0]
    alone = spec.model_copy(update={"duration": n / spec.sample_rate})
    expected = FeatureExtractor(alone)(torch.from_numpy(sound)[None])[0]
    frames = alone.n_frames
    assert frames == spec.frames_of(n)
    torch.testing.assert_close(found[..., :frames], expected, atol=1e-3, rtol=1e-4)
    assert torch.isnan(found[..., frames:]).all()


def test_deltas_of_the_last_frames_of_a_padded_sound_are_finite() -> None:
    spec = SMALL_MEL.model_copy(update={"deltas": 2})
    padded = fit_length(batch(spec, 1)[0, :16000].numpy(), spec.n_samples, fill=np.nan)
    maps = FeatureExtractor(spec)(torch.from_numpy(padded)[None])
    missing = torch.isnan(maps)
    assert missing.any()
    assert (missing == missing[:, :1, :1]).all()
