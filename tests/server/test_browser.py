"""The page in a real browser, on a real CT: what is on the screen, and what is saved."""

import json
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from clickseg_cli.main import main
from scipy import ndimage
from stand_ins import ORIENTATIONS, bright, make_spec

import clickseg_infer as cs
from clickseg_infer.server.fetch_viewer import is_current
from clickseg_infer.server.opening import Demo
from clickseg_infer.server.registry import Registry
from clickseg_infer.server.scans import Scans

browser_of = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from .browser import (  # noqa: E402
    CHROMIUM,
    click_voxel,
    download,
    launched,
    open_page,
    picture,
    place_of,
    settled,
    wait_until,
)
from .serving import served  # noqa: E402

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed"),
    pytest.mark.skipif(not is_current(), reason="the viewer was not fetched: there is no npm"),
]
SIZES = [(1280, 720), (1920, 1080), (820, 1180)]


@pytest.fixture(scope="module")
def browser() -> Iterator[browser_of.Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def real_scan(shared_data: Path) -> Path:
    return shared_data / "fixtures" / "ts_example_ct_sm_image.nii.gz"


@pytest.fixture(scope="module")
def real_url(real_scan: Path) -> Iterator[str]:
    """The bundled model, served on a real CT."""
    with cs.load_model() as loaded:
        model = loaded.shared()
        with served(Demo(model, Scans(real_scan, real_scan.parent), Registry())) as url:
            yield url


@pytest.fixture
def page(browser: browser_of.Browser, real_url: str) -> Iterator[browser_of.Page]:
    page = open_page(browser, real_url)
    yield page
    assert page.troubles == []
    page.close()


@pytest.fixture(scope="module")
def organs(real_scan: Path) -> list[list[int]]:
    """A voxel (i, j, k) deep inside each of the two largest organs."""
    path = real_scan.with_name("ts_example_ct_sm_label.nii.gz")
    labels = np.asarray(nib.load(path).dataobj).astype(int)
    largest = np.argsort(np.bincount(labels.ravel())[1:])[::-1][:2] + 1
    depths = [ndimage.distance_transform_edt(np.pad(labels == n, 1)) for n in largest]
    return [[int(p) - 1 for p in np.unravel_index(d.argmax(), d.shape)] for d in depths]


def segment(scan: Path, clicks: Path, out: Path) -> np.ndarray:
    """What the command line makes of a click file: (i, j, k)."""
    with pytest.raises(SystemExit) as end:
        main(["segment", str(scan), "--clicks", str(clicks), "-o", str(out)])
    assert end.value.code in (0, None)
    return np.asarray(nib.load(out).dataobj)


def tinted(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Where a picture has become more orange than it was, the first object's colour."""
    change = after - before
    return change[..., 0] - change[..., 2] > 20


def test_paging_clicking_correcting_and_saving(
    page: browser_of.Page, real_scan: Path, organs: list, tmp_path: Path
) -> None:
    start = picture(page)
    page.keyboard.press("PageUp")
    paged = picture(page)
    assert (paged != start).mean() > 0.02
    page.keyboard.press("PageDown")
    np.testing.assert_array_equal(picture(page), start)

    left, top = (round(p) for p in place_of(page, organs[0]))
    page.click("#markers")  # what changes is the mask, not a marker
    before = picture(page)
    state = click_voxel(page, organs[0])
    assert state["objects"][0]["clicks"] == [{"ijk": organs[0], "positive": True}]
    after = picture(page)
    mask = tinted(before, after)
    assert mask[top + 8, left + 8]
    assert 0.005 < mask.mean() < 0.5
    assert "ms server" in page.inner_text("#times")

    page.keyboard.press("Control+z")
    assert settled(page)["objects"][0]["voxels"] == 0
    np.testing.assert_array_equal(picture(page), before)
    page.keyboard.press("Control+Shift+z")
    settled(page)
    np.testing.assert_array_equal(picture(page), after)

    # Just inside the mask's edge, towards the left of the picture and beside the crosshair.
    row = mask[top + 8]
    x = left + 8 - int(np.argmin(row[: left + 9][::-1])) + 3
    edge = page.evaluate("([x, y]) => clickseg.viewer.pick(x, y).ijk", [x, top + 8])
    state = click_voxel(page, edge, button="right")
    assert [c["positive"] for c in state["objects"][0]["clicks"]] == [True, False]

    saved = download(page, "#save-mask", tmp_path)
    clicks = download(page, "#save-clicks", tmp_path)
    assert len(json.loads(clicks.read_text())["clicks"]) == 2
    segment(real_scan, clicks, tmp_path / "out.nii.gz")
    assert saved.read_bytes() == (tmp_path / "out.nii.gz").read_bytes()


def test_a_second_object_is_saved_beside_the_first(
    page: browser_of.Page, real_scan: Path, organs: list, tmp_path: Path
) -> None:
    click_voxel(page, organs[0])
    page.click("#next")
    assert settled(page)["active"] == 2
    page.fill("#objects li:nth-child(2) .name", "second organ")
    before = picture(page)
    state = click_voxel(page, organs[1])
    assert [len(o["clicks"]) for o in state["objects"]] == [1, 1]
    assert state["objects"][1]["name"] == "second organ"
    change = picture(page) - before
    assert (change[..., 2] - change[..., 0] > 20).mean() > 0.005  # blue, not the first's orange

    saved = np.asarray(nib.load(download(page, "#save-mask", tmp_path)).dataobj)
    with zipfile.ZipFile(download(page, "#save-clicks", tmp_path)) as archive:
        archive.extractall(tmp_path)
        one, two = (tmp_path / name for name in archive.namelist())
    first = segment(real_scan, one, tmp_path / "one.nii.gz")
    second = segment(real_scan, two, tmp_path / "two.nii.gz")
    np.testing.assert_array_equal(saved, np.where(first, 1, 2 * second))
    assert (saved == 2).any()


def test_windowing_zooming_and_views_change_the_picture(page: browser_of.Page) -> None:
    frame = page.locator("#stage").bounding_box()
    middle = page.evaluate("() => { const t = clickseg.viewer.tiles[0];"
                           " return [t.left + t.width / 2, t.top + t.height / 2]; }")  # fmt: skip
    x, y = frame["x"] + middle[0], frame["y"] + middle[1]
    seen = [picture(page)]

    def look(what: str) -> None:
        settled(page)
        now = picture(page)
        assert (now != seen[-1]).mean() > 0.01, what
        seen.append(now)

    page.click("[data-window=lung]")
    look("preset")
    page.mouse.move(x, y)
    assert "HU" in page.inner_text("#pointer")
    shown = page.inner_text("#pointer")
    page.keyboard.press("PageUp")
    settled(page)
    assert page.inner_text("#pointer").split(" at ")[1] != shown.split(" at ")[1]
    page.keyboard.press("PageDown")
    window = page.evaluate("() => clickseg.viewer.window")
    page.mouse.down()
    page.mouse.move(x + 60, y + 40, steps=4)
    page.mouse.up()
    look("drag to window")
    wider = page.evaluate("() => clickseg.viewer.window")
    assert wider[1] - wider[0] > window[1] - window[0]
    assert page.evaluate("() => clickseg.state.objects[0].clicks.length") == 0  # a drag is no click
    page.keyboard.down("Control")
    page.mouse.wheel(0, -300)
    page.keyboard.up("Control")
    look("zoom")
    page.keyboard.down("Shift")
    page.mouse.down()
    page.mouse.move(x - 60, y - 40, steps=4)
    page.mouse.up()
    page.keyboard.up("Shift")
    look("pan")
    page.keyboard.press("0")
    look("fit")
    page.mouse.wheel(0, 100)
    look("wheel")
    for key in "2", "3", "4":
        page.keyboard.press(key)
        look(f"view {key}")


def test_threshold_opacity_and_masks(page: browser_of.Page, organs: list) -> None:
    click_voxel(page, organs[0])
    page.evaluate("ijk => clickseg.viewer.goToFile(ijk)", organs[0])
    shown = picture(page)
    page.keyboard.press("m")
    hidden = picture(page)
    assert tinted(hidden, shown).mean() > 0.005
    page.keyboard.press("m")
    np.testing.assert_array_equal(picture(page), shown)
    assert page.locator("#threshold-note").is_hidden()
    voxels = page.evaluate("() => clickseg.state.objects[0].voxels")
    position = page.evaluate("() => clickseg.viewer.position")
    page.focus("#threshold")
    for _ in range(9):  # a slider's arrow keys are its own
        page.keyboard.press("ArrowRight")
    state = settled(page)
    assert state["objects"][0]["threshold"] == 0.95
    assert page.evaluate("() => clickseg.viewer.position") == position
    assert state["objects"][0]["voxels"] < voxels
    assert page.locator("#threshold-note").is_visible()


def test_another_scan_and_a_mask_are_opened_from_files(
    page: browser_of.Page, shared_data: Path, tmp_path: Path
) -> None:
    fixtures = shared_data / "fixtures"
    (tmp_path / "junk.nii.gz").write_bytes(b"junk")
    page.set_input_files("#scan-file", tmp_path / "junk.nii.gz")
    wait_until(page, "!document.getElementById('message').hidden")
    assert page.inner_text("#message").startswith("junk.nii.gz: ")
    before = picture(page)
    page.troubles.clear()  # the browser notes a 400 in its console
    click_voxel(page, page.evaluate("() => clickseg.state.shape.map(n => n >> 1)"))
    assert page.asked == []
    page.set_input_files("#scan-file", fixtures / "cip64_image.nii.gz")
    wait_until(page, "clickseg.state?.scan === 'cip64_image.nii.gz'")
    assert "has not been saved" in page.asked[0]
    settled(page)
    assert page.input_value("#scans") == ""
    assert (picture(page) != before).mean() > 0.1
    drop = page.evaluate_handle(
        """async () => {
            const scan = await (await fetch(`/api/sessions/${clickseg.state.session}/scan`)).blob();
            const dropped = new DataTransfer();
            dropped.items.add(new File([scan], "dropped.nii.gz"));
            return dropped;
        }"""
    )
    page.dispatch_event("#stage", "drop", {"dataTransfer": drop})
    wait_until(page, "clickseg.state?.scan === 'dropped.nii.gz'")
    settled(page)
    without = picture(page)
    page.set_input_files("#mask-file", fixtures / "cip64_label.nii.gz")
    wait_until(page, "clickseg.state.objects[0].began_with_mask")
    settled(page)
    assert tinted(without, picture(page)).mean() > 0.02
    saved = np.asarray(nib.load(download(page, "#save-mask", tmp_path)).dataobj)
    given = np.asarray(nib.load(fixtures / "cip64_label.nii.gz").dataobj)
    np.testing.assert_array_equal(saved, given)


def test_a_reply_that_was_lost_leaves_no_wrong_mask(
    browser: browser_of.Browser, ball_file: Path
) -> None:
    demo = Demo(cs.Model(make_spec(), cs.FunctionEngine(bright)), Scans(ball_file), Registry())
    with served(demo) as url:
        page = open_page(browser, url)

        def lose(route: browser_of.Route) -> None:
            route.fetch()  # the server has done it
            route.abort()

        for pattern in ("**/clicks", re.compile("/(clicks|labels)$")):
            page.route(pattern, lose)
            click_voxel(page, [50, 40, 20])
            page.unroute(pattern)
            state = click_voxel(page, [52, 40, 20], "right")
            labelling = demo.registry.find(state["session"]).labelling
            assert len(state["objects"][0]["clicks"]) == len(labelling.active.session.clicks) == 2
            assert labels_on_screen(page).any()
            np.testing.assert_array_equal(labels_on_screen(page), labelling.labels)
            page.click("#reset")
            assert not labels_on_screen(page).any()
        page.close()


def labels_on_screen(page: browser_of.Page) -> np.ndarray:
    """The labels (z, y, x) that the viewer has."""
    settled(page)
    x, y, z = page.evaluate("() => clickseg.viewer.grid.xyz")
    flat = page.evaluate("() => Array.from(clickseg.viewer.nv.drawBitmap)")
    return np.array(flat, np.uint8).reshape(z, y, x)


def test_the_scan_that_is_open_stays_if_the_next_cannot_be_shown(
    browser: browser_of.Browser, ball_file: Path, tmp_path: Path
) -> None:
    voxels = np.full((20, 30, 40), 7, np.uint64)
    nib.save(nib.Nifti1Image(voxels, np.eye(4), dtype=np.uint64), tmp_path / "long.nii")
    other = tmp_path / "more" / "other.nii.gz"
    other.parent.mkdir()
    shutil.copy(ball_file, other)
    model = cs.Model(make_spec(), cs.FunctionEngine(bright))
    demo = Demo(model, Scans(ball_file, other.parent), Registry())
    with served(demo) as url:
        page = open_page(browser, url)
        made = click_voxel(page, [50, 40, 20])
        before = picture(page)

        def still_there() -> None:
            wait_until(page, "!document.getElementById('message').hidden")
            assert settled(page) == made
            page.evaluate("() => { document.getElementById('message').hidden = true; }")
            page.mouse.move(0, 0)
            assert len(demo.registry) == 1
            np.testing.assert_array_equal(picture(page), before)
            assert page.inner_text("#scan-name") == "ball.nii.gz"

        page.mouse.move(0, 0)
        before = picture(page)
        page.set_input_files("#scan-file", tmp_path / "long.nii")
        still_there()
        page.route("**/scan", lambda route: route.abort())
        page.set_input_files("#scan-file", other)
        still_there()
        page.unroute("**/scan")
        # What was meant for the scan before is not done to the next one.
        page.evaluate(
            """() => {
                const scans = document.getElementById("scans");
                const threshold = document.getElementById("threshold");
                scans.value = "other.nii.gz";
                scans.onchange();
                threshold.value = 0.9;
                threshold.onchange();
            }"""
        )
        state = settled(page)
        assert (state["scan"], len(demo.registry)) == ("other.nii.gz", 1)
        assert state["objects"][0]["threshold"] == 0.5
        assert page.locator("#message").is_hidden()
        page.close()


def test_a_session_that_was_closed_is_made_again_from_its_clicks(
    browser: browser_of.Browser, ball_file: Path, tmp_path: Path
) -> None:
    demo = Demo(cs.Model(make_spec(), cs.FunctionEngine(bright)), Scans(ball_file), Registry())
    with served(demo) as url:
        page = open_page(browser, url)
        for ijk, button in (([50, 40, 20], "left"), ([56, 40, 20], "right")):
            click_voxel(page, ijk, button)
        for ijk in ([44, 40, 20], [10, 10, 5]):
            page.click("#next")
            settled(page)
            click_voxel(page, ijk)
        page.fill("#objects li:nth-child(2) .name", "the middle one")
        page.keyboard.press("Enter")
        page.click("#objects li:nth-child(1) button")
        made = settled(page)
        assert ([o["number"] for o in made["objects"]], made["active"]) == ([2, 3], 2)
        saved = download(page, "#save-mask", tmp_path).read_bytes()
        demo.registry.close_all()
        again = click_voxel(page, [46, 40, 20])  # which is not lost either
        assert again["session"] != made["session"]
        last = again["objects"][0]["clicks"].pop()
        assert last == {"ijk": [46, 40, 20], "positive": True}
        assert again["active"] == 2
        for one, other in zip(again["objects"], made["objects"], strict=True):
            for key in ("number", "name", "threshold", "clicks"):
                assert one[key] == other[key]
        labels = demo.registry.find(again["session"]).labelling.labels
        np.testing.assert_array_equal(labels_on_screen(page), labels)
        page.keyboard.press("Control+z")
        assert settled(page)["objects"] == made["objects"]
        assert download(page, "#save-mask", tmp_path).read_bytes() == saved
        page.close()


def test_a_dicom_folder_is_opened(page: browser_of.Page, shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "fixtures" / "totalsegmentator_example_ct_dicom"
    before = picture(page)
    page.set_input_files("#scan-folder", folder)
    wait_until(page, f"clickseg.state?.scan === '{folder.name}'")
    settled(page)
    assert (picture(page) != before).mean() > 0.1
    shape = page.evaluate("() => clickseg.state.shape")
    label = nib.load(folder.with_name("ts_example_dicom_label.nii.gz"))
    assert sorted(shape) == sorted(label.shape)
    assert page.evaluate("() => clickseg.viewer.grid.ijk") == shape
    page.evaluate("shape => clickseg.viewer.goToFile(shape.map(n => n >> 1))", shape)
    click_voxel(page, [n // 2 for n in shape])
    assert nib.load(download(page, "#save-mask", tmp_path)).shape == tuple(shape)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_everything_is_within_reach_at_every_size(
    browser: browser_of.Browser, real_url: str, width: int, height: int
) -> None:
    page = open_page(browser, real_url, width, height)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    assert page.evaluate("() => document.documentElement.scrollHeight") <= height
    for button in page.locator("button:visible, input[type=range]:visible").all():
        button.scroll_into_view_if_needed()
        box = button.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["y"] + box["height"] <= height, button.inner_text()
    tiles = page.evaluate("() => clickseg.viewer.tiles")
    assert tiles[0]["width"] * tiles[0]["height"] > 0.2 * width * height
    page.keyboard.press("?")
    assert page.locator("#help-dialog").is_visible()
    box = page.locator("#help-dialog").bounding_box()
    assert box["height"] <= height
    page.keyboard.press("Escape")
    assert page.locator("#help-dialog").is_hidden()
    page.close()


def test_every_file_order_shows_the_same_anatomy(
    browser: browser_of.Browser, ball_file: Path, tmp_path: Path
) -> None:
    """The same place on the screen is clicked; picture and mask are those of the plain order."""
    folder = tmp_path / "turned"
    folder.mkdir()
    voxels = np.array(cs.read_volume(ball_file).voxels)
    voxels[10:, 20:30, 20:70] = 60  # something that no mirror or turn leaves as it is
    plain = nib.Nifti1Image(voxels.T.copy(), np.diag([1.2, 1.5, 3.0, 1.0]))
    for number in (0, 13, 22, 27, 38, 47):
        turned = plain.as_reoriented(ORIENTATIONS[number])
        nib.save(turned, folder / f"{number:02}.nii.gz")
    # A header may hold two matrices, of which the first one counts, or none, which means a mirror.
    twice = nib.Nifti1Image(voxels.T.copy(), plain.affine)
    twice.set_sform(plain.affine, 1)
    twice.set_qform(np.diag([-1.2, 1.5, 3.0, 1.0]), 2)
    nib.save(twice, folder / "twice.nii.gz")
    none = nib.Nifti1Image(voxels.T[::-1].copy(), None)
    none.header.set_zooms((1.2, 1.5, 3.0))
    nib.save(none, folder / "none.nii.gz")
    model = cs.Model(make_spec(), cs.FunctionEngine(bright)).shared()
    with served(Demo(model, Scans(None, folder), Registry())) as url:
        page = open_page(browser, url)
        wanted = None
        for name in page.evaluate("() => [...document.getElementById('scans').options]"
                                  ".map(option => option.value)"):  # fmt: skip
            if wanted is not None:
                page.select_option("#scans", name)
                wait_until(page, f"clickseg.state?.scan === '{name}'")
                settled(page)
            tile = page.evaluate("() => clickseg.viewer.tiles[0]")
            frame = page.locator("#stage").bounding_box()
            x, y = tile["left"] + 0.55 * tile["width"], tile["top"] + 0.45 * tile["height"]
            page.mouse.click(frame["x"] + x, frame["y"] + y)
            assert settled(page)["objects"][0]["voxels"] > 1000
            page.mouse.move(0, 0)
            now = picture(page)
            wanted = now if wanted is None else wanted
            assert np.abs(now - wanted).max() <= 3, name
        assert page.troubles == []
        page.close()
