"""The verdict of a report: what was tested, what won, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emodarts.reports.document import Remark
from emodarts.reports.tables import percent
from emodarts.scoring.comparison import holm

#: p-values below it count as more than chance.
LEVEL = 0.05
#: Speakers from which on all of them can agree by chance less often than that: 2 / 2^6 < 0.05.
FEWEST = 6
#: Systems that a sentence names.
_NAMED = 6


def verdict(results: Sequence[Mapping[str, Any]], tests: Mapping[tuple[str, str], Any]) -> Remark:
    """Three sentences on one or more runs.

    Parameters
    ----------
    results : contents of ``result.json``, with names that differ.
    tests : results of :func:`emodarts.scoring.comparison.paired_test` by the two names.
    """
    text = _of_one(results[0]) if len(results) == 1 else _of_several(results, tests)
    return Remark("Verdict", text)


def _best_baseline(result: Mapping[str, Any]) -> tuple[str, float]:
    """The best baseline in words, and its UA."""
    chance = result["baselines"].get("chance", {}).get("ua", 1 / len(result["classes"]))
    rivals = {"chance": chance}
    rivals |= {name: scores["ua"] for name, scores in result["baselines"].items()}
    name, best = max(rivals.items(), key=lambda item: item[1])
    known = "random guessing" if name == "chance" else f"the baseline {name.replace('_', ' ')}"
    return known, best


def _of_one(result: Mapping[str, Any]) -> str:
    rival, best = _best_baseline(result)
    first = f"{result['name']} was tested on {_data(result)}."
    second = f"Its UA is {percent(result['ua'])} %, {_lead(result['ua'], best)} {rival}"
    second += "." if _is_tie(result["ua"], best) else f" ({percent(best)} %)."
    return f"{first} {second} {_against(result, best)}"


def _against(result: Mapping[str, Any], best: float) -> str:
    """Whether the difference between a system and its best baseline is chance."""
    interval = result["pooled"]["ua_interval"]
    by_speaker = result["pooled"]["bootstrap_unit"] == "speaker"
    if interval is None or not by_speaker or len(_speakers(result)) < FEWEST:
        return f"Fewer than {FEWEST} known speakers cannot show whether that is more than chance."
    low, high = interval
    where = f"The 95 % interval over speakers, {percent(low)} to {percent(high)} %,"
    if low > best:
        return f"{where} lies above that value, so the lead is more than chance."
    if high < best:
        return f"{where} lies below that value, so the deficit is more than chance."
    return f"{where} includes that value, so the difference could be chance."


def _of_several(results: Sequence[Mapping[str, Any]], tests: Mapping[tuple[str, str], Any]) -> str:
    names = [result["name"] for result in results]
    if len({(r["corpus"], tuple(sorted(r["classes"]))) for r in results}) > 1:
        return (
            f"{_joined(names)} were tested on different corpora or classes. No winner is named. No "
            "difference between corpora is tested."
        )
    most = max(r["n_test"] for r in results)
    whole = [result for result in results if result["n_test"] == most]
    parts = [result["name"] for result in results if result["n_test"] < most]
    left_out = (
        f" {_joined(parts)} {_were(parts)} tested on less and left out here." if parts else ""
    )
    if len(whole) == 1:
        return _of_one(whole[0]) + left_out
    names = [result["name"] for result in whole]
    ranked = sorted(whole, key=lambda result: -result["ua"])
    winner, second = ranked[0], ranked[1]
    if _is_tie(winner["ua"], second["ua"]):
        best = [r["name"] for r in ranked if _is_tie(r["ua"], winner["ua"])]
        won = f"{_joined(best)} share the highest UA, {percent(winner['ua'])} %"
    else:
        rival = second["name"] + (", the next best" if len(ranked) > 2 else "")
        won = (
            f"{winner['name']} has the highest UA, {percent(winner['ua'])} %, "
            f"{_lead(winner['ua'], second['ua'])} {rival} ({percent(second['ua'])} %)"
        )
    baseline, ua = _best_baseline(winner)
    if ua > winner["ua"]:
        won += f", but {baseline} has {percent(ua)} %"
    first = f"{_joined(names)} were tested on {_data(winner)}."
    return f"{first} {won}. {_tested(ranked, tests)}{left_out}"


def _tested(ranked: Sequence[Mapping[str, Any]], tests: Mapping[tuple[str, str], Any]) -> str:
    """Whether the winner's lead over the best rival that it was tested against is chance."""
    corrected = dict(zip(tests, holm([t["ua"]["p"] for t in tests.values()]), strict=True))
    winner, *others = ranked
    pairs = [
        (other, pair, sign)
        for other in others
        for pair, sign in (
            ((winner["name"], other["name"]), 1),
            ((other["name"], winner["name"]), -1),
        )
        if pair in tests
    ]
    if not pairs:
        return (
            f"No paired test of {winner['name']} was possible, so the difference could be chance."
        )
    rival, pair, sign = pairs[0]
    p, test = corrected[pair], tests[pair]
    how = f"a paired test over {test['n_speakers']} speakers gives "
    how += "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    how += f" after Holm's correction for {len(tests)} pairs" if len(tests) > 1 else ""
    tied = _is_tie(winner["ua"], rival["ua"])
    nearest = "" if rival is others[0] else ", the best that it was tested against,"
    what = "The difference between them" if tied else f"The lead over {rival['name']}{nearest}"
    if p >= LEVEL:
        return f"{what} could be chance: {how}."
    if sign * test["ua"]["difference"] > 0:
        return f"{what} is more than chance: {how}."
    return (
        f"{what} is no evidence for {winner['name']}: in the mean over speakers, "
        f"{rival['name']} is better, and {how}."
    )


def _data(result: Mapping[str, Any]) -> str:
    speakers = len(_speakers(result))
    by = f" by {_count(speakers, 'speaker')}" if speakers else ""
    folds, seeds = _count(len(result["folds"]), "fold"), _count(len(result["seeds"]), "seed")
    return (
        f"{_count(result['n_test'], 'utterance')}{by} from {result['corpus']} "
        f"({_count(len(result['classes']), 'class')}, {folds}, {seeds})"
    )


def _count(number: int, what: str) -> str:
    plural = {"class": "classes"}.get(what, f"{what}s")
    return f"{number:,} {what if number == 1 else plural}"


def _were(names: Sequence[str]) -> str:
    return "was" if len(names) == 1 else "were"


def _joined(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``; of many, the first ones and the number of the rest."""
    listed = list(names)
    if len(names) > _NAMED:
        listed = [*names[: _NAMED - 1], f"{len(names) - _NAMED + 1} others"]
    *first, last = listed
    return f"{', '.join(first)} and {last}" if first else last


def _speakers(result: Mapping[str, Any]) -> set[str]:
    return {speaker for fold in result["folds"] for speaker in fold["test_speakers"]}


def _is_tie(ua: float, other: float) -> bool:
    """Whether two values are printed as one."""
    return percent(ua) == percent(other)


def _lead(ua: float, other: float) -> str:
    """The difference of the percentages as they are printed, before the name of the other."""
    difference = float(percent(ua)) - float(percent(other))
    if _is_tie(ua, other):
        return "the same as"
    unit = "point" if f"{abs(difference):.1f}" == "1.0" else "points"
    return f"{abs(difference):.1f} {unit} {'above' if difference > 0 else 'below'}"
