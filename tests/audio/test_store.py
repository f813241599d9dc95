"""Stored features are never stale, never damaged, and bitwise those of the utterance alone."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from emodarts.audio import store
from emodarts.audio.features import FeatureExtractor, fit_length
from emodarts.audio.io import load_audio
from emodarts.audio.store import default_cache_folder, extract
from emodarts.corpora.utterance import Utterance
from emodarts.errors import AudioError, WriteError
from emodarts.recipe import FeatureSpec

SPEC = FeatureSpec(
    sample_rate=8000, duration=1.0, n_fft=256, hop_length=128, n_mels=24, n_mfcc=12, pool=2
)


@pytest.fixture
def utterances(tmp_path: Path) -> list[Utterance]:
    """Seven files of noise, 0.5 s to 1.5 s."""
    rng = np.random.default_rng(0)
    made = []
    for index in range(7):
        path = tmp_path / "sound" / f"u{index}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, 0.1 * rng.standard_normal(4000 + 1333 * index), 8000)
        made.append(Utterance(path.stem, path, "neutral", "s"))
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were decoded, growing."""
    names: list[str] = []
    original = store.decode_audio

    def counting(data, path, *rest):
        names.append(Path(path).stem)
        return original(data, path, *rest)

    monkeypatch.setattr(store, "decode_audio", counting)
    return names


def stored(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_features_are_those_of_the_extractor(utterances: list[Utterance], folder: Path) -> None:
    result = extract(utterances, SPEC, folder)
    assert result.utterances == tuple(utterances)
    assert result.features.shape == (7, 1, SPEC.n_features, SPEC.n_frames)
    assert result.features.dtype == torch.float32
    assert result.bad == ()
    extractor = FeatureExtractor(SPEC)
    for utterance, features, content in zip(
        utterances, result.features, result.contents, strict=True
    ):
        waveform = fit_length(load_audio(utterance.path, 8000), SPEC.n_samples)
        expected = extractor(torch.from_numpy(waveform[None]))[0]
        assert torch.allclose(features, expected, atol=1e-4)
        assert content == hashlib.sha256(utterance.path.read_bytes()).hexdigest()


def test_second_run_decodes_nothing_and_gives_the_same_bits(
    utterances: list[Utterance], folder: Path, decoded: list[str]
) -> None:
    first = extract(utterances, SPEC, folder)
    assert sorted(decoded) == [u.name for u in utterances]
    decoded.clear()
    second = extract(utterances, SPEC, folder)
    assert decoded == []
    assert torch.equal(first.features, second.features)
    assert first.contents == second.contents


def test_the_key_is_content_not_name(
    utterances: list[Utterance], folder: Path, decoded: list[str]
) -> None:
    first = extract(utterances, SPEC, folder)
    moved = utterances[0].path.rename(utterances[0].path.with_name("moved.wav"))
    decoded.clear()
    again = extract([replace(utterances[0], path=moved, name="moved")], SPEC, folder)
    assert decoded == []
    assert torch.equal(again.features[0], first.features[0])


def test_changed_content_is_not_served_stale(
    utterances: list[Utterance], folder: Path, decoded: list[str]
) -> None:
    first = extract(utterances, SPEC, folder)
    decoded.clear()
    path = utterances[3].path
    stat = path.stat()
    samples, rate = soundfile.read(path)
    soundfile.write(path, samples[::-1], rate)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    second = extract(utterances, SPEC, folder)
    assert path.stat().st_size == stat.st_size
    assert decoded == ["u3"]
    assert not torch.equal(first.features[3], second.features[3])
    assert first.contents[3] != second.contents[3]
    others = [0, 1, 2, 4, 5, 6]
    assert torch.equal(first.features[others], second.features[others])


@pytest.mark.parametrize(
    ("key", "value"),
    [("kind", "log_mel"), ("n_fft", 250), ("hop_length", 130), ("n_mels", 25),
     ("n_mfcc", 11), ("pool", 1), ("duration", 1.001), ("sample_rate", 8001)],
)  # fmt: skip
def test_every_key_of_the_spec_counts(
    utterances: list[Utterance], folder: Path, decoded: list[str], key: str, value: object
) -> None:
    extract(utterances[:2], SPEC, folder)
    decoded.clear()
    settings = SPEC.model_dump() | {key: value}
    if value == "log_mel":
        settings["n_mfcc"] = None
    extract(utterances[:2], FeatureSpec(**settings), folder)
    assert sorted(decoded) == ["u0", "u1"]


def test_version_start_and_end_count(
    utterances: list[Utterance],
    folder: Path,
    decoded: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = extract(utterances[:1], SPEC, folder)
    for stretch in ({"start": 0.1}, {"end": 0.4}, {"start": 0.1, "end": 0.4}):
        decoded.clear()
        part = extract([replace(utterances[0], **stretch)], SPEC, folder)
        assert decoded == ["u0"]
        assert not torch.equal(part.features, whole.features)
    decoded.clear()
    monkeypatch.setattr(store, "FEATURE_CODE_VERSION", store.FEATURE_CODE_VERSION + 1)
    extract(utterances[:1], SPEC, folder)
    assert decoded == ["u0"]


def test_stretches_of_one_file_read_it_once(
    utterances: list[Utterance], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Path] = []
    original = store.read_audio_bytes
    monkeypatch.setattr(store, "read_audio_bytes", lambda p: (reads.append(p), original(p))[1])
    rows = [
        replace(utterances[0], name=f"part{i}", start=0.1 * i, end=0.1 * i + 0.1) for i in range(4)
    ]
    result = extract([rows[0], utterances[1], *rows[1:]], SPEC, folder)
    assert sorted(p.stem for p in reads) == ["u0", "u1"]
    assert [u.name for u in result.utterances] == ["part0", "u1", "part1", "part2", "part3"]
    alone = extract(rows[2:3], SPEC, folder.with_name("other"))
    assert torch.equal(result.features[3], alone.features[0])


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _flip(data: bytes) -> bytes:
    place = len(data) - 200
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize("damage", [_cut, _flip, lambda data: b"", lambda data: b"\x93NUMPY" * 20])
def test_damaged_file_is_computed_again(
    utterances: list[Utterance], folder: Path, decoded: list[str], damage
) -> None:
    first = extract(utterances[:1], SPEC, folder)
    (path,) = stored(folder)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    decoded.clear()
    again = extract(utterances[:1], SPEC, folder)
    assert decoded == ["u0"]
    assert torch.equal(again.features, first.features)
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((1, SPEC.n_features, 3), np.float32),
        np.zeros((1, SPEC.n_features, SPEC.n_frames), np.float64),
        np.float32(0.0),
    ],
)
def test_whole_file_of_another_shape_or_type_is_computed_again(
    utterances: list[Utterance], folder: Path, wrong: np.ndarray
) -> None:
    first = extract(utterances[:1], SPEC, folder)
    (path,) = stored(folder)
    store._write_stored(path, wrong)
    assert torch.equal(extract(utterances[:1], SPEC, folder).features, first.features)


class _MakesFolder:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_nothing_is_unpickled(utterances: list[Utterance], folder: Path, tmp_path: Path) -> None:
    first = extract(utterances[:1], SPEC, folder)
    (path,) = stored(folder)
    np.save(path, np.array([_MakesFolder(tmp_path / "trap")], dtype=object), allow_pickle=True)
    data = path.read_bytes()
    path.write_bytes(data + hashlib.sha256(data).digest())
    assert torch.equal(extract(utterances[:1], SPEC, folder).features, first.features)
    assert not (tmp_path / "trap").exists()


def test_files_lie_in_shards_and_numpy_reads_them(
    utterances: list[Utterance], folder: Path
) -> None:
    result = extract(utterances, SPEC, folder)
    paths = stored(folder)
    assert len(paths) == 7
    assert all(p.parent.name == p.name[:2] and len(p.stem) == 64 for p in paths)
    arrays = [np.load(p, allow_pickle=False).tobytes() for p in paths]
    assert sorted(arrays) == sorted(f.numpy().tobytes() for f in result.features)


@pytest.fixture
def torch_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("torch_threads")
def test_bits_depend_on_nothing_but_the_utterance(
    utterances: list[Utterance], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = FeatureSpec(duration=4.0)
    reference = extract(utterances, spec, folder).features
    for run, (workers, threads) in enumerate([(1, 1), (1, 4), (2, 2), (5, 3)]):
        monkeypatch.setattr(os, "cpu_count", lambda workers=workers: workers)
        torch.set_num_threads(threads)
        order = np.random.default_rng(run).permutation(7)[: 7 - run]
        fresh = folder.with_name(f"store{run}")
        result = extract([utterances[i] for i in order], spec, fresh)
        assert torch.equal(result.features, reference[order]), (workers, threads)
        assert torch.get_num_threads() == threads


@pytest.mark.usefixtures("torch_threads")
def test_each_worker_computes_on_one_thread(
    utterances: list[Utterance], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(3)
    seen: set[tuple[bool, int]] = set()
    original = FeatureExtractor.forward

    def forward(self, waveform):
        main = threading.current_thread() is threading.main_thread()
        seen.add((main, torch.get_num_threads()))
        assert len(waveform) == 1
        return original(self, waveform)

    monkeypatch.setattr(FeatureExtractor, "forward", forward)
    extract(utterances, SPEC, folder)
    assert seen == {(False, 1)}
    assert torch.get_num_threads() == 3


def test_threads_are_given_back_after_an_error(utterances: list[Utterance], folder: Path) -> None:
    before = torch.get_num_threads()
    utterances[0].path.unlink()
    with pytest.raises(AudioError):
        extract(utterances, SPEC, folder)
    assert torch.get_num_threads() == before


def test_on_done_counts_every_utterance_in_the_calling_thread(
    utterances: list[Utterance], folder: Path
) -> None:
    utterances[2].path.unlink()
    threads: list[threading.Thread] = []
    for _ in range(2):
        threads.clear()
        extract(
            utterances,
            SPEC,
            folder,
            skip_bad=True,
            on_done=lambda: threads.append(threading.current_thread()),
        )
        assert threads == [threading.current_thread()] * 7


def test_all_bad_files_are_named_together(utterances: list[Utterance], folder: Path) -> None:
    utterances[1].path.unlink()
    utterances[4].path.write_text("not sound")
    soundfile.write(utterances[6].path, np.zeros(8000), 8000)
    with pytest.raises(AudioError) as caught:
        extract(utterances, SPEC, folder)
    message = str(caught.value)
    head, *lines = message.splitlines()
    assert head.startswith("3 of 7 utterances have unusable audio; ")
    assert "--skip-bad" in head
    reasons = (("u1", "no such file"), ("u4", "cannot be decoded"), ("u6", "is silent"))
    for line, (name, reason) in zip(lines, reasons, strict=True):
        assert line.startswith(f"  {name}: ")
        assert reason in line


def test_long_lists_of_bad_files_are_cut(utterances: list[Utterance], folder: Path) -> None:
    utterances[0].path.unlink()
    many = [dataclasses.replace(utterances[0], name=f"gone {k}") for k in range(150)]
    with pytest.raises(AudioError, match=r"(?s)^150 of 151 .*\n  and 50 more$") as caught:
        extract([*many, utterances[1]], SPEC, folder)
    assert len(str(caught.value).splitlines()) == 102


def test_skip_bad_returns_the_good_ones(utterances: list[Utterance], folder: Path) -> None:
    before = extract(utterances, SPEC, folder)
    utterances[1].path.unlink()
    utterances[4].path.write_text("not sound")
    result = extract(utterances, SPEC, folder, skip_bad=True)
    good = [0, 2, 3, 5, 6]
    assert result.utterances == tuple(utterances[i] for i in good)
    assert torch.equal(result.features, before.features[good])
    assert result.contents == tuple(before.contents[i] for i in good)
    assert [name for name, _ in result.bad] == ["u1", "u4"]
    assert "no such file" in result.bad[0][1]


def test_bad_ones_keep_the_order_asked_for(utterances: list[Utterance], folder: Path) -> None:
    late = [replace(utterances[0], name=f"late{i}", start=100.0 + i) for i in range(2)]
    utterances[1].path.unlink()
    rows = [late[0], utterances[1], utterances[2], late[1]]
    result = extract(rows, SPEC, folder, skip_bad=True)
    assert [name for name, _ in result.bad] == ["late0", "u1", "late1"]
    assert [u.name for u in result.utterances] == ["u2"]


def test_skip_bad_with_nothing_good(utterances: list[Utterance], folder: Path) -> None:
    for utterance in utterances:
        utterance.path.unlink()
    with pytest.raises(AudioError, match=r"7 of 7 .* none is usable"):
        extract(utterances, SPEC, folder, skip_bad=True)


def test_stretch_outside_a_file_is_bad_though_the_file_is_known(
    utterances: list[Utterance], folder: Path
) -> None:
    extract(utterances, SPEC, folder)
    with pytest.raises(AudioError, match="legal: 0 <= start < end"):
        extract([replace(utterances[0], start=100.0)], SPEC, folder)


def test_full_disk(
    utterances: list[Utterance], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(WriteError, match="No space left"):
            extract(utterances, SPEC, folder)
    assert stored(folder) == [], "no part of a file is left"
    assert len(extract(utterances, SPEC, folder).features) == 7


def test_store_below_a_file(utterances: list[Utterance], folder: Path) -> None:
    folder.write_text("in the way")
    with pytest.raises(WriteError):
        extract(utterances, SPEC, folder)


def test_two_processes_fill_one_store(utterances: list[Utterance], folder: Path) -> None:
    code = (
        "import sys, hashlib\n"
        "from pathlib import Path\n"
        "from emodarts.audio.store import extract\n"
        "from emodarts.corpora.utterance import Utterance\n"
        "from emodarts.recipe import FeatureSpec\n"
        "paths = sorted(Path(sys.argv[1]).glob('*.wav'))\n"
        "rows = [Utterance(p.stem, p, 'x', 's') for p in paths]\n"
        "spec = FeatureSpec.model_validate_json(sys.argv[3])\n"
        "features = extract(rows, spec, Path(sys.argv[2])).features\n"
        "print(hashlib.sha256(features.numpy().tobytes()).hexdigest())\n"
    )
    command = [sys.executable, "-c", code, str(utterances[0].path.parent), str(folder)]
    command.append(SPEC.model_dump_json())
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    digests = {process.communicate(timeout=60)[0].strip() for process in both}
    here = extract(utterances, SPEC, folder).features.numpy().tobytes()
    assert digests == {hashlib.sha256(here).hexdigest()}
    assert len(stored(folder)) == 7


def test_default_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EMODARTS_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert default_cache_folder() == tmp_path / "own"
    monkeypatch.setenv("EMODARTS_CACHE", "")
    assert default_cache_folder() == tmp_path / "user" / "emodarts"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / ".cache" / "emodarts"


def test_emodb_twice(emodb_root: Path, folder: Path, decoded: list[str]) -> None:
    paths = sorted(emodb_root.rglob("03*.wav"))[:12]
    rows = [Utterance(p.stem, p, "x", "03") for p in paths]
    first = extract(rows, FeatureSpec(), folder)
    assert first.features.shape == (12, 1, 128, 128)
    assert torch.isfinite(first.features).all()
    decoded.clear()
    assert torch.equal(extract(rows, FeatureSpec(), folder).features, first.features)
    assert decoded == []
