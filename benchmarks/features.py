"""Speed and memory of feature extraction: against librosa, over a warm store, over a large corpus.

    python benchmarks/features.py --root DIR [--json FILE]

`DIR` holds sound files, e.g. those of EmoDB. Both sides start from the same decoded samples and
use the same cores: librosa in as many threads or processes as there are cores, whichever is
faster. Measurements take turns, so that what else the machine does meets all of them; a ratio is
between neighbours in time. Memory is that of a fresh process that fills a store.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from emodarts.audio.features import FeatureExtractor, fit_length
from emodarts.audio.io import load_audio
from emodarts.audio.store import extract, fill
from emodarts.corpora.folder import AUDIO_SUFFIXES
from emodarts.corpora.utterance import Utterance
from emodarts.recipe import FeatureSpec, load_recipe
from emodarts.runtime import resolve_device
from measure import MIB, in_fresh_process, in_turn, parser, seconds, show, size_of, spread, write

SPECS = {"paper": FeatureSpec(), "default": load_recipe("default").features}
CORES = os.cpu_count() or 1
STUB_FILES = 20
#: Files at most, repeats, stubs.
SIZES = {"full": (None, 7, 20000), "quick": (60, 3, 1000), "small": (4, 1, 20)}

Waveforms = list[NDArray[np.float32]]


def by_librosa(waveform: NDArray[np.float32], spec: FeatureSpec) -> NDArray[np.float32]:
    """The features of ``spec`` as librosa computes them."""
    keys = {name: getattr(spec, name) for name in ("n_fft", "win_length", "hop_length", "n_mels")}
    keys |= {"sr": spec.sample_rate, "fmin": spec.fmin, "fmax": spec.fmax, "pad_mode": "constant"}
    if spec.kind == "mfcc":
        maps = librosa.feature.mfcc(y=waveform, n_mfcc=spec.n_features, **keys)
    else:
        maps = librosa.power_to_db(librosa.feature.melspectrogram(y=waveform, **keys))
    n_frames = maps.shape[1] // spec.pool
    groups = maps[:, : n_frames * spec.pool].reshape(len(maps), n_frames, spec.pool)
    result: NDArray[np.float32] = groups.max(axis=2) if spec.pool_by == "max" else groups.mean(2)
    return result


def decode(paths: Sequence[Path], spec: FeatureSpec) -> Waveforms:
    """Samples of all files at the length of the input."""
    return [fit_length(load_audio(path, spec.sample_rate), spec.n_samples) for path in paths]


_of_process: tuple[Waveforms, FeatureSpec] | None = None


def begin_process(paths: Sequence[Path], spec: FeatureSpec) -> None:
    """Decode before the clock runs, so that no samples travel between processes."""
    global _of_process
    threadpool_limits(1)
    _of_process = decode(paths, spec), spec


def in_process(index: int) -> NDArray[np.float32]:
    """Features of one waveform of this process."""
    if _of_process is None:
        raise RuntimeError("begin_process comes first")
    waveforms, spec = _of_process
    return by_librosa(waveforms[index], spec)


def measure_decoded(paths: Sequence[Path], spec: FeatureSpec, repeats: int) -> dict[str, Any]:
    """Files per second from decoded audio, and the ratio to librosa."""
    waveforms = decode(paths, spec)
    extractor = FeatureExtractor(spec).eval()

    def ours(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            result: NDArray[np.float32] = extractor(torch.from_numpy(waveform[None])).numpy()
        return result

    def theirs(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        return by_librosa(waveform, spec)

    difference = float(np.abs(ours(waveforms[0])[0, 0] - theirs(waveforms[0])).max())
    context = multiprocessing.get_context("spawn")
    torch.set_num_threads(1)
    with (
        threadpool_limits(1),
        ThreadPoolExecutor(CORES) as threads,
        context.Pool(CORES, begin_process, (paths, spec)) as processes,
    ):
        ways: dict[str, Callable[[], object]] = {
            "emodarts": lambda: list(threads.map(ours, waveforms)),
            "librosa threads": lambda: list(threads.map(theirs, waveforms)),
            "librosa processes": lambda: processes.map(in_process, range(len(paths)), 8),
        }
        rows = in_turn(ways, repeats)
    ratios = [min(r["librosa threads"], r["librosa processes"]) / r["emodarts"] for r in rows]
    return {
        "files_per_s": {n: len(paths) / statistics.median(r[n] for r in rows) for n in ways},
        "ratio_to_librosa": spread(ratios),
        "largest_difference": difference,
    }


def measure_store(
    paths: Sequence[Path], spec: FeatureSpec, repeats: int, device: torch.device
) -> dict[str, Any]:
    """Files per second from files into a new store, and ms per utterance out of a full one."""
    rows = [Utterance(str(path), path, None, None) for path in paths]
    cold, warm, unremembered = [], [], []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            cold.append(len(rows) / seconds(lambda f=folder: fill(rows, spec, f, device=device)))

            def read(store: Path = folder) -> object:
                return extract(rows, spec, store, device=device)

            warm.append(1e3 * seconds(read) / len(rows))
            shutil.rmtree(folder / "contents", ignore_errors=True)
            unremembered.append(1e3 * seconds(read) / len(rows))
    return {
        "fill_files_per_s": spread(cold),
        "warm_ms": spread(warm),
        "warm_ms_every_file_hashed": spread(unremembered),
    }


def fill_stubs(paths: Sequence[Path], n: int) -> float:
    """Seconds of a fill of ``n`` stub utterances.

    Every stub is a link of its own to one of a few files, and a stretch of its own.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sound").mkdir()
        rows = []
        for k in range(n):
            link = folder / "sound" / f"{k:06d}{paths[k % len(paths)].suffix}"
            link.symlink_to(paths[k % len(paths)].resolve())
            rows.append(Utterance(link.stem, link, None, None, start=1e-5 * (k // len(paths))))
        return seconds(lambda: fill(rows, SPECS["default"], folder / "store"))


def measure_memory(paths: Sequence[Path], sizes: Sequence[int]) -> list[dict[str, float]]:
    """Peak memory for each number of utterances, each in a process of its own."""
    found = []
    for n in sizes:
        took, memory = in_fresh_process(fill_stubs, paths[:STUB_FILES], n)
        found.append({"utterances": n, "peak_MiB": memory["peak"] / MIB, "seconds": took})
    return found


def main() -> None:
    """Print the tables, and write them as JSON if asked."""
    taking = parser(__doc__)
    taking.add_argument("--root", type=Path, required=True, metavar="DIR")
    taking.add_argument("--repeats", type=int)
    taking.add_argument("--stubs", type=int, metavar="N")
    taking.add_argument("--device", default="cpu", help="of the store's extraction")
    arguments = taking.parse_args()
    most, repeats, stubs = SIZES[size_of(arguments)]
    repeats, stubs = arguments.repeats or repeats, arguments.stubs or stubs
    device = resolve_device(arguments.device)
    paths = sorted(p for p in arguments.root.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES)
    paths = paths[:most]
    if not paths:
        taking.error(f"{arguments.root} holds no audio file")

    result: dict[str, Any] = {"files": len(paths), "repeats": repeats}
    result["memory"] = measure_memory(paths, sorted({min(1000, stubs), stubs}))
    for row in result["memory"]:
        print(
            f"fill of {row['utterances']:6} stubs: peak {row['peak_MiB']:.0f} MiB, "
            f"{row['seconds']:.0f} s"
        )
    for name, spec in SPECS.items():
        found = measure_decoded(paths, spec, repeats)
        found |= measure_store(paths, spec, repeats, device)
        result[name] = found
        print(f"{name}: {len(paths)} files, {CORES} cores, median of {repeats} (range)")
        for way, rate in found["files_per_s"].items():
            print(f"  {way + ', from decoded audio':36} {rate:8.0f} files/s")
        print(f"  {'ratio to the faster librosa':36} {show(found['ratio_to_librosa'])}")
        print(f"  {'fill, from files to disk':36} {show(found['fill_files_per_s'], 0)} files/s")
        print(f"  {'warm store':36} {show(found['warm_ms'])} ms/utterance")
        print(
            f"  {'warm store, every file hashed':36} "
            f"{show(found['warm_ms_every_file_hashed'])} ms/utterance"
        )
    write("features", arguments, result, device, ["librosa"])


if __name__ == "__main__":
    main()
