"""The benchmark of a search step, at a size of seconds."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "search_step.py"
PROMISED = {
    "cnn_speedup",
    "seqnn_speedup",
    "seqnn_peak_fraction",
    "step_speedup",
    "peak_memory_ratio",
    "loss_relative_error",
    "alpha_grad_relative_error",
    "cnn_calls_ratio",
}


def test_it_writes_what_it_promises(tmp_path: Path) -> None:
    out = tmp_path / "step.json"
    command = [sys.executable, str(SCRIPT), "--small", "--repeats", "1", "--order", "2"]
    subprocess.run([*command, "--json", str(out)], check=True, capture_output=True, timeout=540)
    found = json.loads(out.read_text())
    assert found.keys() >= PROMISED
    assert all(found[name] > 0 for name in PROMISED - {"loss_relative_error"})
    assert found["loss_relative_error"] < 1e-5
    assert found["alpha_grad_relative_error"] < 1e-2
    assert found["arguments"]["order"] == 2
    assert found["environment"]["threads"] == found["arguments"]["threads"]
