"""Find, judge and use a network for speech of your own.

    python examples/search_own_corpus.py speech.csv runs/own
    python examples/search_own_corpus.py synthetic runs/toy search.epochs=1 training.epochs=4

The first argument is a table with the columns file, speaker and emotion (docs/own-data.md), or
`synthetic` for a generated toy corpus; the second is a new folder. Changes of recipe keys may
follow.
"""

import sys
from pathlib import Path

import emodarts
from emodarts import Options
from emodarts.reports.report import write_report


def main(table: str, folder: str, *changes: str) -> None:
    recipe = emodarts.load_recipe("cells", changes)
    known = table == "synthetic"
    corpus = emodarts.load_corpus("synthetic") if known else emodarts.load_corpus("table", table)
    out = Path(folder)

    # How good is what this recipe finds? Cells and weights of a fold never see its test speakers.
    result = emodarts.run(recipe, corpus, out / "judged")
    print(f"UA on unseen speakers: {100 * result['ua']:.1f} %")
    for name, baseline in result["baselines"].items():
        print(f"  {name}: {100 * baseline['ua']:.1f} %")
    print(f"Report: {write_report(out / 'judged')}")

    # The model to use: cells found on all speakers, and trained on all.
    everyone = Options(all_data=True)
    [genotype] = emodarts.search(recipe, corpus, out / "found", everyone)
    emodarts.train(recipe, corpus, out / "model", genotype, everyone)
    model = emodarts.load(str(out / "model" / "seed-0" / "model"))
    first = corpus.utterances[0].path
    [answer] = model.predict(first, abstain=0.5)
    print(f"{first}: {answer.label}")


if __name__ == "__main__":
    main(*sys.argv[1:])
