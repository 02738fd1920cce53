from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import clickseg_infer as cs


def test_the_picture_shows_three_slices_the_mask_and_the_clicks(
    ball_volume: cs.Volume, tmp_path: Path
) -> None:
    mask = (ball_volume.voxels > 0).astype(np.uint8)
    clicks = [cs.Click((20, 40, 50)), cs.Click((20, 60, 50), positive=False)]
    cs.write_preview(tmp_path / "p.png", ball_volume, mask, clicks)
    picture = np.asarray(Image.open(tmp_path / "p.png").convert("RGB"), int)
    # 120 mm square, twice 120 x 120 mm: the three slices of this volume are 120 mm high and wide.
    assert picture.shape == (480, 3 * 480, 3)
    red, green, blue = np.moveaxis(picture, 2, 0)
    orange = (red > 200) & (green > 120) & (green < 220) & (blue < 60)
    for left in (0, 480, 960):
        rows, columns = np.nonzero(orange[:, left : left + 480])
        assert rows.mean() == pytest.approx(240, abs=8)
        assert columns.mean() == pytest.approx(240, abs=8)
        assert np.ptp(rows) == pytest.approx(4 * 50, abs=16)  # 50 mm at 4 pixels a millimetre
    negative = (red > 200) & (green < 100) & (blue < 100)
    assert 4 * negative[:, 480:960].sum() < 3 * negative[:, :480].sum()  # hollow, filled
    assert negative[:, 480:960].any()


def test_bad_names(ball_volume: cs.Volume, tmp_path: Path) -> None:
    for path in (tmp_path / "p.jpg", tmp_path / "no" / "p.png"):
        with pytest.raises(cs.FileError, match=path.name):
            cs.write_preview(path, ball_volume, np.zeros(ball_volume.shape, np.uint8), [])


def test_one_slice_makes_no_endless_stripe(tmp_path: Path) -> None:
    volume = cs.Volume(np.zeros((1, 512, 512), np.int16), np.diag([1.0, 1.0, 0.5, 1.0]))
    cs.write_preview(tmp_path / "p.png", volume, np.ones(volume.shape, np.uint8), [])
    width, height = Image.open(tmp_path / "p.png").size
    assert height == 480
    assert width <= 3 * 1440
