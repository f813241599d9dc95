"""Compare two results of one benchmark: the ratio of every number, and which of them differ.

    python benchmarks/compare.py BEFORE.json AFTER.json

A number differs if its two ranges do not meet: from least to most where it was measured several
times, else half of ``--tolerance`` to either side. Exit code: 0 if nothing differs, 1 if something
does, 2 if the files cannot be compared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emodarts import files
from emodarts.errors import EmodartsError
from measure import DESCRIPTION, Spread

_SPREAD = {"median", "least", "most"}


def numbers(value: Any, name: str = "") -> Iterator[tuple[str, Spread | float]]:
    """Every number in a result with its place; what was measured several times stays whole."""
    if isinstance(value, dict) and set(value) == _SPREAD:
        yield name, value
    elif isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from numbers(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, value


def read(path: Path) -> dict[str, Any]:
    """A result. Raises :class:`EmodartsError`."""
    return files.read_object(path, EmodartsError, *DESCRIPTION)


def notes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What besides the code may make the difference. Raises for different benchmarks."""
    if before["benchmark"] != after["benchmark"]:
        raise EmodartsError(
            f"results of different benchmarks: {before['benchmark']!r} and {after['benchmark']!r}"
        )
    found = []
    for part in ("arguments", "environment"):
        for key in sorted({*before[part], *after[part]}):
            first, second = before[part].get(key), after[part].get(key)
            if first != second:
                found.append(f"{part}.{key} differs: {first} and {second}")
    return found


def differs(first: Spread | float, second: Spread | float, tolerance: float) -> bool:
    """Whether two numbers are apart by more than their ranges."""
    (low, high), (least, most) = _range(first, tolerance), _range(second, tolerance)
    return high < least or most < low


def _range(value: Spread | float, tolerance: float) -> tuple[float, float]:
    if isinstance(value, dict) and value["least"] < value["most"]:
        return value["least"], value["most"]
    middle = _middle(value)
    margin = abs(middle) * tolerance / 2
    return middle - margin, middle + margin


def _middle(value: Spread | float) -> float:
    return value["median"] if isinstance(value, dict) else value


def compare(before: dict[str, Any], after: dict[str, Any], tolerance: float) -> bool:
    """Print every number of both with its ratio; return whether any differs."""
    first, second = (
        dict(numbers({k: v for k, v in r.items() if k not in DESCRIPTION})) for r in (before, after)
    )
    shared = [name for name in first if name in second]
    width = max((len(name) for name in shared), default=0)
    any_differs = False
    for name in shared:
        one, two = _middle(first[name]), _middle(second[name])
        ratio = f"{two / one:8.3f}" if one else "       -"
        apart = differs(first[name], second[name], tolerance)
        any_differs |= apart
        print(f"{name:{width}} {one:12.5g} {two:12.5g} {ratio}{'  differs' if apart else ''}")
    for name in sorted(set(first) ^ set(second)):
        any_differs = True
        print(f"{name}: only in the {'first' if name in first else 'second'} file")
    return any_differs


def main() -> int:
    """Print the comparison; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--tolerance", type=float, default=0.05, help="default: 0.05")
    arguments = parser.parse_args()
    try:
        before, after = read(arguments.before), read(arguments.after)
        for note in notes(before, after):
            print(f"note: {note}")
    except EmodartsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return int(compare(before, after, arguments.tolerance))


if __name__ == "__main__":
    sys.exit(main())
