"""Numbers in tables against hand-made results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from emodarts.genotype import Edge, Genotype
from emodarts.reports.document import Remark, Table
from emodarts.reports.tables import (
    class_table,
    cost_table,
    fold_table,
    operation_table,
    paired_table,
    recall_table,
    result_blocks,
)
from emodarts.scoring.metrics import UA_DEFINITION, WA_DEFINITION

CONFUSION = [[8, 2, 0], [3, 1, 0], [0, 0, 0]]


def fold(number: int, ua: float, absent: list[str] | None = None) -> dict[str, Any]:
    seeds = [
        {"seed": s, "ua": ua + d, "epoch": 7 + s, "parameters": 1000 + s}
        for s, d in ((0, -0.1), (4, 0.1))
    ]
    return {
        "fold": number,
        "n_test": 7,
        "ua": ua,
        "wa": 0.5,
        "macro_f1": 0.25,
        "absent_classes": absent or [],
        "test_speakers": [f"s{number}{k}" for k in range(6)],
        "seeds": seeds,
    }


def result(**changes: Any) -> dict[str, Any]:
    values = {
        "name": "toy",
        "parameters": 61234.0,
        "multiply_adds": 12_345_678,
        "notice": "",
        "warnings": [],
        "seeds": [0, 4],
        "classes": ["anger", "sadness", "fear"],
        "confusion": CONFUSION,
        "ua": 0.7654,
        "wa": 0.71,
        "macro_f1": 0.6,
        "ua_sd_folds": 0.0234,
        "wa_sd_folds": 0.03,
        "macro_f1_sd_folds": 0.04,
        "ua_sd_seeds": 0.0111,
        "pooled": {
            "ua": 0.75,
            "ua_interval": [0.701, 0.799],
            "bootstrap_samples": 5000,
            "bootstrap_unit": "speaker",
        },
        "baselines": {
            "majority": {"ua": 1 / 3, "wa": 0.5, "macro_f1": 0.2},
            "chance": {"ua": 1 / 3, "wa": 1 / 3, "macro_f1": 0.3},
        },
        "folds": [fold(0, 0.5), fold(1, 0.75, ["fear", "anger"])],
    }
    return {**values, **changes}


TEST = {
    "n_speakers": 9,
    "n_utterances": 1200,
    "ua": {"difference": 0.0123, "p": 0.25},
    "wa": {"difference": -0.02, "p": 0.0039},
}


def result_table(results: list[dict[str, Any]]) -> Table:
    table = result_blocks(results)[0]
    assert isinstance(table, Table)
    return table


def cells(table: Table) -> dict[str, dict[str, str]]:
    """Rows of a table by first cell and column."""
    titles = [column.title for column in table.columns]
    return {row[0]: dict(zip(titles, row, strict=True)) for row in table.rows}


def test_result_table_is_in_percent_with_spread_and_interval() -> None:
    row = cells(result_table([result()]))["toy"]
    assert row == {
        "system": "toy",
        "parameters": "61,234",
        "multiply-adds": "12.35 M",
        "UA %": "76.5 ± 2.3",
        "sd over seeds": "1.1",
        "WA %": "71.0 ± 3.0",
        "macro F1 %": "60.0 ± 4.0",
        "pooled UA % (95 % interval)": "75.0 (70.1 to 79.9)",
    }


def test_one_fold_and_one_seed_show_no_spread() -> None:
    single = {f"{m}_sd_folds": None for m in ("ua", "wa", "macro_f1")}
    pooled = {**result()["pooled"], "ua_interval": None}
    one = result(**single, ua_sd_seeds=None, seeds=[0], pooled=pooled, multiply_adds=None)
    table = result_table([one])
    row = cells(table)["toy"]
    assert "sd over seeds" not in row
    assert (row["UA %"], row["WA %"]) == ("76.5", "71.0")
    assert row["pooled UA % (95 % interval)"] == "75.0 (–)"
    assert "fewer than 3 speakers" in " ".join(table.caption)
    assert "fewer than 3" not in " ".join(result_table([result()]).caption)
    assert row["multiply-adds"] == "–"


def test_baselines_follow_the_systems_once_in_a_fixed_order() -> None:
    table = cells(result_table([result(), result(name="other")]))
    assert list(table) == ["toy", "other", "baseline: chance", "baseline: majority class"]
    assert table["baseline: majority class"]["UA %"] == "33.3"
    assert table["baseline: majority class"]["WA %"] == "50.0"


def test_differing_baselines_name_their_run() -> None:
    other = result(name="other")
    other["baselines"] = {**other["baselines"], "chance": {"ua": 0.25, "wa": 0.25, "macro_f1": 0.2}}
    table = cells(result_table([result(), other]))
    assert table["baseline: chance (toy)"]["UA %"] == "33.3"
    assert table["baseline: chance (other)"]["UA %"] == "25.0"
    assert "baseline: majority class" in table


@pytest.mark.parametrize(
    ("results", "remarks"),
    [
        ([result()], []),
        (
            [result(notice="made-up speech", warnings=["few speakers"])],
            [Remark("Notice", "made-up speech"), Remark("Warning", "few speakers")],
        ),
        (
            [result(notice="toy"), result(name="b", notice="toy", warnings=["few"])],
            [Remark("Notice", "toy (toy, b)"), Remark("Warning", "few (b)")],
        ),
    ],
)
def test_notices_and_warnings_come_before_the_scores(
    results: list[dict[str, Any]], remarks: list[Remark]
) -> None:
    assert list(result_blocks(results)[:-1]) == remarks


def test_the_table_of_systems_defines_the_scores() -> None:
    caption = " ".join(result_table([result()]).caption)
    assert UA_DEFINITION in caption
    assert WA_DEFINITION in caption


@pytest.mark.parametrize(
    "make",
    [
        lambda: result_table([result()]),
        lambda: fold_table(result()),
        lambda: class_table(result()),
        lambda: paired_table({("a", "b"): TEST}),
    ],
)
def test_only_numbers_are_aligned_to_the_right(make: Callable[[], Table]) -> None:
    table = make()
    for k, column in enumerate(table.columns):
        if column.numeric:
            assert all(row[k].strip("+-–")[:1] in ("", *"0123456789") for row in table.rows)


def test_fold_table() -> None:
    table = cells(fold_table(result()))
    assert table["1"] == {
        "fold": "1",
        "test speakers": "s10, s11, s12, s13 and 2 more",
        "utterances": "7",
        "UA %": "75.0",
        "WA %": "50.0",
        "macro F1 %": "25.0",
        "UA % of each seed": "65.0, 85.0",
        "parameters": "1,000, 1,004",
        "chosen epoch": "7, 11",
        "absent classes": "fear, anger",
    }
    assert table["0"]["absent classes"] == "none"
    assert "order of the seeds: 0, 4." in fold_table(result()).caption[0]


def test_class_table() -> None:
    table = cells(class_table(result()))
    assert table["anger"] == {
        "class": "anger",
        "recall %": "80.0",
        "precision %": "72.7",  # 8 / 11
        "F1 %": "76.2",  # 16 / 21
        "true": "10",
        "predicted": "11",
        "correct": "8",
    }
    assert table["sadness"]["recall %"] == "25.0"
    assert [table["fear"][k] for k in ("recall %", "precision %", "F1 %")] == ["–"] * 3
    assert "each utterance counts 2 times" in class_table(result()).caption[0]


def test_paired_table() -> None:
    table = paired_table({("a", "b"): TEST})
    assert cells(table)["a − b"] == {
        "difference": "a − b",
        "speakers": "9",
        "utterances": "1,200",
        "UA, points": "+1.2",
        "p (UA)": "0.2500",
        "WA, points": "-2.0",
        "p (WA)": "0.0039",
    }
    assert "corrected" not in table.caption[0]


def test_recalls_of_systems_stand_below_each_other_whatever_their_order_of_classes() -> None:
    other = result(
        name="other",
        classes=["sadness", "anger", "fear"],
        confusion=[[1, 3, 0], [0, 10, 0], [0, 0, 0]],
    )
    assert recall_table([result(), other]).rows == (
        ("toy", "80.0", "25.0", "–"),
        ("other", "100.0", "25.0", "–"),
    )


def test_several_pairs_have_corrected_p_values() -> None:
    weaker = {**TEST, "ua": {"difference": 0.01, "p": 0.4}}
    table = paired_table({("a", "b"): TEST, ("a", "c"): weaker})
    assert [row["Holm p (UA)"] for row in cells(table).values()] == ["0.5000", "0.5000"]
    assert [row["Holm p (WA)"] for row in cells(table).values()] == ["0.0078", "0.0078"]
    assert "corrected for 2 pairs (Holm)" in table.caption[0]


SPENT = {"seconds": 75.4, "processor_seconds": 150.2, "steps": 1200.0, "peak_memory": 811.9}


def test_costs_stand_beside_the_scores_where_something_was_searched() -> None:
    searched = result(cost={"search": SPENT, "training": {**SPENT, "seconds": 9.0}})
    plain = result(name="plain", cost={"training": SPENT}, baselines={})
    rows = cells(result_table([searched, plain]))
    assert [rows[name]["search, s"] for name in ("toy", "plain")] == ["75", "–"]
    assert rows["baseline: chance"]["search, s"] == "–"
    assert "search, s" not in cells(result_table([plain]))["plain"]
    assert cells(cost_table([searched, plain]))["toy"] == {
        "system": "toy",
        "search time, s": "75",
        "search processor time, s": "150",
        "search steps": "1,200",
        "search memory, MiB": "812",
        "training time, s": "9",
        "training processor time, s": "150",
        "training steps": "1,200",
        "training memory, MiB": "812",
    }


def test_operation_table_counts_edges() -> None:
    def cell(first: str, second: str) -> tuple[tuple[Edge, ...], ...]:
        return ((Edge(first, 0), Edge(second, 1)),)

    cnn = cell("skip_connect", "skip_connect")
    genotypes = [
        Genotype(cnn, cell("max_pool_3x3", "dil_conv_3x3")),
        Genotype(cnn, cell("max_pool_3x3", "skip_connect"), cell("lstm_1", "skip_connect")),
    ]
    table = cells(operation_table(genotypes))
    assert list(table) == ["max_pool_3x3", "skip_connect", "dil_conv_3x3", "lstm_1"]
    assert table["skip_connect"] == {
        "operation": "skip_connect",
        "normal": "4",
        "reduction": "1",
        "sequence": "1",
    }
    assert "sequence" not in [c.title for c in operation_table(genotypes[:1]).columns]
