"""The page under fingers, keys and a token, in a real browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from stand_ins import bright, make_spec

import clickseg_infer as cs
from clickseg_infer.server.fetch_viewer import is_current
from clickseg_infer.server.opening import Demo
from clickseg_infer.server.registry import Registry
from clickseg_infer.server.scans import Scans

browser_of = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from .browser import (  # noqa: E402
    CHROMIUM,
    click_voxel,
    launched,
    open_page,
    place_of,
    settled,
    wait_until,
)
from .serving import served  # noqa: E402

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed"),
    pytest.mark.skipif(not is_current(), reason="the viewer was not fetched: there is no npm"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[browser_of.Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture
def tablet(browser: browser_of.Browser, ball_file: Path) -> Iterator[browser_of.Page]:
    demo = Demo(cs.Model(make_spec(), cs.FunctionEngine(bright)), Scans(ball_file), Registry())
    with served(demo) as url:
        page = open_page(browser, url, 820, 1180, has_touch=True)
        yield page
        assert page.troubles == []
        page.close()


def test_fingers_and_keys_choose_what_a_click_does(tablet: browser_of.Page) -> None:
    page = tablet
    frame = page.locator("#stage").bounding_box()

    def clicks() -> list[bool]:
        return [click["positive"] for click in settled(page)["objects"][0]["clicks"]]

    def at(ijk: list[int]) -> tuple[float, float]:
        left, top = place_of(page, ijk)
        return frame["x"] + left, frame["y"] + top

    page.touchscreen.tap(*at([50, 40, 20]))
    assert clicks() == [True]
    page.click("#mode [data-positive='']")
    page.touchscreen.tap(*at([58, 40, 20]))
    assert clicks() == [True, False]
    page.keyboard.press("x")
    page.keyboard.down("Alt")
    page.mouse.click(*at([42, 40, 20]))
    page.keyboard.up("Alt")
    assert clicks() == [True, False, False]
    page.keyboard.down("Shift")
    page.mouse.click(*at([50, 46, 20]))
    page.keyboard.up("Shift")
    assert clicks() == [True, False, False]  # only looked at
    page.click("#clicks .chip:nth-child(2) button:last-child")
    assert clicks() == [True, False]


def test_a_finger_pages_and_two_move_the_picture(tablet: browser_of.Page) -> None:
    page = tablet
    frame = page.locator("#stage").bounding_box()
    tile = page.evaluate("() => clickseg.viewer.tiles[0]")
    x = frame["x"] + tile["left"] + tile["width"] / 2
    y = frame["y"] + tile["top"] + tile["height"] / 2
    touch = page.context.new_cdp_session(page)

    def slide(*starts: tuple[float, float], dx: float = 0, dy: float = 0) -> list:
        for step in range(5):
            points = [
                {"x": x + a + dx * step / 4, "y": y + b + dy * step / 4, "id": n}
                for n, (a, b) in enumerate(starts)
            ]
            kind = "touchMove" if step else "touchStart"
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        assert settled(page)["objects"][0]["clicks"] == []
        return seen()

    def seen() -> list:
        return page.evaluate(
            "() => [clickseg.viewer.position, clickseg.viewer.window,"
            " Array.from(clickseg.viewer.nv.scene.pan2Dxyzmm)]"
        )

    before = seen()
    position, window, pan = slide((0, 0), dy=100)
    assert position[2] < before[0][2]
    assert (position[:2], window, pan) == (before[0][:2], *before[1:])
    assert slide((0, 0), dy=-100)[0] == before[0]

    page.click("#finger")
    position, window, _ = slide((0, 0), dy=80)
    assert position == before[0]
    assert window != before[1]
    *same, pan = slide((-40, 0), (40, 0), dx=60, dy=30)
    assert same == [position, window]
    assert pan[3] == pytest.approx(1, abs=0.05)
    assert np.abs(pan[:3]).max() > 5


def test_what_is_typed_and_which_keys_are_ours(
    browser: browser_of.Browser, ball_file: Path
) -> None:
    shutil.copy(ball_file, ball_file.with_name("other.nii.gz"))
    model = cs.Model(make_spec(), cs.FunctionEngine(bright))
    with served(Demo(model, Scans(ball_file, ball_file.parent), Registry())) as url:
        page = open_page(browser, url)
        saved = []
        page.on("download", lambda download: saved.append(download))
        page.keyboard.press("s")
        click_voxel(page, [50, 40, 20])
        page.keyboard.press("Meta+m")
        page.keyboard.press("Meta+s")
        settled(page)
        assert saved == []
        assert page.evaluate("() => clickseg.viewer.nv.drawOpacity") > 0
        page.click("#next")
        settled(page)
        unhindered = page.evaluate(  # or no colour could be chosen
            "() => document.querySelector('#objects output').dispatchEvent("
            "new MouseEvent('click', { bubbles: true, cancelable: true }))"
        )
        assert unhindered
        page.click("#objects li:nth-child(1) .name")
        settled(page)
        page.keyboard.press("Control+a")
        page.keyboard.type("xnh")  # keys that do something elsewhere
        page.keyboard.press("Enter")
        state = settled(page)
        assert [o["name"] for o in state["objects"]] == ["xnh", "object 2"]
        assert (state["active"], len(saved)) == (1, 0)
        assert page.input_value("#scans") == "ball.nii.gz"
        page.evaluate("() => { globalThis.confirm = () => false; }")
        page.select_option("#scans", "other.nii.gz")
        assert settled(page)["scan"] == "ball.nii.gz"
        assert page.input_value("#scans") == "ball.nii.gz"
        assert page.troubles == []
        page.close()


def test_a_token_lets_in_and_is_not_left_in_the_address(
    browser: browser_of.Browser, ball_file: Path
) -> None:
    model = cs.Model(make_spec(), cs.FunctionEngine(bright))
    with served(Demo(model, Scans(ball_file), Registry()), token="sesame") as url:
        page = open_page(browser, url)
        assert "sesame" not in page.url
        page.reload()
        wait_until(page, "globalThis.clickseg?.state")
        page.close()
        stranger = browser.new_page()
        stranger.goto(url.split("#")[0])
        stranger.wait_for_selector("#message:not([hidden])")
        assert "token" in stranger.inner_text("#message")
        stranger.close()
