import itertools

import numpy as np
import pytest
from scipy import ndimage

from clickseg_infer.resample import from_network, mask_to_network, network_grid, to_network

WIDE = [(-1024.0, 1024.0)]


def read(voxels: np.ndarray, grid: object, start: tuple, size: tuple) -> np.ndarray:
    out = np.empty((1, *size), np.float32)
    to_network(voxels, grid, start, WIDE, out)
    return out[0] * 1024


def positions(grid: object, start: tuple, size: tuple) -> np.ndarray:
    axes = [
        (np.arange(s, s + n) + 0.5) * r - 0.5
        for s, n, r in zip(start, size, grid.ratio, strict=True)
    ]
    return np.array(np.meshgrid(*axes, indexing="ij"))


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("layout", ["C", "F", "flipped"])
def test_reading_at_the_same_spacing_is_exact(
    dtype: type, layout: str, rng: np.random.Generator
) -> None:
    voxels = rng.integers(-1000, 1000, (12, 14, 16)).astype(dtype)
    if layout == "F":
        voxels = np.asfortranarray(voxels)
    if layout == "flipped":
        voxels = voxels[::-1, :, ::-1]
    grid = network_grid(voxels.shape, (2.0, 1.0, 1.0), (2.0, 1.0, 1.0))
    assert grid.shape == voxels.shape
    patch = read(voxels, grid, (2, 3, 4), (8, 8, 8))
    assert patch == pytest.approx(voxels[2:10, 3:11, 4:12].astype(float), abs=1e-3)


def test_reading_is_trilinear_up_to_half_resolution(rng: np.random.Generator) -> None:
    voxels = rng.integers(-1000, 1000, (20, 24, 28)).astype(np.int16)
    grid = network_grid(voxels.shape, (3.0, 1.1, 1.3), (2.0, 2.0, 2.0))
    start, size = (3, 1, 2), (16, 10, 12)
    at = positions(grid, start, size)
    expected = ndimage.map_coordinates(voxels.astype(float), at, order=1, mode="nearest")
    assert read(voxels, grid, start, size) == pytest.approx(expected, abs=0.01)


def test_wide_looks_average_noise(rng: np.random.Generator) -> None:
    noise = rng.normal(0, 100, (64, 64, 64)).astype(np.float32)
    grid = network_grid(noise.shape, (1.0, 1.0, 1.0), (4.0, 4.0, 4.0))
    patch = read(noise, grid, (0, 0, 0), (16, 16, 16))
    assert patch.std() < 100 / 2.5
    ramp = np.broadcast_to(np.arange(64, dtype=np.float32), (64, 64, 64))
    patch = read(ramp, grid, (0, 0, 0), (16, 16, 16))
    assert patch[3, 3] == pytest.approx(np.arange(16) * 4 + 1.5, abs=0.6)


def test_outside_is_air_and_windows_clip() -> None:
    voxels = np.full((4, 4, 4), 40, np.int16)
    grid = network_grid(voxels.shape, (1.0, 1.0, 1.0), (1.0, 1.0, 1.0))
    out = np.empty((2, 8, 8, 8), np.float32)
    to_network(voxels, grid, (-2, -2, -2), [(-160, 240), (-1000, 0)], out)
    assert np.allclose(out[0, 2:6, 2:6, 2:6], 0, atol=1e-6)
    assert (out[1, 2:6, 2:6, 2:6] == 1).all()
    out[:, 2:6, 2:6, 2:6] = -1
    assert (out == -1).all()


def test_every_volume_voxel_comes_back_from_the_network_grid(rng: np.random.Generator) -> None:
    shape, spacing, network = (20, 30, 26), (3.0, 1.2, 0.9), (2.0, 2.0, 2.0)
    grid = network_grid(shape, spacing, network)
    logits = rng.normal(size=grid.shape).astype(np.float32)
    box = grid.volume_box((0, 0, 0), grid.shape)
    assert box == tuple((0, n) for n in shape)
    mask = from_network(logits, (0, 0, 0), grid, box, 0.1)
    at = np.array(np.meshgrid(*map(np.arange, shape), indexing="ij"), float)
    ratio = np.array(grid.ratio)[:, None, None, None]
    at = (at + 0.5) / ratio - 0.5
    expected = ndimage.map_coordinates(logits.astype(float), at, order=1, mode="nearest")
    clear = abs(expected - 0.1) > 1e-4
    assert np.array_equal(mask[clear], (expected > 0.1)[clear])
    assert clear.mean() > 0.99


def test_boxes_of_adjacent_patches_share_no_voxel_and_leave_none() -> None:
    grid = network_grid((50, 40, 30), (1.7, 0.8, 2.3), (2.0, 2.0, 2.0))
    z = [grid.volume_box((n, 0, 0), (7, 5, 5))[0] for n in range(0, 43, 7)]
    assert z[0][0] == 0
    assert all(a[1] == b[0] for a, b in itertools.pairwise(z))
    assert z[-1][1] == 50


def test_a_mask_survives_the_way_to_the_network_and_back() -> None:
    shape = (40, 40, 40)
    mask = np.zeros(shape, np.uint8)
    mask[10:30, 12:28, 8:34] = 1
    grid = network_grid(shape, (1.0, 1.0, 1.0), (1.0, 1.0, 1.0))
    out = np.empty((32, 32, 32), np.float32)
    crop, box = mask[10:30, 12:28, 8:34], ((10, 30), (12, 28), (8, 34))
    mask_to_network(crop, box, grid, (4, 4, 4), out)
    assert np.array_equal(out, mask[4:36, 4:36, 4:36])
    coarse = network_grid(shape, (1.0, 1.0, 1.0), (2.0, 2.0, 2.0))
    out = np.empty((20, 20, 20), np.float32)
    mask_to_network(crop, box, coarse, (0, 0, 0), out)
    assert np.array_equal(out, mask.reshape(20, 2, 20, 2, 20, 2).mean(axis=(1, 3, 5)))
