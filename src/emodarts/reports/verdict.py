"""The verdict of a report: what was tested, what won, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emodarts.errors import list_some
from emodarts.reports.document import Remark
from emodarts.reports.tables import percent
from emodarts.scoring.comparison import holm

#: p-values below it count as more than chance.
LEVEL = 0.05
#: Speakers from which on all of them can agree by chance less often than that: 2 / 2^6 < 0.05.
FEWEST = 6


def verdict(results: Sequence[Mapping[str, Any]], tests: Mapping[tuple[str, str], Any]) -> Remark:
    """Three sentences on one or more runs.

    Parameters
    ----------
    results : contents of ``result.json``, with names that differ.
    tests : results of :func:`emodarts.scoring.comparison.paired_test` by the two names.
    """
    text = _of_one(results[0]) if len(results) == 1 else _of_several(results, tests)
    return Remark("Verdict", text)


def _of_one(result: Mapping[str, Any]) -> str:
    chance = result["baselines"].get("chance", {}).get("ua", 1 / len(result["classes"]))
    rivals = {"chance": chance}
    rivals |= {name: scores["ua"] for name, scores in result["baselines"].items()}
    name, best = max(rivals.items(), key=lambda item: item[1])
    rival = "uniform guessing" if name == "chance" else f"the baseline {name.replace('_', ' ')}"
    first = f"{result['name']} was tested on {_data(result)}."
    second = f"Its UA is {_score(result)}, {_lead(result['ua'], best)} {rival} ({percent(best)} %)."
    interval = result["pooled"]["ua_interval"]
    by_speaker = result["pooled"]["bootstrap_unit"] == "speaker"
    if interval is None or not by_speaker or len(_speakers(result)) < FEWEST:
        third = (
            f"With fewer than {FEWEST} known speakers it cannot be said whether that is more than "
            "chance."
        )
        return f"{first} {second} {third}"
    low, high = interval
    where = f"The 95 % interval over speakers, {percent(low)} to {percent(high)} %,"
    if low > best:
        third = f"{where} lies above that, so the lead is more than chance among these speakers."
    elif high < best:
        third = f"{where} lies below that, so the loss is more than chance among these speakers."
    else:
        third = f"{where} includes that, so the difference may be chance."
    return f"{first} {second} {third}"


def _of_several(results: Sequence[Mapping[str, Any]], tests: Mapping[tuple[str, str], Any]) -> str:
    names = [result["name"] for result in results]
    if len({(r["corpus"], tuple(sorted(r["classes"]))) for r in results}) > 1:
        return (
            f"{len(results)} runs are shown: {list_some(names, 6)}. They differ in corpus or "
            "classes, so none of them wins. No difference between them is tested as one."
        )
    ranked = sorted(results, key=lambda result: -result["ua"])
    winner, second = ranked[0], ranked[1]
    counted = {r["n_test"] for r in results}
    on = _data(winner) if len(counted) == 1 else f"parts of {winner['corpus']} that differ in size"
    told = f"{len(results)} systems were tested on {on}: {list_some(names, 6)}."
    won = (
        f"{winner['name']} has the highest UA, {_score(winner)}, "
        f"{_lead(winner['ua'], second['ua'])} the next, {second['name']} ({_score(second)})."
    )
    return f"{told} {won} {_tested(ranked, tests)}"


def _tested(ranked: Sequence[Mapping[str, Any]], tests: Mapping[tuple[str, str], Any]) -> str:
    """Whether the winner's lead over the best rival that it was tested against is chance."""
    corrected = dict(zip(tests, holm([t["ua"]["p"] for t in tests.values()]), strict=True))
    winner = ranked[0]["name"]
    for rival in ranked[1:]:
        for pair in ((winner, rival["name"]), (rival["name"], winner)):
            if pair not in tests:
                continue
            p, n = corrected[pair], tests[pair]["n_speakers"]
            several = f" after Holm's correction for {len(tests)} pairs" if len(tests) > 1 else ""
            how = f"paired test over {n} speakers, p = {p:.4f}{several}"
            whom = f"Its lead over {rival['name']}"
            if p < LEVEL:
                return f"{whom} is more than chance ({how})."
            return f"{whom} may be chance ({how})."
    return "No paired test of the winner was possible, so its lead may be chance."


def _data(result: Mapping[str, Any]) -> str:
    speakers = _speakers(result)
    of = f" of {len(speakers)} speakers" if speakers else ""
    folds, seeds = len(result["folds"]), len(result["seeds"])
    return (
        f"{result['n_test']:,} utterances{of} of {result['corpus']} with {len(result['classes'])} "
        f"classes, in {folds} fold{'s' * (folds > 1)} with {seeds} seed{'s' * (seeds > 1)}"
    )


def _speakers(result: Mapping[str, Any]) -> set[str]:
    return {speaker for fold in result["folds"] for speaker in fold["test_speakers"]}


def _score(result: Mapping[str, Any]) -> str:
    sd = result["ua_sd_folds"]
    return f"{percent(result['ua'])} %" + ("" if sd is None else f" ± {percent(sd)}")


def _lead(ua: float, other: float) -> str:
    """The difference of the percentages as they are printed."""
    difference = float(percent(ua)) - float(percent(other))
    return f"{abs(difference):.1f} points {'above' if difference >= 0 else 'below'}"
