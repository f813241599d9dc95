"""A search of a large corpus within a fixed memory: features stay on the disk.

    python benchmarks/large.py [--utterances 20000] [--budget 1024] [--json FILE] [--keep DIR]

Makes a feature store of made-up maps (64 bands x 257 frames, 64 KiB an utterance), then searches
one epoch of first order with a small supernet, from the store to the genotype, in a process of its
own whose data segment is limited to the budget (RLIMIT_DATA, in MiB, libraries included): memory
beyond it cannot be had. Prints the peak of what the process had to itself (RssAnon) and of all that
was resident (VmHWM); the rest of the latter are pages of the mapped file, which the system takes
back when it needs them. With --in-memory the same search has its features in memory and may fail.
"""

from __future__ import annotations

import hashlib
import resource
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emodarts.audio.entries import Entries, Entry
from emodarts.corpora.utterance import Utterance
from emodarts.dataset import Listing, load_dataset
from emodarts.errors import EmodartsError
from emodarts.fast import keep_freed_memory
from emodarts.layout import TrialFolder
from emodarts.progress import Lines
from emodarts.recipe import SYSTEMS, Recipe
from emodarts.runtime import configure
from emodarts.splits import Parts
from emodarts.systems.system import FitTask
from measure import MIB, in_fresh_process, parser, size_of, write

CLASSES = ("anger", "happiness", "neutral", "sadness")
FINGERPRINT = "made up"


def recipe_with(features: str) -> Recipe:
    """A small supernet; where the features are is ``features``."""
    return Recipe.from_dict(
        {
            "features": {
                **{"kind": "log_mel", "sample_rate": 16000, "duration": 2.56, "n_mels": 64},
                **{"n_fft": 512, "hop_length": 160, "pool": 1},
            },
            "network": {
                "stem": {"channels": [2, 2], "frequency_strides": [4, 4], "time_strides": [4, 4]},
                "cnn": {"cells": 3, "nodes": 1, "channels": 2},
                "seqnn": {"mode": "none"},
            },
            "search": {
                "order": 1,
                "epochs": 1,
                "warmup": "fixed",
                "warmup_epochs": 0,
                "batch_size": 64,
            },
            "compute": {"device": "cpu", "threads": 1, "features": features, "fast": False},
        }
    )


def listing_of(n: int) -> Listing:
    """Made-up utterances of 100 speakers."""
    utterances = tuple(
        Utterance(
            name=f"u{k:06d}",
            path=Path(),
            label=CLASSES[k % len(CLASSES)],
            speaker=f"s{k // len(CLASSES) % 100:02d}",
        )
        for k in range(n)
    )
    contents = tuple(hashlib.sha256(u.name.encode()).hexdigest() for u in utterances)
    return Listing(
        "made up", "", CLASSES, utterances, contents, contents, {"features": FINGERPRINT}
    )


def fill(listing: Listing, recipe: Recipe, store: Path) -> tuple[int, ...]:
    """Write the features of all utterances; returns the shape of one."""
    entries = Entries(store, recipe.features, FINGERPRINT, "cpu", "")
    generator = np.random.default_rng(0)
    for k, (utterance, content) in enumerate(
        zip(listing.utterances, listing.contents, strict=True)
    ):
        if entries.path(content, utterance).exists():
            continue
        features = generator.standard_normal((1, *entries.shape), np.float32)
        features[:, :, 16 * (k % len(CLASSES))] += 2.0
        entries.write(content, utterance, Entry(features, content))
    return entries.shape


def search(folder: str, n: int, features: str, budget_mib: int) -> dict[str, Any]:
    """Search within the budget; what it took, or why it failed."""
    keep_freed_memory()
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (budget_mib * MIB, budget_mib * MIB))
    peak, ended = [0], threading.Event()
    sampler = threading.Thread(target=_sample, args=(peak, ended), daemon=True)
    sampler.start()
    recipe, listing = recipe_with(features), listing_of(n)
    device = configure(recipe.compute)
    begun = time.perf_counter()
    found: dict[str, Any] = {"failed": None}
    try:
        data = load_dataset(recipe, listing, Path(folder) / "store", device)
        copied = time.perf_counter()
        half = n // 2
        task = FitTask(
            recipe=recipe,
            data=data,
            parts=Parts(
                search_weights=tuple(range(half)),
                search_alphas=tuple(range(half, n)),
                train=tuple(range(n)),
                validation=(),
                test=(),
            ),
            seed=0,
            folder=TrialFolder(Path(folder) / features),
            device=device,
            progress=Lines(),
            title=features,
        )
        SYSTEMS["searched"].build(recipe.system).search(task)
        found |= {"copy_s": copied - begun, "search_s": time.perf_counter() - copied}
    except (MemoryError, RuntimeError, EmodartsError) as error:
        found["failed"] = str(error).splitlines()[0]
    ended.set()
    sampler.join()
    return {**found, "own_bytes": peak[0]}


def _sample(peak: list[int], ended: threading.Event) -> None:
    while not ended.wait(0.05):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("RssAnon:"):
                peak[0] = max(peak[0], int(line.split()[1]) * 1024)


def main() -> None:
    """Print the peaks; write them as JSON if asked."""
    taking = parser(__doc__)
    taking.add_argument("--utterances", type=int, default=20_000)
    taking.add_argument("--budget", type=int, default=1024, metavar="MIB")
    taking.add_argument("--in-memory", action="store_true")
    taking.add_argument("--keep", type=Path, metavar="DIR", help="for the store, to use it again")
    arguments = taking.parse_args()
    sizes = {"full": arguments.utterances, "quick": 2000, "small": 64}
    n = sizes[size_of(arguments)]
    place = "memory" if arguments.in_memory else "mapped"
    folder = arguments.keep or Path(tempfile.mkdtemp())
    try:
        listing, recipe = listing_of(n), recipe_with(place)
        shape = fill(listing, recipe, folder / "store")
        of_features = 4 * n * int(np.prod(shape))
        print(
            f"{n:,} utterances, features {of_features / MIB:,.0f} MiB, "
            f"budget {arguments.budget} MiB"
        )
        found, process = in_fresh_process(search, str(folder), n, place, arguments.budget)
    finally:
        if arguments.keep is None:
            shutil.rmtree(folder)
    if found["failed"] is not None:
        print(f"{place}: failed: {found['failed']}")
    else:
        print(
            f"{place}: copied in {found['copy_s']:.1f} s, searched in {found['search_s']:.1f} s; "
            f"peak {found['own_bytes'] / MIB:,.0f} MiB of its own, "
            f"{process['peak'] / MIB:,.0f} MiB resident"
        )
    measured = {**found, "feature_bytes": of_features, "process_bytes": process}
    write("large", arguments, measured, torch.device("cpu"))


if __name__ == "__main__":
    main()
