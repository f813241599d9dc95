"""One digest for one recording, whatever is around its samples; another for any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from emodarts.audio.duplicates import SoundDigest, group_same
from emodarts.audio.io import check_audio, load_audio

RATE = 8000


def speech(seed: int = 0, n: int = 4000) -> NDArray[np.float32]:
    """Noise of a level that rises and falls, as 16-bit samples."""
    noise = np.random.default_rng(seed).standard_normal(n) * np.hanning(n) * 0.2
    return (np.rint(noise * 32768) / 32768).astype(np.float32)


def sound_digest(*blocks: NDArray[np.float32]) -> str:
    sound = SoundDigest()
    for block in blocks:
        sound.add(block)
    return sound.hexdigest()


def digest_of_file(path: Path) -> str:
    sound = SoundDigest()
    check_audio(path, tap=sound.add)
    return sound.hexdigest()


@given(before=st.integers(0, 900), after=st.integers(0, 900), level=st.floats(0, 1e-3))
def test_quiet_ends_count_for_nothing(before: int, after: int, level: float) -> None:
    hiss = np.random.default_rng(1).uniform(-level, level, 1800).astype(np.float32)
    longer = np.concatenate([hiss[:before], speech(), hiss[900 : 900 + after]])
    assert sound_digest(longer) == sound_digest(speech())


def test_any_change_inside_counts() -> None:
    changed = speech()
    changed[2000] += 1 / 32768
    others = [changed, speech()[::-1], -speech(), 0.5 * speech(), speech(1)]
    assert sound_digest(speech()) not in {sound_digest(other) for other in others}


def test_clicks_do_not_make_quiet_speech_the_same() -> None:
    clicked = [speech(seed) * np.float32(0.05) for seed in (0, 1)]
    for samples in clicked:
        samples[2000] = 1.0
    assert sound_digest(clicked[0]) != sound_digest(clicked[1])


@pytest.mark.parametrize(
    ("name", "subtype"),
    [("a.wav", "PCM_24"), ("a.wav", "FLOAT"), ("a.flac", "PCM_16"), ("a.aiff", "PCM_16"),
     ("a.au", "PCM_16")],
)  # fmt: skip
def test_header_container_and_channels_count_for_nothing(
    tmp_path: Path, name: str, subtype: str
) -> None:
    integers = np.rint(speech() * 32768).astype(np.int16)
    soundfile.write(tmp_path / "first.wav", integers, RATE, subtype="PCM_16")
    stereo = np.stack([speech(), speech()], axis=1)
    if subtype == "PCM_16":
        soundfile.write(tmp_path / name, np.stack([integers, integers], axis=1), 2 * RATE)
    else:
        whole = (stereo.astype(np.float64) * 2**31).astype(np.int32)
        soundfile.write(
            tmp_path / name, stereo if subtype == "FLOAT" else whole, 2 * RATE, subtype=subtype
        )
    assert digest_of_file(tmp_path / name) == digest_of_file(tmp_path / "first.wav")
    assert digest_of_file(tmp_path / name) == sound_digest(speech())


def test_blocks_and_what_is_made_of_them_count_for_nothing(tmp_path: Path) -> None:
    samples = speech(n=200_000)
    whole = sound_digest(samples)
    assert sound_digest(*np.array_split(samples, 7)) == whole
    soundfile.write(tmp_path / "a.wav", np.rint(samples * 32768).astype(np.int16), RATE)
    sound = SoundDigest()
    load_audio(tmp_path / "a.wav", 2 * RATE, tap=sound.add)
    assert sound.hexdigest() == whole


def test_groups_of_equal_keys() -> None:
    assert group_same(["a", "b", None, "a", "c", None, "b", "a"]) == [(0, 3, 7), (1, 6)]
