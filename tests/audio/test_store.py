"""Stored features are never stale, never damaged, and bitwise those of the utterance alone."""

from __future__ import annotations

import ast
import dataclasses
import errno
import hashlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
import weakref
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from emodarts import files
from emodarts.audio import contents, entries, store
from emodarts.audio.entries import Entries
from emodarts.audio.features import FeatureExtractor, fit_length
from emodarts.audio.io import load_audio
from emodarts.audio.pieces import piece_starts
from emodarts.audio.store import FeatureSet, Variant, extract, fill, read
from emodarts.audio.survey import check_all
from emodarts.corpora.utterance import Utterance
from emodarts.errors import AudioError, ShapeError, WriteError
from emodarts.recipe import FeatureSpec


def padded_spec(**keys: Any) -> FeatureSpec:
    """Padded with zeros, as tensors with missing values equal none."""
    return FeatureSpec(**{"padding": "zeros", **keys})


SPEC = padded_spec(
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
    original = store.load_audio

    def counting(path, *rest):
        names.append(Path(path).stem)
        return original(path, *rest)

    monkeypatch.setattr(store, "load_audio", counting)
    return names


def by_utterance(result: FeatureSet) -> list[torch.Tensor]:
    """Features (k, C, F, T) of each utterance."""
    return [result.features[result.owners == k] for k in range(len(result.utterances))]


def stored(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.f32"))


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
     ("n_mfcc", 11), ("pool", 1), ("duration", 1.001), ("sample_rate", 8001),
     ("length", "repeat"), ("deltas", 1)],
)  # fmt: skip
def test_every_key_of_the_spec_counts(
    utterances: list[Utterance], folder: Path, decoded: list[str], key: str, value: object
) -> None:
    extract(utterances[:2], SPEC, folder)
    decoded.clear()
    settings = SPEC.model_dump() | {key: value}
    if value == "log_mel":
        del settings["n_mfcc"]
    extract(utterances[:2], padded_spec(**settings), folder)
    assert sorted(decoded) == ["u0", "u1"]


@pytest.mark.parametrize("stretch", [{"start": 0.1}, {"end": 0.4}, {"start": 0.1, "end": 0.4}])
def test_start_and_end_count(
    utterances: list[Utterance], folder: Path, decoded: list[str], stretch: dict[str, float]
) -> None:
    whole = extract(utterances[:1], SPEC, folder)
    decoded.clear()
    part = extract([replace(utterances[0], **stretch)], SPEC, folder)
    assert decoded == ["u0"]
    assert not torch.equal(part.features, whole.features)


def test_version_of_the_feature_code_counts(
    utterances: list[Utterance], folder: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(utterances[:1], SPEC, folder)
    decoded.clear()
    monkeypatch.setattr(entries, "FEATURE_CODE_VERSION", entries.FEATURE_CODE_VERSION + 1)
    extract(utterances[:1], SPEC, folder)
    assert decoded == ["u0"]


def test_stretches_of_one_file_read_it_once(
    utterances: list[Utterance], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Path] = []
    original = store.open_audio
    monkeypatch.setattr(store, "open_audio", lambda p: (reads.append(p), original(p))[1])
    rows = [
        replace(utterances[0], name=f"part{i}", start=0.1 * i, end=0.1 * i + 0.1) for i in range(4)
    ]
    result = extract([rows[0], utterances[1], *rows[1:]], SPEC, folder)
    assert sorted(p.stem for p in reads) == ["u0", "u1"]
    assert [u.name for u in result.utterances] == ["part0", "u1", "part1", "part2", "part3"]
    alone = extract(rows[2:3], SPEC, folder.with_name("other"))
    assert torch.equal(result.features[3], alone.features[0])


def test_stretches_of_a_long_file_take_little_memory(folder: Path, tmp_path: Path) -> None:
    rate, hours = 8000, 3
    noise = 0.1 * np.random.default_rng(0).standard_normal(2 * rate)
    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", rate, 1) as file:
        file.seek(hours * 3600 * rate - len(noise))  # sparse: takes no space on the disk
        file.write(noise)
    assert path.stat().st_size > 170_000_000
    last = hours * 3600.0
    rows = [Utterance(f"u{k}", path, "neutral", "s", last - k, last - k + 1) for k in (1, 2)]
    tracemalloc.start()
    try:
        result = extract(rows, SPEC, folder)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    expected = [load_audio(path, rate, u.start, u.end) for u in rows]
    assert np.allclose(expected[0], noise[rate:], atol=1e-4)
    assert result.contents[0] == files.sha256_of(path)


def test_a_file_that_changes_while_it_is_read_is_refused(
    utterances: list[Utterance], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = store.load_audio

    def appending(path, *rest):
        samples = original(path, *rest)
        with path.open("ab") as file:
            file.write(b"more")
        return samples

    monkeypatch.setattr(store, "load_audio", appending)
    with pytest.raises(AudioError, match=r"u0\.wav: was changed while it was read"):
        extract(utterances[:1], SPEC, folder)
    assert stored(folder) == []


def with_digest(data: bytes) -> bytes:
    """An entry as it is on disk, with its own SHA-256."""
    return data + hashlib.sha256(data).digest()


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


def as_array(path: Path) -> np.ndarray:
    """Pieces (k, C, F, T) of an entry, which two digests of 32 bytes follow."""
    values = np.frombuffer(path.read_bytes()[:-64], "<f4")
    return values.reshape(-1, 1, SPEC.n_features, SPEC.n_frames)


@pytest.mark.parametrize(
    "wrong", [np.zeros((SPEC.n_features, SPEC.n_frames - 1), "<f4"), np.zeros(0, "<f4")]
)
def test_whole_file_of_another_shape_is_computed_again(
    utterances: list[Utterance], folder: Path, wrong: np.ndarray
) -> None:
    first = extract(utterances[:1], SPEC, folder)
    (path,) = stored(folder)
    path.write_bytes(with_digest(wrong.tobytes() + bytes(32)))
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
    path.write_bytes(with_digest(pickle.dumps(_MakesFolder(tmp_path / "trap")) + bytes(32)))
    assert torch.equal(extract(utterances[:1], SPEC, folder).features, first.features)
    assert not (tmp_path / "trap").exists()


def test_files_lie_in_shards_and_hold_the_features_as_they_are(
    utterances: list[Utterance], folder: Path
) -> None:
    result = extract(utterances, SPEC, folder)
    paths = stored(folder)
    assert len(paths) == 7
    assert all(p.parent.name == p.name[:2] and len(p.stem) == 64 for p in paths)
    assert sorted(as_array(p).tobytes() for p in paths) == sorted(
        f.numpy().tobytes() for f in result.features
    )


def test_no_entry_is_parsed(
    utterances: list[Utterance], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parsing in two threads at once fails at random in Python 3.11."""
    first = extract(utterances, SPEC, folder)
    monkeypatch.setattr(ast, "parse", lambda *_, **__: pytest.fail("parsed"))
    assert torch.equal(extract(utterances, SPEC, folder).features, first.features)


@pytest.fixture
def torch_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("torch_threads")
@pytest.mark.parametrize("length", ["pad", "segments"])
def test_bits_depend_on_nothing_but_the_utterance(
    utterances: list[Utterance], folder: Path, monkeypatch: pytest.MonkeyPatch, length: str
) -> None:
    spec = padded_spec(duration=4.0 if length == "pad" else 0.7, length=length)
    reference = by_utterance(extract(utterances, spec, folder))
    for run, (workers, threads) in enumerate([(1, 1), (1, 4), (2, 2), (5, 3)]):
        monkeypatch.setattr(os, "cpu_count", lambda workers=workers: workers)
        torch.set_num_threads(threads)
        order = np.random.default_rng(run).permutation(7)[: 7 - run]
        fresh = folder.with_name(f"store{run}")
        result = extract([utterances[i] for i in order], spec, fresh)
        found = by_utterance(result)
        assert len(found) == 7 - run
        for features, row in zip(found, order, strict=True):
            assert torch.equal(features, reference[row]), (workers, threads)
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
        assert line.startswith(f"  {folder.parent}")
        assert f"/{name}.wav: {reason}" in line


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
    with pytest.raises(AudioError, match="allowed: 0 <= start < end"):
        extract([replace(utterances[0], start=100.0)], SPEC, folder)


def test_full_disk(
    utterances: list[Utterance], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(WriteError, match="No space left"):
            extract(utterances, SPEC, folder)
    assert [p for p in folder.rglob("*") if p.is_file()] == [], "no part of a file is left"
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


def test_a_killed_fill_goes_on(
    utterances: list[Utterance], folder: Path, decoded: list[str]
) -> None:
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from emodarts.audio.store import fill\n"
        "from emodarts.corpora.utterance import Utterance\n"
        "from emodarts.recipe import FeatureSpec\n"
        "rows = [Utterance(p.stem, p, 'x', 's') for p in sorted(Path(sys.argv[1]).glob('*.wav'))]\n"
        "os.cpu_count, left = (lambda: 1), [3]\n"
        "def on_done():\n"
        "    left[0] -= 1\n"
        "    left[0] or os.kill(os.getpid(), signal.SIGKILL)\n"
        "spec = FeatureSpec.model_validate_json(sys.argv[3])\n"
        "fill(rows, spec, Path(sys.argv[2]), on_done=on_done)\n"
    )
    place = str(utterances[0].path.parent)
    command = [sys.executable, "-c", code, place, str(folder), SPEC.model_dump_json()]
    assert subprocess.run(command, timeout=60).returncode == -signal.SIGKILL
    kept = len(stored(folder))
    assert 3 <= kept < 7, "work runs only a little ahead of what is taken"
    resumed = extract(utterances, SPEC, folder)
    assert sorted(decoded) == [u.name for u in utterances[kept:]]
    assert torch.equal(resumed.features, extract(utterances, SPEC, folder / "new").features)


def test_fill_stores_what_extract_serves(
    utterances: list[Utterance], folder: Path, decoded: list[str]
) -> None:
    utterances[2].path.write_text("not sound")
    done: list[int] = []
    filled = fill(utterances, SPEC, folder, skip_bad=True, on_done=lambda: done.append(1))
    assert len(done) == 7
    assert len(stored(folder)) == 6
    decoded.clear()
    result = extract(utterances, SPEC, folder, skip_bad=True)
    assert decoded == ["u2"], "only what cannot be stored is tried again"
    assert filled.contents == (*result.contents[:2], None, *result.contents[2:])
    assert filled.bad == result.bad
    assert [name for name, _ in filled.bad] == ["u2"]
    with pytest.raises(AudioError, match=r"1 of 7 .* --skip-bad"):
        fill(utterances, SPEC, folder)


def test_memory_is_that_of_a_few_batches(
    utterances: list[Utterance], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a slow taker, neither waveforms nor features of a fill or an extract pile up."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    rows = [replace(utterances[6], name=f"r{k}", start=0.001 * k) for k in range(120)]
    alive: Counter[str] = Counter()
    most: Counter[str] = Counter()
    lock = threading.RLock()

    def gone(kind: str) -> None:
        with lock:
            alive[kind] -= 1

    def watch(kind, array):
        with lock:
            alive[kind] += 1
            most[kind] = max(most[kind], alive[kind])
        weakref.finalize(array, gone, kind)
        return array

    decode, forward, stored_of = store.load_audio, FeatureExtractor.forward, Entries.read
    monkeypatch.setattr(store, "load_audio", lambda *a: watch("waveforms", decode(*a)))
    monkeypatch.setattr(FeatureExtractor, "forward", lambda *a: watch("features", forward(*a)))
    fill(rows, SPEC, folder, on_done=lambda: time.sleep(0.001))
    assert len(stored(folder)) == 120
    assert 1 <= most["waveforms"] <= 2
    assert 1 <= most["features"] <= 2

    def read_entry(*given):
        entry = stored_of(*given)
        watch("stored", entry.features)
        return entry

    monkeypatch.setattr(Entries, "read", read_entry)
    fill(rows, SPEC, folder, on_done=lambda: time.sleep(0.001))
    assert 1 <= most["stored"] <= 2
    extract(rows, SPEC, folder, on_done=lambda: time.sleep(0.001))
    assert 1 <= most["stored"] <= 2 * 2 + 1


def test_repeat_fills_the_input_with_the_sound(utterances: list[Utterance], folder: Path) -> None:
    spec = SPEC.model_copy(update={"length": "repeat"})
    result = extract(utterances, spec, folder)
    waveform = load_audio(utterances[0].path, 8000)
    assert len(waveform) == 4000
    tiled = torch.from_numpy(np.concatenate([waveform, waveform])[None])
    assert torch.allclose(result.features[:1], FeatureExtractor(spec)(tiled), atol=1e-4)
    padded = extract(utterances, SPEC, folder)
    assert torch.equal(result.features[3:], padded.features[3:]), "8000 samples or more: cut"
    assert torch.equal(result.owners, torch.arange(7))


def test_segments_are_pieces_with_their_owners(utterances: list[Utterance], folder: Path) -> None:
    spec = SPEC.model_copy(update={"length": "segments", "duration": 0.5})
    lengths = [4000, 5333, 6666, 7999, 9332, 10665, 11998]
    counts = [len(piece_starts(n, 4000)) for n in lengths]
    assert counts == [1, 2, 3, 3, 4, 5, 5]
    # Stretches of two files in turn, and one that is shorter than a piece.
    rows = [*utterances, replace(utterances[0], name="short", end=0.3), utterances[6]]
    rows[-1] = replace(utterances[6], name="late", start=0.6)
    utterances[2].path.unlink()
    for _ in range(2):  # computed, then read
        result = extract(rows, spec, folder, skip_bad=True)
        assert [u.name for u in result.utterances] == [u.name for u in rows if u.name != "u2"]
        found = by_utterance(result)
        assert result.owners.dtype == torch.int64
        assert (result.owners.diff() >= 0).all()
        extractor = FeatureExtractor(spec)
        for utterance, features in zip(result.utterances, found, strict=True):
            waveform = load_audio(utterance.path, 8000, utterance.start, utterance.end)
            starts = piece_starts(len(waveform), 4000)
            assert len(features) == len(starts), utterance.name
            for first, one in zip(starts, features, strict=True):
                piece = fit_length(waveform[first : first + 4000], 4000)
                expected = extractor(torch.from_numpy(piece[None]))[0]
                assert torch.allclose(one, expected, atol=1e-4)
    assert len(stored(folder)) == 8, "one file holds all pieces of an utterance"


def test_variants_are_stored_apart_and_drawn_from_their_own_seed(
    utterances: list[Utterance], folder: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SPEC.model_copy(update={"length": "segments", "duration": 0.5})
    seen: list[tuple[int, int, int]] = []

    def noise(waveform: np.ndarray, rate: int, seed: int) -> np.ndarray:
        seen.append((len(waveform), rate, seed))
        drawn = np.random.default_rng(seed).standard_normal(len(waveform) // 2)
        return waveform[: len(drawn)] + 0.1 * drawn.astype(np.float32)

    variant = Variant({"noise": 0.1, "copy": 1}, noise)
    plain = extract(utterances, spec, folder)
    varied = extract(utterances, spec, folder, variant=variant)
    assert torch.equal(varied.owners, plain.owners)
    assert not torch.isclose(varied.features, plain.features).all(dim=(1, 2, 3)).any()
    assert all(length == 4000 and rate == 8000 for length, rate, _ in seen)
    assert len({seed for *_, seed in seen}) == len(plain.owners), "no piece shares its noise"
    assert len(stored(folder)) == 14

    decoded.clear()
    assert torch.equal(extract(utterances, spec, folder, variant=variant).features, varied.features)
    assert torch.equal(extract(utterances, spec, folder).features, plain.features)
    assert decoded == []
    first = {seed for *_, seed in seen}
    seen.clear()
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    again = extract(utterances[::-1], spec, folder.with_name("other"), variant=variant)
    assert {seed for *_, seed in seen} == first
    for one, other in zip(by_utterance(again), by_utterance(varied)[::-1], strict=True):
        assert torch.equal(one, other)
    seen.clear()
    extract(utterances, spec, folder, variant=Variant({"noise": 0.1, "copy": 2}, noise))
    assert first.isdisjoint(seed for *_, seed in seen)


def test_a_variant_alters_sound_before_it_is_padded(
    utterances: list[Utterance], folder: Path
) -> None:
    lengths: list[int] = []

    def note(waveform: np.ndarray, rate: int, seed: int) -> np.ndarray:
        lengths.append(len(waveform))
        return waveform

    same = extract(utterances, SPEC, folder, variant=Variant({}, note))
    assert sorted(lengths) == [4000, 5333, 6666, 7999, 9332, 10665, 11998]
    assert torch.equal(same.features, extract(utterances, SPEC, folder).features)


@pytest.mark.parametrize(
    "made",
    [np.zeros((1, 10), np.float32), np.zeros(0, np.float32), np.zeros(10), np.float32([np.nan])],
)
def test_a_variant_that_makes_no_sound_is_refused(
    utterances: list[Utterance], folder: Path, made: np.ndarray
) -> None:
    with pytest.raises(ShapeError, match=r"utterance 'u0', variant \{'k': 1\}.*allowed: finite"):
        extract(utterances[:1], SPEC, folder, variant=Variant({"k": 1}, lambda *_: made))
    assert stored(folder) == []


def test_batches_of_an_accelerator_have_one_size(
    utterances: list[Utterance], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = extract(utterances, SPEC, folder)
    sizes: list[int] = []
    original = FeatureExtractor.forward

    def forward(self, waveform):
        sizes.append(len(waveform))
        return original(self, waveform)

    monkeypatch.setattr(FeatureExtractor, "forward", forward)
    monkeypatch.setattr(store, "batch_size", lambda device: 3)
    together = folder.with_name("together")
    extract(utterances[1:2], SPEC, together)
    utterances[3].path.write_text("not sound")
    result = extract(utterances, SPEC, together, skip_bad=True)
    assert set(sizes) == {3}
    assert [u.name for u in result.utterances] == ["u0", "u1", "u2", "u4", "u5", "u6"]
    assert torch.allclose(result.features, alone.features[[0, 1, 2, 4, 5, 6]], atol=1e-4)


def test_kinds_of_device_are_kept_apart(folder: Path, utterances: list[Utterance]) -> None:
    result = fill(utterances[:1], SPEC, folder)
    with pytest.raises(AudioError, match="is missing"):
        read(utterances[:1], result.contents, "", SPEC, folder, device="meta")


def test_what_decides_an_extractor_counts(
    utterances: list[Utterance], folder: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert extract(utterances[:1], SPEC, folder).fingerprint == ""
    original = FeatureExtractor.__init__

    def made(self, spec):
        original(self, spec)
        self.fingerprint = "another checkpoint"

    monkeypatch.setattr(FeatureExtractor, "__init__", made)
    decoded.clear()
    assert extract(utterances[:1], SPEC, folder).fingerprint == "another checkpoint"
    assert decoded == ["u0"]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the audio files that were read, growing."""
    names: list[str] = []
    original = store.open_audio
    monkeypatch.setattr(store, "open_audio", lambda p: (names.append(p.stem), original(p))[1])
    return names


def test_unchanged_files_are_not_read(
    utterances: list[Utterance], folder: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = extract(utterances, SPEC, folder)
    assert len(opened) == 7
    extract(utterances, SPEC, folder)
    assert len(opened) == 14, "files of the last two seconds might change unseen"
    monkeypatch.setattr(contents, "SETTLED_NS", -(10**15))
    extract(utterances, SPEC, folder)
    opened.clear()
    result = extract(utterances, SPEC, folder)
    assert opened == []
    assert torch.equal(result.features, first.features)
    assert result.contents == first.contents
    path = utterances[3].path
    stat = path.stat()
    samples, rate = soundfile.read(path)
    soundfile.write(path, samples[::-1], rate)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_ino) == (stat.st_size, stat.st_ino)
    changed = extract(utterances, SPEC, folder)
    assert opened == ["u3"]
    assert changed.contents[3] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert not torch.equal(changed.features[3], first.features[3])
    opened.clear()
    deep = padded_spec(**SPEC.model_dump() | {"pool": 1})
    extract(utterances[:1], deep, folder)
    assert opened == ["u0"], "features that are missing need the sound"


def test_a_wrong_memory_of_a_content_serves_nothing_wrong(
    utterances: list[Utterance], folder: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "SETTLED_NS", -(10**15))
    first = extract(utterances[:1], SPEC, folder)
    (remembered,) = (folder / "contents").iterdir()
    remembered.write_text(remembered.read_text().replace(first.contents[0], "0" * 64))
    opened.clear()
    again = extract(utterances[:1], SPEC, folder)
    assert opened == ["u0"]
    assert torch.equal(again.features, first.features)
    assert again.contents == first.contents


HALVED = Variant({"gain": 0.5}, lambda waveform, rate, seed: 0.5 * waveform)


@pytest.mark.parametrize("variant", [None, HALVED], ids=["plain", "varied"])
@pytest.mark.parametrize("length", ["pad", "segments"])
def test_read_gives_what_extract_gave_without_any_audio(
    utterances: list[Utterance], folder: Path, length: str, variant: Variant | None
) -> None:
    spec = SPEC.model_copy(update={"length": length, "duration": 0.5})
    rows = [*utterances, replace(utterances[6], name="late", start=0.6)]
    filled = fill(rows, spec, folder, variant=variant)
    made = extract(rows, spec, folder, variant=variant)
    assert (filled.contents, filled.fingerprint) == (made.contents, made.fingerprint)
    sounds = check_all(rows).sounds
    assert filled.sounds == sounds
    assert fill(rows, spec, folder, variant=variant).sounds == sounds  # from the store
    for utterance in utterances:
        utterance.path.unlink()
    without = [replace(u, path=Path()) for u in rows]
    found = read(without, made.contents, made.fingerprint, spec, folder, variant=variant)
    assert torch.equal(found.features, made.features)
    assert torch.equal(found.owners, made.owners)
    assert found.owners.dtype == made.owners.dtype
    assert found.contents == made.contents
    assert found.fingerprint == made.fingerprint
    assert found.utterances == tuple(without)


def test_read_gives_the_order_asked_for(utterances: list[Utterance], folder: Path) -> None:
    spec = SPEC.model_copy(update={"length": "segments", "duration": 0.5})
    made = extract(utterances, spec, folder)
    found = read(utterances[::-1], made.contents[::-1], "", spec, folder)
    for one, other in zip(by_utterance(found), by_utterance(made)[::-1], strict=True):
        assert torch.equal(one, other)


def test_read_names_all_that_is_missing_or_damaged(
    utterances: list[Utterance], folder: Path
) -> None:
    made = extract(utterances, SPEC, folder)
    shelf = Entries(folder, SPEC, made.fingerprint, "cpu", "")
    gone, broken = (shelf.path(made.contents[row], utterances[row]) for row in (1, 4))
    gone.unlink()
    broken.write_bytes(_flip(broken.read_bytes()))
    with pytest.raises(AudioError) as caught:
        read(utterances, made.contents, made.fingerprint, SPEC, folder)
    head, *lines = str(caught.value).splitlines()
    assert head == (
        f"the feature store {folder} lacks 2 of 7 utterances; run the command that computed them "
        "again, with the same cache folder:"
    )
    assert lines == [f"  u1: {gone} is missing", f"  u4: {broken} is damaged"]


@pytest.mark.parametrize(
    "change",
    [
        {"spec": padded_spec(**SPEC.model_dump() | {"pool": 1})},
        {"fingerprint": "another checkpoint"},
        {"variant": HALVED},
        {"contents": ["0" * 64]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_read_serves_nothing_that_was_computed_otherwise(
    utterances: list[Utterance], folder: Path, change: dict[str, object]
) -> None:
    made = extract(utterances[:1], SPEC, folder)
    same = {"contents": made.contents, "fingerprint": "", "spec": SPEC, "folder": folder}
    assert torch.equal(read(utterances[:1], **same).features, made.features)
    with pytest.raises(AudioError, match="lacks 1 of 1 utterances"):
        read(utterances[:1], **same | change)


def test_emodb_twice(emodb_root: Path, folder: Path, decoded: list[str]) -> None:
    paths = sorted(emodb_root.rglob("03*.wav"))[:12]
    rows = [Utterance(p.stem, p, "x", "03") for p in paths]
    first = extract(rows, padded_spec(), folder)
    assert first.features.shape == (12, 1, 128, 128)
    assert torch.isfinite(first.features).all()
    decoded.clear()
    assert torch.equal(extract(rows, padded_spec(), folder).features, first.features)
    assert decoded == []
