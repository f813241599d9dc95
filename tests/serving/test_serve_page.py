"""The page of the web server, in a browser with a microphone that plays a file."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from served import CLASSES, Served, write

from emodarts.serving.model import Model

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
KEEP_UPLOAD = """
    const plain = window.fetch;
    window.fetch = (path, options) => {
        if (options?.body) window.sent = options.body.get("file");
        return plain(path, options);
    };
"""
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path")


@pytest.fixture(scope="module")
def spoken(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real recording, or where there is none, a generated one."""
    try:
        return next(iter(sorted(request.getfixturevalue("emodb_root").rglob("03a01*.wav"))))
    except pytest.skip.Exception:
        return write(tmp_path_factory.mktemp("spoken") / "spoken.wav")


@pytest.fixture(scope="module")
def browser(spoken: Path) -> Iterator[Any]:
    flags = (
        *("--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
        f"--use-file-for-fake-audio-capture={spoken}%noloop",
        "--autoplay-policy=no-user-gesture-required",
    )
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=list(flags))
        yield found
        found.close()


def opened(browser: Any, server: Served, width: int, scheme: str, faults: list[str]) -> Any:
    """A page whose errors, and whose requests to elsewhere, are faults."""
    size = {"width": width, "height": 800}
    page = browser.new_page(viewport=size, color_scheme=scheme)
    page.set_default_timeout(120_000)
    page.on("console", lambda m: faults.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    own = (server.url, f"blob:{server.url}", server.url.replace("http", "ws"))
    page.on("request", lambda r: None if r.url.startswith(own) else faults.append(r.url))
    page.add_init_script(KEEP_UPLOAD)
    page.goto(server.url)
    page.wait_for_selector("#parts li")
    return page


def until(page: Any, script: str) -> None:
    """Wait until a function gives true. The page's own policy forbids playwright's way."""
    for _ in range(600):
        if page.evaluate(script):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"never true: {script}")


def test_a_recording_by_keyboard(
    browser: Any, server: Served, served_model: Path, spoken: Path
) -> None:
    faults: list[str] = []
    page = opened(browser, server, 1200, "light", faults)
    assert page.locator("#parts b").all_inner_texts()[0] == "Log-mel bands"
    until(page, "() => document.querySelector('#drawing').naturalWidth > 300")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "record"
    page.keyboard.press("Enter")
    until(page, "() => /\\d%/.test(document.querySelector('#live-bars').textContent)")
    page.keyboard.press("Enter")
    page.wait_for_selector("#result:not([hidden])")

    # What was sent is what the microphone gave, and the answer that of predict.
    bytes_of = "async () => Array.from(new Uint8Array(await window.sent.arrayBuffer()))"
    sent, rate = soundfile.read(io.BytesIO(bytes(page.evaluate(bytes_of))))
    played, played_rate = soundfile.read(spoken)
    assert similarity(sent, rate, played, played_rate) > 0.9
    (expected,) = Model.load(served_model).predict(sent, sample_rate=rate)
    assert page.inner_text("#answer").startswith(expected.label.capitalize())
    shares = page.locator("#bars .share").all_inner_texts()
    assert shares == [f"{round(100 * expected.probabilities[c])}%" for c in CLASSES]
    assert page.locator("#ribbon div").count() >= 1

    assert page.inner_text("#stretch") == "Whole recording"
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "position":
            break
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#stretch").startswith("0:00.0 – 0:0")
    assert faults == []
    page.close()


def similarity(a: np.ndarray[Any, Any], a_rate: int, b: np.ndarray[Any, Any], b_rate: int) -> float:
    """Greatest correlation of two recordings over all shifts, at 4 kHz."""
    a, b = (
        np.interp(np.arange(0, len(x) / r, 1 / 4000), np.arange(len(x)) / r, x)
        for x, r in ((a, a_rate), (b, b_rate))
    )
    n = len(a) + len(b)
    found = np.fft.irfft(np.fft.rfft(a, n) * np.fft.rfft(b, n).conj(), n)
    return float(found.max() / np.linalg.norm(a) / np.linalg.norm(b))


def test_a_file_on_a_phone_in_the_dark(browser: Any, server: Served, tmp_path: Path) -> None:
    faults: list[str] = []
    page = opened(browser, server, 360, "dark", faults)
    page.set_input_files("#file", write(tmp_path / "talk.wav", 9.0, 44100, 2))
    page.wait_for_selector("#result:not([hidden])")
    assert page.inner_text("#name") == "talk.wav, 0:09.0"
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    painted = """() => {
        const wave = document.querySelector("#wave");
        const data = wave.getContext("2d").getImageData(0, 0, wave.width, wave.height).data;
        return data.filter((value, k) => k % 4 === 3 && value).length / wave.width;
    }"""
    assert page.evaluate(painted) > 3  # more than a line
    luminance = (
        """() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"""
    )
    assert max(page.evaluate(luminance)) < 60
    page.click("summary >> text=table")
    assert page.locator("#table tr").count() == 1 + 8  # windows of 2 s every second

    (tmp_path / "notes.wav").write_text("no sound")
    page.set_input_files("#file", tmp_path / "notes.wav")
    page.wait_for_selector("#status.bad")
    assert "cannot be decoded" in page.inner_text("#status")
    assert all("422" in fault for fault in faults), faults
    page.close()
