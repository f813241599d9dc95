"""A report of a made-up run directory: its files, links and numbers; and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emodarts import files
from emodarts.cost import Spent
from emodarts.errors import RunError, WriteError
from emodarts.recipe import load_recipe
from emodarts.reports.markdown import to_markdown
from emodarts.reports.report import compare, load_result, make_report, read_curve, write_report

MakeRun = Callable[..., Path]


def report_of(run: Path) -> str:
    """Text of a report, without drawing its figures."""
    return to_markdown(make_report(run))


def comparison_of(*runs: Path) -> str:
    return to_markdown(compare(runs))


def test_report_covers_the_run(make_run: MakeRun) -> None:
    run = make_run()
    text = report_of(run)
    result = json.loads((run / "result.json").read_text())
    assert f"{100 * result['ua']:.1f} ± {100 * result['ua_sd_folds']:.1f}" in text
    assert text.count("UA: unweighted accuracy") == 1
    for part in (
        "# toy on synthetic",
        "**Notice:** made-up speech: scores say nothing about emotion",
        "**Warning:** fold 1 has a single validation speaker",
        "baseline: logistic regression on mean features",
        "UA: unweighted accuracy",
        "anger, happiness, neutral, sadness",
        "groups:2",
        "versions.torch",
        "label boredom is not selected (3)",
        "not a sound file (1)",
        "### Fold 0, seed 0",
        "### Fold 1, seed 0",
        "sep_conv_3x3",
        "## Search",
        "0f" * 32,
    ):
        assert part in text, part


def test_a_report_changes_nothing_repeats_bit_by_bit_and_has_relative_links(
    make_run: MakeRun,
) -> None:
    run = make_run(folds=1, seeds=(0,))

    def contents(folder: Path) -> dict[Path, bytes]:
        return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    before = contents(run)
    path = write_report(run)
    assert path == run / "report" / "report.md"
    first = contents(path.parent)
    after = contents(write_report(run).parent)
    assert first == after
    assert {p: b for p, b in contents(run).items() if p.parts[0] != "report"} == before

    moved = run.rename(run.with_name("moved")) / "report"
    links = re.findall(r"\]\(([^)]+)\)", (moved / "report.md").read_text())
    assert {"confusion.png", "training.png", "search.png", "alphas.png"} < set(links)
    for link in links:
        assert (moved / link).is_file(), link
    for figure in moved.glob("*.png"):
        assert figure.read_bytes().startswith(b"\x89PNG")
        assert figure.name in links


def test_scores_are_shown_not_computed(make_run: MakeRun) -> None:
    run = make_run()
    result = files.read_json(run / "result.json", RunError)
    files.write_json(run / "result.json", {**result, "ua": 0.12345, "ua_sd_folds": 0.0678})
    assert "12.3 ± 6.8" in report_of(run)


def test_equal_genotypes_are_drawn_once(make_run: MakeRun) -> None:
    run = make_run()
    result = files.read_json(run / "result.json", RunError)
    genotype = result["folds"][0]["seeds"][0]["genotype"]
    for fold in result["folds"]:
        for seed in fold["seeds"]:
            seed["genotype"] = genotype
    files.write_json(run / "result.json", result)
    text = report_of(run)
    assert "### Folds 0, 1, seed 0" in text
    assert text.count("](cells-") == 1


def test_random_cells_without_a_sequence_network(make_run: MakeRun) -> None:
    text = report_of(make_run(strategy="random", sequence=False))
    assert "Genotypes: drawn at random." in text
    assert "## Search" not in text
    assert "alphas.png" not in text
    assert "lstm" not in text.split("## Cells")[1]


def test_a_given_genotype_is_not_called_searched(make_run: MakeRun) -> None:
    run = make_run()
    assert "Genotypes: searched (darts, 300 epochs, order 2)." in report_of(run)
    for path in [*run.glob("fold-*/seed-*/search.csv"), *run.glob("fold-*/seed-*/alphas.json")]:
        path.unlink()
    result = files.read_json(run / "result.json", RunError)
    files.write_json(run / "result.json", {**result, "genotypes": "given"})
    text = report_of(run)
    assert "Genotypes: given, not searched." in text
    assert "## Search" not in text


def test_a_network_without_a_genotype_has_no_cells(make_run: MakeRun) -> None:
    run = make_run(strategy="random")
    result = files.read_json(run / "result.json", RunError)
    for fold in result["folds"]:
        for seed in fold["seeds"]:
            seed["genotype"] = None
    files.write_json(run / "result.json", result)
    assert "## Cells" not in report_of(run)


def test_optimistic_scores_are_apart_and_marked(make_run: MakeRun) -> None:
    run = make_run(optimistic=True)
    text = report_of(run)
    table = text.split("## Result")[1].split("## ")[0]
    header, row = (line for line in table.splitlines() if line.startswith(("| system ", "| toy ")))
    place = [cell.strip() for cell in header.split("|")].index(
        "optimistic UA % (chosen on the test fold)"
    )
    assert row.split("|")[place].strip() == "91.0"
    assert table.count("91.0") == 1
    assert "It is no result, and no choice of a run used it." in text
    (run / "fold-0" / "seed-3" / "optimistic.json").unlink()
    assert "optimistic" not in report_of(run)


def test_every_figure_says_what_it_shows(make_run: MakeRun) -> None:
    alternatives = {figure.file: figure.alternative for figure in make_report(make_run()).figures()}
    for file, part in {
        "confusion.png": "Confusion matrix",
        "cells-fold-0.png": "Normal cell: node 0 is sep_conv_3x3 of c_{k-2} (0.08) plus",
        "cells-fold-1.png": "node 1 is lstm_att_1 of c_{k-1} plus skip_connect of node 0.",
        "training.png": "means over 4 folds and seeds: training loss 1.40, then 0.35",
        "search.png": "Losses, UA, skips and entropies in the search",
        "alphas.png": "Softmax weights of the operations at epoch 4",
    }.items():
        assert part in alternatives[file], file


# What a report refuses


def test_missing_and_unfinished_runs(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run directory"):
        load_result(tmp_path / "nowhere")
    run = make_run()
    (run / "result.json").unlink()
    with pytest.raises(RunError, match="has no scores to report"):
        write_report(run)
    assert not (run / "report").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": ', "not JSON: line 1"),
        ("[]", "not a JSON object"),
        ("{}", "has no format"),
        ('{"format": "emodarts.result/9"}', r"'emodarts.result/9'; allowed: 'emodarts.result/2'"),
        ('{"format": "emodarts.result/2"}', "has no name, corpus"),
    ],
)
def test_broken_results(make_run: MakeRun, text: str, message: str) -> None:
    run = make_run()
    (run / "result.json").write_text(text)
    with pytest.raises(RunError, match=message) as caught:
        load_result(run)
    assert str(run / "result.json") in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("data.json", "{}", "has no n_utterances"),
        ("environment.json", "[", "not JSON"),
        ("fold-0/seed-0/training.csv", "epoch,train_loss\n1,high\n", "could not convert"),
        ("fold-0/seed-0/training.csv", "epoch,train_loss\n", "has no epochs"),
        ("fold-1/seed-3/search.csv", "epoch,weight_loss\n1\n", "line 2"),
        ("fold-1/seed-3/alphas.json", "[]", "has no epochs"),
        ("fold-1/seed-3/alphas.json", "[{}]", "needs 'epoch', 'alphas' and 'genotype'"),
    ],
)
def test_broken_files_leave_no_report(
    make_run: MakeRun, name: str, text: str, message: str
) -> None:
    run = make_run()
    (run / name).write_text(text)
    with pytest.raises(RunError, match=message) as caught:
        write_report(run)
    assert str(run / name) in str(caught.value)
    assert not (run / "report").exists()


def test_an_empty_field_of_a_curve_is_nan(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("epoch,alpha_loss\n1,\n2,0.5\n")
    columns = read_curve(path).columns
    assert np.isnan(columns["alpha_loss"][0])
    assert columns["alpha_loss"][1] == 0.5


# Several runs


def test_compare_pairs_systems_on_the_same_utterances(make_run: MakeRun) -> None:
    runs = [make_run("x", name="good", errors=0.05), make_run("y", name="bad", errors=0.9)]
    text = comparison_of(*runs)
    assert "| good " in text
    assert "| bad " in text
    assert "| good − bad |" in text
    assert "runs differ" not in text
    assert text.count("UA: unweighted accuracy") == 1
    row = next(line for line in text.splitlines() if line.startswith("| good − bad"))
    points, p = float(row.split("|")[4]), float(row.split("|")[5])
    assert points > 50
    assert p == pytest.approx(2 / 2**4)  # four speakers, all in favour


def test_compared_runs_of_one_name_show_their_folder_and_do_not_differ(make_run: MakeRun) -> None:
    run = make_run("x")
    copy = Path(shutil.copytree(run, run.parent / "copy"))
    text = comparison_of(run, copy)
    assert f"toy ({run})" in text
    assert f"toy ({copy})" in text
    row = next(line for line in text.splitlines() if "−" in line and line.startswith("| toy"))
    assert [cell.strip() for cell in row.split("|")[4:8]] == ["+0.0", "1.0000", "+0.0", "1.0000"]


def test_compare_says_why_a_pair_has_no_test(make_run: MakeRun) -> None:
    runs = [
        make_run("x", name="a"),
        make_run("y", name="b", folds=3, split="groups:3"),
        make_run("z", name="c", classes=("anger", "sadness")),
    ]
    text = comparison_of(*runs)
    assert "a and b: no paired test: the systems were tested on different utterances" in text
    assert "a and c: no paired test: the systems have different classes" in text
    assert "Paired tests" not in text
    assert "**The runs differ in split:** a, c: groups:2; b: groups:3." in text
    assert "**The runs differ in classes:**" in text


def test_systems_are_tested_against_the_best_network_by_hand_and_random_search(
    make_run: MakeRun,
) -> None:
    by_hand = {"genotypes": None, "system": "cnn"}
    runs = [
        make_run("a", name="found", errors=0.2),
        make_run("b", name="weak", errors=0.8, **by_hand),
        make_run("c", name="strong", errors=0.3, **by_hand),
        make_run("d", name="drawn", errors=0.5, strategy="random"),
        make_run("e", name="embedded", errors=0.0, **by_hand),
        make_run("f", name="linear", errors=0.0, **by_hand),
    ]
    for run, text in zip(
        [runs[1], runs[2], runs[4], runs[5]],
        (
            "{system: {kind: cnn}}",
            "{system: {kind: recurrent}}",
            "{features: {kind: embedding, layer: all}, system: {kind: frozen_encoder}}",
            "{features: {kind: mfcc}, system: {kind: svm}}",
        ),
        strict=True,
    ):
        (run / "recipe.yaml").write_text(text)
    rows = [line.split("|")[1].strip() for line in comparison_of(*runs).splitlines() if "−" in line]
    against_strong = ["found", "weak", "drawn", "embedded", "linear"]
    against_drawn = ["found", "weak", "embedded", "linear"]
    assert rows == [
        *(f"{name} − strong" for name in against_strong),
        *(f"{name} − drawn" for name in against_drawn),
    ]


def test_costs_are_means_over_trials_with_the_highest_memory(make_run: MakeRun) -> None:
    run = make_run()
    for k, trial in enumerate(sorted(run.glob("fold-*/seed-*"))):
        spent = Spent(10.0 + k, 20.0, 300, 500.0 + k)
        cost = {"search": spent.to_dict(), "training": Spent(1.0, 1.0, 7, 900.0).to_dict()}
        files.write_json(trial / "result.json", {"cost": cost})
    assert load_result(run)["cost"] == {
        "search": {
            "seconds": 11.5,
            "processor_seconds": 20.0,
            "steps": 300.0,
            "peak_memory": 503.0,
        },
        "training": Spent(1.0, 1.0, 7, 900.0).to_dict(),
    }
    text = report_of(run)
    assert "## Time and memory" in text
    assert "| search, s |" in text
    given = make_run("given", genotypes="given")
    shutil.copy(run / "fold-0" / "seed-0" / "result.json", given / "fold-0" / "seed-0")
    assert set(load_result(given)["cost"]) == {"training"}


def test_compare_names_settings_that_differ(make_run: MakeRun) -> None:
    """Keys that follow from another kind, and what makes no other run, are not listed."""
    runs = [make_run("x", name="a"), make_run("y", name="b"), make_run("z", name="c")]
    for run, text in zip(
        runs,
        (
            "{name: a, search: {epochs: 9}, compute: {threads: 1}, evaluation: {seeds: [5]}}",
            "{name: b, search: {strategy: random}, network: {stem: {}}}",
            "{name: c, search: {epochs: 8}, features: {n_mfcc: 20}}",
        ),
        strict=True,
    ):
        (run / "recipe.yaml").write_text(text)
    assert (
        "**The runs differ in settings:** features.n_mfcc (null, null, 20), network.stem (null, "
        "{...}, null), search.strategy (darts, random, darts) (a, b, c, in this order)."
    ) in comparison_of(*runs).replace("\\", "")


def test_classes_that_cannot_be_drawn_are_numbered(make_run: MakeRun) -> None:
    run = make_run(
        classes=("anger", "\u2fff\u0378", "\u063a\u0636\u0628", "\u0433\u043d\u0435\u0432")
    )
    text = report_of(run)
    legend = "class 2 is \u2fff\u0378, class 3 is \u063a\u0636\u0628."
    assert f"No font here draws these names: {legend}" in text


def test_compare_refuses_an_unfinished_run(make_run: MakeRun) -> None:
    runs = [make_run("x"), make_run("y")]
    (runs[1] / "result.json").unlink()
    with pytest.raises(RunError, match="has no scores to report"):
        compare(runs)


def test_a_failed_write_keeps_the_old_report(make_run: MakeRun) -> None:
    run = make_run(name="before", folds=1, seeds=(0,), strategy="random", sequence=False)
    report = write_report(run)
    result = files.read_json(run / "result.json", RunError)
    files.write_json(run / "result.json", {**result, "name": "after"})
    figure = report.parent / "training.png"
    figure.unlink()
    (figure / "in the way").mkdir(parents=True)
    with pytest.raises(WriteError, match=r"training\.png"):
        write_report(run)
    assert report.read_text().startswith("# before on synthetic")


def test_each_input_has_a_search_of_its_own(make_run: MakeRun) -> None:
    run = make_run()
    files.write_text(run / "recipe.yaml", load_recipe("emotionnas").to_yaml())
    parts = {"cnn": ("normal", "reduction"), "rnn": ("sequence",)}
    for trial in run.glob("fold-*/seed-*"):
        records = files.read_json(trial / "alphas.json", RunError)
        for name, found in parts.items():
            others = dict.fromkeys({"normal", "reduction", "sequence"} - {*found})
            part = [
                {
                    "epoch": record["epoch"],
                    "alphas": {cell: record["alphas"][cell] for cell in found},
                    "genotype": {**record["genotype"], **others},
                }
                for record in records
            ]
            files.write_json(trial / name / "alphas.json", part)
            files.write_bytes(trial / name / "search.csv", (trial / "search.csv").read_bytes())
        (trial / "alphas.json").unlink()
        (trial / "search.csv").unlink()
    report = make_report(run)
    names = [figure.file for figure in report.figures()]
    assert len(names) == len(set(names))
    assert {"cnn-search.png", "rnn-search.png", "cnn-alphas.png", "edges-sequence.png"} <= {*names}
    assert {"formation-fold-0-normal.png", "formation-fold-0-sequence.png"} <= {*names}
    text = to_markdown(report)
    assert text.index("Stream cnn") < text.index("Stream rnn")
    assert "is its softmax weight on the edge" in text
