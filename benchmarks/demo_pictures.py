"""The README's pictures of `clickseg demo`: real frames of the page on a real CT.

    python benchmarks/demo_pictures.py

The CT is LIDC-IDRI-0001 (TCIA, CC BY 3.0), which lies beside this checkout, not in it.
"""

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

import clickseg_infer as cs
from clickseg_infer.server.opening import Demo
from clickseg_infer.server.registry import Registry
from clickseg_infer.server.scans import Scans

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "pictures"
CASE = ROOT.parent / "shared" / "data" / "Task23_ChestOrgans" / "imagesTr" / "chest_001.nii.gz"
SLICE = 42
# Voxels (i, j, k) of the scan, and the mouse's button.
LIVER = [((158, 282), "left"), ((302, 353), "left"), ((308, 286), "right")]
SPLEEN = [((382, 213), "left"), ((320, 197), "left")]
FRAME = (960, 540)  # of the animation

sys.path.insert(0, str(ROOT / "tests" / "server"))
from browser import click_voxel, launched, open_page, settled  # noqa: E402
from serving import served  # noqa: E402


def main() -> None:
    """Click once through the demo at two sizes."""
    OUT.mkdir(exist_ok=True)
    with cs.load_model() as loaded:
        model = loaded.shared()
        demo = Demo(model, Scans(CASE), Registry(), cs.read_volume(CASE))
        warm_up(demo)
        with served(demo) as url, launched() as browser:
            page = open_page(browser, url)
            frames = clicked_through(page)
            save_still(page, "demo-desktop.webp")
            page.close()
            save_animation(frames, "demo.webp")
            page = open_page(browser, url, 820, 1180)
            clicked_through(page)
            save_still(page, "demo-tablet.webp")
            page.close()


def warm_up(demo: Demo) -> None:
    """Have everything loaded, as it is after anybody's first click."""
    session = cs.Session(demo.model, cs.read_volume(CASE))
    for (i, j), _ in LIVER[:2]:
        session.click(session.volume.zyx_of_ijk((i, j, SLICE)))


def clicked_through(page: Page) -> list[tuple[Image.Image, int]]:
    """Frames of a short session, and for how many milliseconds each is shown."""
    frames = []

    def frame(ms: int) -> None:
        frames.append((Image.open(io.BytesIO(page.screenshot())).convert("RGB"), ms))

    page.evaluate("k => clickseg.viewer.goToFile([256, 256, k])", SLICE + 12)
    frame(900)
    for _ in range(12):
        page.keyboard.press("PageDown")
        frame(70)
    for place, button in LIVER:
        click_voxel(page, [*place, SLICE], button)
        frame(1200)
    page.fill("#objects .active .name", "liver")
    page.click("#next")
    settled(page)
    frame(700)
    for place, button in SPLEEN:
        click_voxel(page, [*place, SLICE], button)
        frame(1200)
    page.fill("#objects .active .name", "spleen")
    page.keyboard.press("Enter")
    page.evaluate("() => document.activeElement.blur()")
    settled(page)
    for _ in range(10):
        page.keyboard.press("PageUp")
        frame(90)
    page.evaluate("k => clickseg.viewer.goToFile([320, 230, k])", SLICE)
    frame(2000)
    return frames


def save_still(page: Page, name: str) -> None:
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.save(OUT / name, quality=88, method=6)


def save_animation(frames: list[tuple[Image.Image, int]], name: str) -> None:
    small = [picture.resize(FRAME, Image.Resampling.LANCZOS) for picture, _ in frames]
    small[0].save(
        OUT / name,
        save_all=True,
        append_images=small[1:],
        duration=[ms for _, ms in frames],
        loop=0,
        quality=60,
        method=6,
    )


if __name__ == "__main__":
    main()
