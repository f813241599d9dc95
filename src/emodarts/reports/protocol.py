"""How a run was tested, in words, and the command that repeats it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from emodarts.recipe import Recipe
from emodarts.reports.document import Block, Code

_SPLITS = (
    (r"speaker", "Each fold tests on one speaker, and nothing of that speaker is used before."),
    (r"session", "Each fold tests on one session, and nothing of it is used before."),
    (
        r"groups:(\d+)",
        "The speakers are divided into {0} groups; each fold tests on one of them, and nothing of "
        "it is used before.",
    ),
    (r"official.*", "The test is the part that the publishers of the corpus set aside."),
    (r"column", "The test is what a column of the user's table sets aside."),
    (r"emobox", "The folds are those that EmoBox publishes."),
    (
        r"speaker-dependent(?::(\d+))?",
        "The folds are random utterances: every test speaker is also trained on, so the scores say "
        "nothing about new speakers.",
    ),
    (r".+", "The folds come from a file."),
)
_PROTOCOLS = {
    "paper": (
        "70 % of the other utterances are for the search, and choose the epoch of the training.",
        "30 % of the other utterances train the network; the rest chooses its epoch.",
    ),
    "full": (
        "All other utterances are for the search.",
        "All other utterances train the network, but for a validation part of the split, and for "
        "some speakers where an epoch is chosen.",
    ),
}
_CHOICES = {
    "ua": "The epoch with the best UA on these utterances is tested.",
    "loss": "The epoch with the lowest loss on these utterances is tested.",
    "last": "The weights of the last epoch are tested, so no epoch is chosen.",
}


def protocol_in_words(result: Mapping[str, Any], recipe: Recipe) -> str:
    """How folds were made, what trained on what, and what was chosen by what."""
    sentences = []
    for pattern, text in _SPLITS:
        if match := re.fullmatch(pattern, result["split"]):
            sentences.append(text.format(*match.groups()))
            break
    if recipe.evaluation.allow_speaker_overlap:
        sentences.append("Folds that share speakers between training and test were accepted.")
    used = recipe.system.sections
    if "training" in used:
        searching, training = _PROTOCOLS[result["protocol"]]
        sentences += [searching] if result["genotypes"] == "searched" else []
        sentences += [training, _CHOICES[recipe.training.select]]
    sentences.append("No choice used the utterances of a test fold.")
    n_seeds = len(result["seeds"])
    if n_seeds > 1:
        sentences.append(f"Every fold ran with {n_seeds} seeds, whose scores are averaged.")
    if recipe.training.ensemble > 1 and "training" in used:
        sentences.append(
            f"Each answer is the mean of {recipe.training.ensemble} networks that differ in their "
            "seed."
        )
    if recipe.training.test_speeds != (1.0,) and "training" in used:
        speeds = ", ".join(f"{speed:g}" for speed in recipe.training.test_speeds)
        sentences.append(f"Each network classifies an utterance at the speeds {speeds}.")
    return " ".join(sentences)


def repeating(result: Mapping[str, Any]) -> tuple[Block, ...]:
    """The command that runs the recipe of a run again, from the folder of the run."""
    root = "" if result["corpus"] == "synthetic" else " --root CORPUS"
    command = (
        f"emodarts run recipe.yaml --corpus {shlex.quote(result['corpus'])}{root} --out ../again"
    )
    text = "In the folder of the run, this repeats it"
    text += " (CORPUS is the folder of the corpus):" if root else ":"
    if result["genotypes"] == "given":
        text = f"{text[:-1]}, if --genotype names the genotype that was given:"
    return (text, Code(command))
