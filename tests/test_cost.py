"""What computations are said to cost."""

from __future__ import annotations

import numpy as np

from emodarts.cost import Meter, Spent


def test_costs_add_up_and_the_higher_peak_remains() -> None:
    first, second = Spent(1.5, 2.0, 3, 500.0), Spent(0.25, 0.5, 4, 200.0)
    assert first + second == second + first == Spent(1.75, 2.5, 7, 500.0)
    assert first + Spent() == first
    assert Spent.of({k: str(v) for k, v in first.to_dict().items()}) == first


def test_a_meter_sees_memory_and_work_since_it_was_made() -> None:
    numbers = np.ones(40 * 2**20)  # 320 MiB, touched, and forgotten before the second meter
    first = Meter().spent(3)
    assert float(numbers.sum()) == numbers.size
    del numbers
    second = Meter()
    while second.spent().processor_seconds < 0.01:
        pass
    found = second.spent()
    assert found.seconds >= 0.01
    assert (first.steps, found.steps) == (3, 0)
    assert first.peak_memory > 320
