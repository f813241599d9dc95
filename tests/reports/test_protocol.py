"""How a report says what trained and what was chosen."""

from emodarts.recipe import load_recipe
from emodarts.reports.protocol import protocol_in_words


def text_of(name: str, *changes: str) -> str:
    recipe = load_recipe(name, changes)
    origin = "searched" if recipe.searches else None
    result = {"split": "groups:5", "protocol": "full", "genotypes": origin, "seeds": [0, 1]}
    return protocol_in_words(result, recipe)


def test_what_answers_is_named() -> None:
    text = text_of("default")
    assert "Each answer is the mean of 3 networks that differ in their seed." in text
    assert "Each network classifies an utterance at the speeds 0.9, 1, 1.1." in text
    alone = text_of("default", "training.ensemble=1", "training.test_speeds=[1.0]")
    assert "Each" not in alone
    assert alone.endswith("Every fold ran with 2 seeds, whose scores are averaged.")
    assert "at the speeds" not in text_of("svm-egemaps")
