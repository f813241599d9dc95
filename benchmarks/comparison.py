"""All built-in recipes at a size for one core, and a grid that runs them.

    python benchmarks/comparison.py OUT --root EMODB
    emodarts grid OUT/grid.yaml --out OUT/runs
    emodarts report OUT/runs

The recipes are written to ``OUT/recipes``. All have about the same number of training steps, the
same channels, widths and nodes where they have such, one network that answers at one speed, and as
many bands and frames as their features allow. ``--size tiny`` is for tests and says nothing of the
systems.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from emodarts import files
from emodarts.recipe import Recipe, builtin_recipes, load_recipe

#: Protocol ``paper`` trains networks on 30 % of the utterances: so many times the epochs make as
#: many steps as others have.
PAPER_EPOCHS = 4
#: Not run: its weights are the user's; and the small form of another recipe, and the toy's.
LEFT_OUT = ("frozen-encoder", "quick", "demo")


@dataclass(frozen=True)
class Size:
    """What recipes are reduced to, where they have more.

    Attributes
    ----------
    duration : of the features in seconds.
    bands : mel bands and coefficients.
    n_fft : of spectrograms, which have half as many bins.
    frames : that more are joined to.
    cells : of the CNN.
    channels, nodes, width : of cells, and of recurrent layers.
    search_epochs, training_epochs : of one network.
    candidates : that a search trains one by one, each for ``candidate_epochs``.
    """

    duration: float
    bands: int
    n_fft: int
    frames: int
    cells: int
    channels: int
    nodes: int
    width: int
    search_epochs: int
    training_epochs: int
    candidates: int
    candidate_epochs: int


SIZES = {
    "core": Size(3.0, 40, 256, 50, 8, 4, 2, 16, 4, 20, 4, 5),
    "tiny": Size(1.0, 16, 256, 25, 3, 4, 1, 4, 1, 1, 2, 1),
}


def compared_recipes() -> list[str]:
    """Names of the recipes that are compared."""
    return [name for name in builtin_recipes() if name not in LEFT_OUT]


def smaller(recipe: Recipe, size: Size) -> dict[str, Any]:
    """Dotted keys and values that bring a recipe to a size."""
    value = recipe.to_dict()
    changes: dict[str, Any] = {}

    def at_most(key: str, limit: float) -> None:
        found = _at(value, key)
        if isinstance(found, int | float) and found > limit:
            changes[key] = limit

    for section in ("features", "system.rnn_features"):
        if _at(value, f"{section}.kind") != "functionals":
            at_most(f"{section}.duration", size.duration)
    for key in ("n_mels", "n_mfcc"):
        at_most(f"features.{key}", size.bands)
    if value["features"]["kind"] == "stft":
        at_most("features.n_fft", size.n_fft)
        at_most("features.win_length", size.n_fft)
    elif value["features"]["kind"] == "log_mel":
        # The windows of the table in docs/results.md; `default` has longer ones.
        changes |= {"features.n_fft": 512, "features.win_length": 400}
    elif value["features"]["kind"] == "mfcc":
        changes |= {
            "features.sample_rate": 16000,
            "features.n_fft": 1024,
            "features.hop_length": 256,
        }
    at_most("network.cnn.channels", size.channels)
    at_most("network.cnn.nodes", size.nodes)
    at_most("network.cnn.cells", size.cells)
    at_most("network.seqnn.cells", 1)
    at_most("network.seqnn.nodes", size.nodes)
    at_most("network.seqnn.width", size.width)
    at_most("system.width", size.width)
    stages = len(_at(value, "search.stages") or ())
    at_most("search.epochs", max(size.search_epochs, stages))
    if "search" in value:
        changes |= _smaller_search(value["search"], size)
    paper = value["evaluation"]["protocol"] == "paper"
    at_most("training.epochs", size.training_epochs * (PAPER_EPOCHS if paper else 1))
    at_most("training.crop", size.duration / 2)
    at_most("training.ensemble", 1)
    at_most("training.batch_size", 32)
    if "training" in value:
        changes["training.test_speeds"] = [1.0]
    changes["evaluation.split"] = "groups:5"
    return changes


def _joined(recipe: Recipe, limit: int) -> dict[str, Any]:
    """How many frames a recipe joins so that maps have no more than a limit."""
    features = recipe.features
    shorter = -(-features.n_frames // limit)
    return {"features.pool": features.pool * shorter} if shorter > 1 else {}


def _smaller_search(search: Mapping[str, Any], size: Size) -> dict[str, Any]:
    match search["strategy"]:
        case "evolution":
            return {
                "search.population": 2,
                "search.sample": 2,
                "search.evaluations": size.candidates,
                "search.epochs": size.candidate_epochs,
            }
        case "controller":
            return {
                "search.batch": 2,
                "search.evaluations": size.candidates,
                "search.epochs": size.candidate_epochs,
            }
        case "halving":
            rounds = [[size.candidates, 1], [max(size.candidates // 2, 1), 2]]
            return {
                "search.rounds": rounds,
                "search.epochs": size.candidate_epochs,
                "search.inner_folds": 2,
            }
    return {}


def _at(value: Any, key: str) -> Any:
    """Value of a dotted key; None where there is none."""
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def smaller_recipe(name: str, size: Size) -> Recipe:
    """A built-in recipe at a size."""
    changes = smaller(load_recipe(name), size)
    changes |= _joined(_with(name, changes), size.frames)
    return _with(name, changes)


def _with(name: str, changes: Mapping[str, Any]) -> Recipe:
    return load_recipe(name, [f"{key}={_yaml(value)}" for key, value in changes.items()])


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()


def write(out: Path, size: Size, root: str) -> Path:
    """Write the recipes and the grid; return the path of the latter."""
    names = compared_recipes()
    for name in names:
        text = f"# {name} at a size for one core\n{smaller_recipe(name, size).to_yaml()}"
        files.write_text(out / "recipes" / f"{name}.yaml", text)
    grid = {
        "recipes": [f"recipes/{name}.yaml" for name in names],
        "corpora": {"emodb": {"root": root, "labels": "four"}},
        "folds": [0, 1],
        "seeds": [0],
    }
    path = out / "grid.yaml"
    files.write_text(path, yaml.safe_dump(grid, sort_keys=False))
    return path


def main() -> None:
    """Write what the arguments ask for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for recipes and grid")
    parser.add_argument("--root", required=True, help="folder of EmoDB")
    parser.add_argument("--size", choices=SIZES, default="core")
    arguments = parser.parse_args()
    print(write(arguments.out, SIZES[arguments.size], str(Path(arguments.root).resolve())))


if __name__ == "__main__":
    main()
