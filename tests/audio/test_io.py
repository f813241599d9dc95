"""Reading sound: every rate, channel count and container, and every kind of bad file."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from emodarts.audio.io import load_audio, open_recording
from emodarts.errors import AudioError

RATE = 16000


def tone(seconds: float = 1.0, rate: int = RATE, hz: float = 440.0) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * hz * time) * (0.5 + 0.5 * time)).astype(np.float32)


def encoded(samples: np.ndarray, rate: int = RATE, kind: str = "WAV", subtype: str | None = None):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def saved(folder: Path, data: bytes, name: str = "a.wav") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def refused(path: Path, **where: float) -> str:
    with pytest.raises(AudioError) as caught:
        load_audio(path, RATE, **where)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "subtype", "close"),
    [
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "PCM_24", 1e-6),
        ("WAV", "PCM_U8", 1e-2),
        ("WAV", "FLOAT", 0.0),
        ("FLAC", "PCM_16", 1e-4),
        ("AIFF", "PCM_16", 1e-4),
        ("OGG", "VORBIS", 0.05),
        ("MP3", "MPEG_LAYER_III", 0.05),
    ],
)
def test_containers(tmp_path: Path, kind: str, subtype: str, close: float) -> None:
    path = saved(tmp_path, encoded(tone(), kind=kind, subtype=subtype), f"a.{kind.lower()}")
    sound = load_audio(path, RATE)
    assert sound.dtype == np.float32
    assert sound.shape == (RATE,)
    assert np.abs(sound - tone())[100:-1000].max() <= close


def test_mono_is_the_mean_of_the_channels(tmp_path: Path) -> None:
    left, right = tone(hz=300), tone(hz=500)
    path = saved(tmp_path, encoded(np.stack([left, right], 1), subtype="FLOAT"))
    assert np.allclose(load_audio(path, RATE), (left + right) / 2, atol=1e-7)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_any_rate_becomes_the_rate_asked_for(tmp_path: Path, rate: int) -> None:
    sound = load_audio(saved(tmp_path, encoded(tone(rate=rate), rate, subtype="FLOAT")), RATE)
    assert sound.shape == (RATE,)
    assert np.abs(sound - tone())[200:-200].max() < 2e-3


def test_start_and_end_cut_at_the_sample(tmp_path: Path) -> None:
    path = saved(tmp_path, encoded(tone(), subtype="FLOAT"))
    assert np.array_equal(load_audio(path, RATE, 0.25, 0.75), tone()[4000:12000])
    assert np.array_equal(load_audio(path, RATE, 0.25), tone()[4000:])
    assert len(load_audio(path, RATE, 0.5, 1.005)) == 8000, "a label file may round up"


@pytest.mark.parametrize(
    ("start", "end"),
    [(-0.1, None), (1.0, None), (2.0, 3.0), (0.0, 1.2), (0.5, 0.5), (0.6, 0.5), (np.nan, None)],
)
def test_stretch_outside_the_file(tmp_path: Path, start: float, end: float | None) -> None:
    message = refused(saved(tmp_path, encoded(tone())), start=start, end=end)
    assert "allowed: 0 <= start < end <= 1.000" in message


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "none.wav")
    assert "is a folder" in refused(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_no_permission(tmp_path: Path) -> None:
    path = saved(tmp_path, encoded(tone()))
    path.chmod(0)
    assert "Permission denied" in refused(path)


def test_not_sound(tmp_path: Path) -> None:
    assert "cannot be decoded" in refused(saved(tmp_path, b"this is a letter\n" * 100))
    assert "cannot be decoded" in refused(saved(tmp_path, encoded(tone())[:30]))


def test_no_bytes_and_no_frames(tmp_path: Path) -> None:
    assert "0 bytes" in refused(saved(tmp_path, b""))
    assert "0 frames" in refused(saved(tmp_path, encoded(tone()[:0])))


@pytest.mark.parametrize("part", [0.97, 0.6, 0.2])
@pytest.mark.parametrize(
    ("kind", "subtype"),
    [
        ("WAV", "PCM_16"),
        ("WAV", "FLOAT"),
        ("WAV", "ULAW"),
        ("AIFF", "PCM_16"),
        ("AU", "PCM_16"),
        ("W64", "PCM_16"),
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("MP3", "MPEG_LAYER_III"),
    ],
)
def test_cut_off(tmp_path: Path, kind: str, subtype: str, part: float) -> None:
    data = encoded(tone(4.0), kind=kind, subtype=subtype)
    message = refused(saved(tmp_path, data[: int(part * len(data))]))
    assert "truncated" in message or "cannot be decoded" in message


def test_ogg_cut_between_two_pages(tmp_path: Path) -> None:
    data = encoded(tone(8.0), kind="OGG", subtype="OPUS")
    assert "truncated" in refused(saved(tmp_path, data[: data.rfind(b"OggS")]))


@pytest.mark.parametrize("promised", [0, 0xFFFFFFFF, 0x7FFFF000])
@pytest.mark.parametrize("riff", [0, 0xFFFFFFFF, 36])
def test_wav_from_a_pipe_has_no_sizes_and_is_legal(
    tmp_path: Path, promised: int, riff: int
) -> None:
    data = bytearray(encoded(tone()))
    place = data.find(b"data") + 4
    data[place : place + 4] = struct.pack("<I", promised)
    data[4:8] = struct.pack("<I", riff)
    path = saved(tmp_path, bytes(data))
    assert np.allclose(load_audio(path, RATE), tone(), atol=1e-4)


def test_wav_without_frames_but_with_a_comment_is_not_sound(tmp_path: Path) -> None:
    data = encoded(tone()[:0]) + b"LIST" + struct.pack("<I", 400) + b"INFO" + b"x" * 396
    data = data[:4] + struct.pack("<I", len(data) - 8) + data[8:]
    assert "0 frames" in refused(saved(tmp_path, data))


def test_chunk_behind_the_sound_may_be_cut(tmp_path: Path) -> None:
    path = saved(tmp_path, encoded(tone()) + b"LIST" + struct.pack("<I", 400) + b"INFO")
    assert len(load_audio(path, RATE)) == RATE


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_samples_that_are_no_sound(tmp_path: Path, value: float) -> None:
    samples = tone()
    samples[500] = value
    path = saved(tmp_path, encoded(samples, subtype="FLOAT"))
    assert "1 sample(s) are NaN, infinite or beyond" in refused(path)
    assert len(load_audio(path, RATE, 0.5)) == 8000, "the stretch without it is sound"


@pytest.mark.parametrize("level", [0.0, 0.25])
def test_silence(tmp_path: Path, level: float) -> None:
    path = saved(tmp_path, encoded(np.full(RATE, level, np.float32)))
    assert "is silent" in refused(path)


def test_channels_that_cancel_are_silence_for_that_reason(tmp_path: Path) -> None:
    opposite = encoded(np.stack([tone(), -tone()], 1), subtype="FLOAT")
    message = refused(saved(tmp_path, opposite))
    assert "is silent" in message
    assert "the channels cancel each other" in message


def test_a_name_on_several_lines_takes_one_in_messages(tmp_path: Path) -> None:
    with pytest.raises(AudioError) as caught:
        load_audio(saved(tmp_path, b"no sound", "a\nb.wav"), RATE)
    assert "a\\nb.wav: cannot be decoded" in str(caught.value)
    assert "\n" not in str(caught.value)


def speech_and_pause(seconds: float, rate: int = RATE) -> np.ndarray:
    """Half a tone, half noise: MP3 gives the first few bits, the second many."""
    sound = tone(seconds, rate)
    late = len(sound) // 2
    sound[late:] = 0.2 * np.random.default_rng(0).standard_normal(len(sound) - late)
    return sound


def mp3(sound: np.ndarray, rate: int = RATE, mode: str = "VARIABLE") -> bytes:
    buffer = io.BytesIO()
    kind = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": mode}
    channels = 1 if sound.ndim == 1 else sound.shape[1]
    with soundfile.SoundFile(buffer, "w", rate, channels, compression_level=0.5, **kind) as file:
        file.write(sound)
    return buffer.getvalue()


def without_header(data: bytes) -> bytes:
    """An MP3 file without its first frame, which states how many follow."""
    return data[data.find(data[:2], 4) :]


def stating(data: bytes, share: float) -> bytes:
    """An MP3 file whose header states this share of its frames."""
    place = max(data.find(mark, 0, 60) for mark in (b"Xing", b"Info")) + 8
    (count,) = struct.unpack(">I", data[place : place + 4])
    return data[:place] + struct.pack(">I", int(share * count)) + data[place + 4 :]


ID3 = b"ID3\x04\0\0\0\0\x10\0" + bytes(2048)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("mode", ["VARIABLE", "CONSTANT"])
@pytest.mark.parametrize(
    "changed",
    [
        without_header,
        lambda data: stating(data, 2.0),
        lambda data: stating(data, 0.5),
        lambda data: ID3 + without_header(data) + b"TAG" + bytes(125),
        lambda data: bytes(100) + without_header(data),
    ],
    ids=["no header", "too many frames", "too few frames", "tags", "bytes before"],
)
def test_mp3_is_decoded_to_its_end_whatever_its_header_says(
    tmp_path: Path, rate: int, channels: int, mode: str, changed
) -> None:
    sound = speech_and_pause(6.0, rate)
    for part in (sound, sound[::-1]):
        whole = mp3(np.column_stack([part] * channels), rate, mode)
        read = load_audio(saved(tmp_path, changed(whole), "a.mp3"), rate)
        expected = load_audio(saved(tmp_path, whole, "b.mp3"), rate)
        assert len(expected) == 6 * rate
        # Without its header, nobody knows that an encoder begins with silence and ends with it.
        assert 0 <= len(read) - len(expected) < 3 * 1152
        delays = range(len(read) - len(expected) + 1)
        ends = [np.abs(read[d : d + len(expected)] - expected)[rate:].max() for d in delays]
        assert min(ends) < 1e-3


def test_joined_mp3_files_are_read_to_the_end(tmp_path: Path) -> None:
    data = mp3(speech_and_pause(3.0))
    read = load_audio(saved(tmp_path, data + ID3 + data, "a.mp3"), RATE)
    assert 6 <= len(read) / RATE < 6.3


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("part", [0.97, 0.5])
def test_mp3_that_is_cut_is_refused(tmp_path: Path, header: bool, part: float) -> None:
    data = mp3(speech_and_pause(6.0))
    data = data if header else without_header(data)
    message = refused(saved(tmp_path, data[: int(part * len(data))], "a.mp3"))
    assert "is truncated: its " + ("header states" if header else "last frame") in message


def huge_wav(path: Path, data: bytes, size: int) -> None:
    """A 16-bit WAV file of so many bytes of zeros and then data; its size field wraps round."""
    header = bytearray(encoded(tone()[:0]))
    header[-4:] = struct.pack("<I", (size + len(data)) % 2**32)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + size)  # sparse: takes no space on the disk
        file.seek(0, os.SEEK_END)
        file.write(data)


def test_wav_beyond_4_gib_is_read_to_its_end_and_says_so(tmp_path: Path) -> None:
    data = encoded(tone())[44:]
    huge_wav(tmp_path / "a.wav", data, 2**32 + 10 * 2 * RATE)
    with (tmp_path / "a.wav").open("ab") as file:
        file.write(b"LIST\4\0\0\0INFO")
    with open_recording(tmp_path / "a.wav") as recording:
        note = "the header states 11 s, the file holds 134229 s; all of it was read"
        assert recording.note == note
        read = np.concatenate(list(recording.blocks(2**31 / RATE + 10)))
    assert len(read) == RATE
    assert np.allclose(read, tone(), atol=1e-4)


def test_wav_that_is_longer_than_its_header_says_so(tmp_path: Path) -> None:
    data = bytearray(encoded(tone(5.0)))
    data[40:44] = struct.pack("<I", 2 * 2 * RATE)
    with open_recording(saved(tmp_path, bytes(data))) as recording:
        assert recording.frames == 2 * RATE
        assert "the header states 2.0 s" in recording.note
        assert "perhaps 3.0 s of sound" in recording.note


@pytest.mark.parametrize(
    ("kind", "field", "size"),
    [("AIFF", b"SSND", ">I"), ("AU", b".snd", ">4xI"), ("CAF", b"data", ">q")],
)
def test_other_files_that_are_longer_than_their_header_say_so(
    tmp_path: Path, kind: str, field: bytes, size: str
) -> None:
    sound = np.stack([tone(5.0)] * 2, axis=1)
    data = encoded(sound, kind=kind, subtype="PCM_16")
    with open_recording(saved(tmp_path, data)) as recording:
        assert recording.note == ""
    changed = bytearray(data)
    place = changed.find(field) + 4
    stated = struct.pack(size, 2 * 2 * 2 * RATE)
    changed[place : place + len(stated)] = stated if kind != "AU" else data[4:8] + stated[4:]
    if kind == "AIFF":
        place = changed.find(b"COMM") + 10
        changed[place : place + 4] = struct.pack(">I", 2 * RATE)
    with open_recording(saved(tmp_path, bytes(changed))) as recording:
        assert "the header states 2.0 s" in recording.note
        assert "perhaps 3.0 s of sound" in recording.note


@pytest.mark.parametrize("behind", [b"", b"LIST" + struct.pack("<I", 10**5) + bytes(10**5)])
def test_a_wav_without_fault_has_no_note(tmp_path: Path, behind: bytes) -> None:
    with open_recording(saved(tmp_path, encoded(tone()) + behind)) as recording:
        assert recording.note == ""


def test_flac_from_a_pipe_states_no_length_and_is_read_to_its_end(tmp_path: Path) -> None:
    data = bytearray(encoded(tone(3.0), kind="FLAC"))
    data[21] &= 0xF0
    data[22:26] = bytes(4)  # total samples in STREAMINFO
    path = saved(tmp_path, bytes(data))
    assert np.allclose(load_audio(path, RATE), tone(3.0), atol=1e-4)
    assert np.allclose(load_audio(path, RATE, 1.0, 2.0), tone(3.0)[RATE : 2 * RATE], atol=1e-4)
    assert "segment of its 3.000 s" in refused(path, start=1.0, end=4.0)


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None)],
)
@pytest.mark.parametrize("rate", [RATE, 8000])
def test_blocks_are_the_whole_bit_for_bit(
    tmp_path: Path, kind: str, subtype: str | None, rate: int
) -> None:
    path = saved(tmp_path, encoded(speech_and_pause(12.0), kind=kind, subtype=subtype))
    whole = soxr.resample(soundfile.read(path, dtype="float32")[0], RATE, rate)
    assert np.array_equal(load_audio(path, rate), whole)


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [("WAV", "IMA_ADPCM"), ("FLAC", None), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None)],
)
def test_a_stretch_has_the_samples_of_the_whole_in_any_order(
    tmp_path: Path, kind: str, subtype: str | None
) -> None:
    """At few bits, MP3 frames depend on many before them; Vorbis is sought wrongly at times."""
    bits = {"compression_level": 0.99, "bitrate_mode": "CONSTANT"} if kind == "MP3" else {}
    path = tmp_path / "a"
    sound = speech_and_pause(70.0)
    with soundfile.SoundFile(path, "w", RATE, 1, format=kind, subtype=subtype, **bits) as file:
        for first in range(0, len(sound), RATE):  # Vorbis cannot encode much at once
            file.write(sound[first : first + RATE])
    whole = load_audio(path, RATE)
    for start in (66.0, 3.0, 4.0, 12.3, 40.1, 0.0):
        first = round(start * RATE)
        stretch = load_audio(path, RATE, start, start + 3.0)
        assert np.array_equal(stretch, whole[first : first + 3 * RATE]), start


def test_a_file_that_is_written_anew_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    for hz in (440.0, 660.0):
        soundfile.write(path, tone(3.0, hz=hz), RATE)
        read = np.abs(np.fft.rfft(load_audio(path, RATE, 1.0, 2.0)))
        assert read.argmax() == hz


def test_too_short_to_resample(tmp_path: Path) -> None:
    path = saved(tmp_path, encoded(np.array([0.1, 0.2], np.float32), 192000))
    with pytest.raises(AudioError, match="too short"):
        load_audio(path, 4000)


def test_emodb_file(emodb_root: Path) -> None:
    path = next(emodb_root.rglob("03a01Wa.wav"))
    reference, rate = soundfile.read(path, dtype="float32")
    assert np.array_equal(load_audio(path, rate), reference)
