import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import clickseg_infer as cs
from clickseg_infer import interpolate
from clickseg_infer.resample import from_network, mask_to_network, network_grid, to_network

WIDE = [(-1024.0, 1024.0)]

sizes = st.tuples(*[st.integers(1, 18)] * 3)
starts = st.tuples(*[st.integers(-6, 12)] * 3)
spacings = st.tuples(*[st.floats(0.6, 5)] * 3)
seeds = st.integers(0, 2**32 - 1)


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


def stored_as(voxels: np.ndarray, order: tuple, flips: tuple) -> np.ndarray:
    """The same array, with other strides."""
    turned = tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)
    memory = np.ascontiguousarray(voxels[turned].transpose(order))
    return memory.transpose(np.argsort(order))[turned]


@settings(max_examples=60, deadline=None)
@given(
    sizes,
    sizes,
    starts,
    spacings,
    st.permutations(range(3)),
    st.tuples(*[st.booleans()] * 3),
    st.sampled_from([np.int16, np.float32]),
    seeds,
)
def test_what_is_read_does_not_depend_on_how_it_is_stored(
    shape: tuple,
    size: tuple,
    start: tuple,
    spacing: tuple,
    order: list,
    flips: tuple,
    dtype: type,
    seed: int,
) -> None:
    voxels = np.random.default_rng(seed).integers(-1000, 1000, shape).astype(dtype)
    grid = network_grid(shape, spacing, (2.0, 2.0, 2.0))
    stored = stored_as(voxels, tuple(order), flips)
    assert np.array_equal(stored, voxels)
    expected, strided, cut = (
        read(v, grid, start, size)
        for v in (voxels, stored, np.repeat(voxels, 2, axis=2)[:, :, ::2])
    )
    assert expected == pytest.approx(naive_read(voxels, grid, start, size), abs=2e-3)
    assert np.array_equal(strided, expected)
    assert np.array_equal(cut, expected)


def naive_read(voxels: np.ndarray, grid: object, start: tuple, size: tuple) -> np.ndarray:
    """One axis after the other, in float64, on a volume with air around it."""
    found = voxels.astype(float)
    outside = np.zeros(size, bool)
    for axis in range(3):
        ratio, length = grid.ratio[axis], voxels.shape[axis]
        centre = (np.arange(start[axis], start[axis] + size[axis]) + 0.5) * ratio - 0.5
        first = np.floor(centre) if ratio <= 2 else np.rint(centre - ratio / 4)
        second = first + 1 if ratio <= 2 else np.rint(centre + ratio / 4)
        weight = centre - first if ratio <= 2 else np.full(len(centre), 0.5)
        a, b = (
            found.take(np.clip(tap, 0, length - 1).astype(int), axis) for tap in (first, second)
        )
        along = [1, 1, 1]
        along[axis] = -1
        found = a + (b - a) * weight.reshape(along)
        beyond = (centre <= -0.5 - 1e-9) | (centre >= length - 0.5 + 1e-9)
        outside |= beyond.reshape(along)
    return np.where(outside, -1024.0, found)


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, starts, spacings, st.floats(-2, 2), st.floats(0, 1), seeds)
def test_logits_come_back_as_in_float64(
    shape: tuple,
    size: tuple,
    start: tuple,
    spacing: tuple,
    threshold: float,
    uncovered: float,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    grid = network_grid(shape, spacing, (2.0, 2.0, 2.0))
    logits = rng.normal(size=size).astype(np.float32)
    logits[rng.random(size) < uncovered] = -1e4
    low = [int(rng.integers(n)) for n in shape]
    box = tuple((a, int(rng.integers(a, n + 1))) for a, n in zip(low, shape, strict=True))
    mask = from_network(logits, start, grid, box, threshold)
    at = np.array(np.meshgrid(*(np.arange(*bounds) for bounds in box), indexing="ij"), float)
    ratio, begin = (np.reshape(v, (3, 1, 1, 1)) for v in (grid.ratio, start))
    at = (at + 0.5) / ratio - 0.5 - begin
    expected = ndimage.map_coordinates(logits.astype(float), at, order=1, mode="nearest")
    clear = abs(expected - threshold) > 5e-3
    assert mask.shape == expected.shape
    assert np.array_equal(mask[clear], (expected > threshold)[clear])


def test_a_mask_in_its_box_is_read_as_the_whole_mask(rng: np.random.Generator) -> None:
    shape = (30, 34, 38)
    mask = np.zeros(shape, np.uint8)
    box = ((12, 19), (9, 20), (0, 7))
    mask[tuple(slice(*bounds) for bounds in box)] = rng.random((7, 11, 7)) < 0.6
    crop = mask[tuple(slice(*bounds) for bounds in box)]
    everywhere = tuple((0, n) for n in shape)
    grid = network_grid(shape, (1.0, 0.7, 1.3), (1.5, 1.5, 1.5))
    for start in ((-3, -2, -1), (5, 4, 0), (40, 0, 0)):
        whole, boxed = np.full((2, 16, 20, 24), 7, np.float32)
        mask_to_network(mask, everywhere, grid, start, whole)
        mask_to_network(np.ascontiguousarray(crop), box, grid, start, boxed)
        assert np.array_equal(whole, boxed)
    assert not boxed.any()


def test_threads_change_nothing(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    voxels = rng.integers(-1000, 1000, (40, 50, 60)).astype(np.int16)
    grid = network_grid(voxels.shape, (1.0, 0.8, 0.8), (1.5, 1.5, 1.5))
    logits = rng.normal(size=grid.shape).astype(np.float32)
    everywhere = tuple((0, n) for n in voxels.shape)
    answers = []
    for threads in (1, 2, 3, 7):
        monkeypatch.setattr(interpolate, "_VOXELS_PER_THREAD", 1)
        monkeypatch.setattr("os.cpu_count", lambda threads=threads: threads)
        patch = read(voxels, grid, (0, 0, 0), grid.shape)
        answers.append((patch, from_network(logits, (0, 0, 0), grid, everywhere, 0.0)))
    for patch, mask in answers[1:]:
        assert np.array_equal(patch, answers[0][0])
        assert np.array_equal(mask, answers[0][1])


def test_any_strides_give_the_same_patch(rng: np.random.Generator) -> None:
    apart = rng.integers(-1000, 1000, (12, 24, 32)).astype(np.int16)[:, :, ::2]
    fields = np.zeros(1, [("a", "u1"), ("v", "i2", (12, 24))])["v"]
    for voxels in (apart, fields):
        assert not interpolate.has_rows(voxels) or voxels.shape[0] == 1
        volume = cs.Volume(voxels, np.eye(4))
        assert interpolate.has_rows(volume.voxels)  # once, so that no patch pays for it
        grid = network_grid(voxels.shape, (1.0, 1.0, 1.0), (1.5, 1.5, 1.5))
        ours = read(voxels, grid, (0, 0, 0), grid.shape)
        plain = read(np.array(voxels, order="C"), grid, (0, 0, 0), grid.shape)
        assert np.array_equal(ours, plain)
