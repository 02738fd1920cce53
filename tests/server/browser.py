"""A real browser that opens the demo."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = shutil.which("chromium")
_FLAGS = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--enable-unsafe-swiftshader",  # WebGL 2 without a graphics card
    "--ignore-gpu-blocklist",
    "--no-first-run",
    "--use-angle=swiftshader",
    "--use-gl=angle",
)
_IS_OPEN = "globalThis.clickseg?.state && document.getElementById('progress').hidden"
_WAIT_S = 60.0


@contextmanager
def launched() -> Iterator[Browser]:
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*_FLAGS, *sandbox])
        yield browser
        browser.close()


def wait_until(page: Page, condition: str) -> None:
    """Wait for a JavaScript expression; the page's policy allows no other way."""
    end = time.monotonic() + _WAIT_S
    while not page.evaluate(f"() => Boolean({condition})"):
        if time.monotonic() > end:
            raise TimeoutError(f"{condition}; the page says {page.inner_text('#message')!r}")
        time.sleep(0.02)


def open_page(
    browser: Browser, url: str, width: int = 1280, height: int = 720, has_touch: bool = False
) -> Page:
    """Open the demo and wait for its scan."""
    size = {"width": width, "height": height}
    page = browser.new_page(viewport=size, has_touch=has_touch)
    page.troubles = []  # type: ignore[attr-defined]
    page.on("pageerror", lambda error: page.troubles.append(str(error)))
    page.on("console", lambda m: m.type == "error" and page.troubles.append(m.text))
    page.on("request", lambda r: r.url.startswith(("http://127.0.0.1:", "blob:")) or
            page.troubles.append(f"asked for {r.url}"))  # fmt: skip
    page.asked = []  # type: ignore[attr-defined]
    page.on("dialog", lambda dialog: (page.asked.append(dialog.message), dialog.accept()))
    page.goto(url)
    wait_until(page, _IS_OPEN)
    return page


def settled(page: Page) -> dict:
    """Wait until everything that was asked for is on the screen; the page's state."""
    page.evaluate("() => clickseg.idle()")
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
    return page.evaluate("() => clickseg.state")


def picture(page: Page) -> np.ndarray:
    """The stage as it is on the screen: (y, x, 3) int."""
    shot = page.locator("#stage").screenshot()
    return np.asarray(Image.open(BytesIO(shot)).convert("RGB")).astype(int)


def place_of(page: Page, ijk: list[int]) -> tuple[float, float]:
    """Where a voxel of the scan's file is in the large view, on the stage."""
    page.evaluate("ijk => clickseg.viewer.goToFile(ijk)", ijk)
    places = page.evaluate("ijk => clickseg.viewer.placesOf(ijk)", ijk)
    return next(tuple(place["at"]) for place in places if place["tile"] == 0)


def click_voxel(page: Page, ijk: list[int], button: str = "left") -> dict:
    """Click a voxel of the scan's file as a hand would; the page's state after it."""
    left, top = place_of(page, ijk)
    frame = page.locator("#stage").bounding_box()
    page.mouse.click(frame["x"] + left, frame["y"] + top, button=button)
    return settled(page)


def download(page: Page, selector: str, folder: Path) -> Path:
    """Press a button that saves something; the file."""
    with page.expect_download() as saving:
        page.click(selector)
    path = folder / saving.value.suggested_filename
    saving.value.save_as(path)
    return path
