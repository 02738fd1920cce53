"""Between the volume's grid and the network's, patch by patch, with the HU window fused in.

The two grids share their outer faces: along an axis with `ratio` volume voxels to one network
voxel, network voxel n has its centre at volume position (n + 0.5) * ratio - 0.5.

Towards the network every voxel is read from two taps an axis. For ratios up to 2 they are the
linear interpolation's; beyond, they lie a quarter of a network voxel to either side of its centre,
so that a wide look at a finely sampled scan averages noise at no extra cost.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from clickseg_infer.file_grid import Index
from clickseg_infer.volume import Spacing

AIR_HU = -1024.0
"""What lies outside the volume."""

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""Half-open bounds ((z0, z1), (y0, y1), (x0, x1))."""


@dataclass(frozen=True)
class NetworkGrid:
    """A volume's grid at the network's spacing.

    Attributes:
        volume_shape: the volume's shape (z, y, x).
        ratio: volume voxels per network voxel along (z, y, x).
        shape: how many network voxels cover the volume along (z, y, x).
    """

    volume_shape: Index
    ratio: Spacing
    shape: Index

    def of_volume(self, zyx: Sequence[float]) -> tuple[float, float, float]:
        """The network position of a volume position (z, y, x), both in voxels."""
        z, y, x = ((p + 0.5) / r - 0.5 for p, r in zip(zyx, self.ratio, strict=True))
        return z, y, x

    def volume_box(self, start: Sequence[int], size: Sequence[int]) -> Box:
        """The volume's voxels whose centres lie within the network box, clipped to the volume."""
        z, y, x = (
            (
                min(n, max(0, math.ceil(first * r - 0.5))),
                max(0, min(n, math.ceil((first + length) * r - 0.5))),
            )
            for first, length, r, n in zip(start, size, self.ratio, self.volume_shape, strict=True)
        )
        return z, y, x


def network_grid(shape: Index, spacing_mm: Spacing, network_spacing_mm: Spacing) -> NetworkGrid:
    """Lay the network's grid over a volume of `shape` and `spacing_mm`, both (z, y, x)."""
    rz, ry, rx = (target / own for target, own in zip(network_spacing_mm, spacing_mm, strict=True))
    # A hair less than exact, so that rounding errors in a spacing add no empty voxel.
    nz, ny, nx = (max(1, math.ceil(n / r - 1e-3)) for n, r in zip(shape, (rz, ry, rx), strict=True))
    return NetworkGrid(shape, (rz, ry, rx), (nz, ny, nx))


def to_network(
    voxels: NDArray[Any],
    grid: NetworkGrid,
    start: Sequence[int],
    windows_hu: Sequence[tuple[float, float]],
    out: NDArray[np.float32],
) -> None:
    """Read one patch of the volume on the network's grid, once for each HU window.

    Args:
        voxels: (z, y, x) int16 or float32 HU, any strides. Not modified.
        grid: the network's grid over that volume.
        start: the patch's first voxel (z, y, x) on the grid; may be negative.
        windows_hu: (low, high) for each channel: low becomes -1, high becomes 1, clipped.
        out: (W, z, y, x) float32, overwritten. Outside the volume it holds air.
    """
    low = np.array([window[0] for window in windows_hu], dtype=np.float32)
    scale = np.array([2.0 / (high - low) for low, high in windows_hu], dtype=np.float32)
    taps = _taps(grid, start, out.shape[1:], voxels.shape)
    _read(voxels, *taps, np.float32(AIR_HU), low, scale, out)


def mask_to_network(
    mask: NDArray[np.uint8],
    box: Box,
    grid: NetworkGrid,
    start: Sequence[int],
    out: NDArray[np.float32],
) -> None:
    """Read a mask that fills `box` of the volume on the network's grid, as 0 or 1.

    Args:
        mask: (z, y, x) uint8, 0 or 1, the voxels of `box`; the rest of the volume is 0.
        box: where the mask lies in the volume.
        grid: the network's grid over that volume.
        start: the patch's first voxel (z, y, x) on the grid; may be negative.
        out: (z, y, x) float32, overwritten: 1 where at least half of the taps' weight is mask.
    """
    offset = [bounds[0] for bounds in box]
    taps = _taps(grid, start, out.shape, mask.shape, offset)
    # A window of (0, 1) maps one half to 0.
    low, scale = np.zeros(1, np.float32), np.full(1, 2, np.float32)
    _read(mask, *taps, np.float32(0), low, scale, out[None])
    np.greater_equal(out, 0, out=out)


def from_network(
    logits: NDArray[np.float32],
    start: Sequence[int],
    grid: NetworkGrid,
    box: Box,
    threshold_logit: float,
) -> NDArray[np.uint8]:
    """Bring logits back to the volume's grid, trilinearly, and threshold them.

    Args:
        logits: (z, y, x) float32 on the network's grid. Not modified.
        start: the first voxel (z, y, x) of `logits` on that grid.
        grid: the grid.
        box: the volume's voxels to fill; beyond the centres of the outermost logits their
            values go on.
        threshold_logit: a voxel belongs to the object if its logit exceeds this.

    Returns:
        (z, y, x) uint8, 0 or 1, the size of `box`.
    """
    tables = []
    for axis in range(3):
        begin, end = box[axis]
        position = (np.arange(begin, end) + 0.5) / grid.ratio[axis] - 0.5 - start[axis]
        position = np.clip(position, 0, logits.shape[axis] - 1)
        first = np.minimum(position.astype(np.int64), max(0, logits.shape[axis] - 2))
        second = np.minimum(first + 1, logits.shape[axis] - 1)
        tables += [first, second, (position - first).astype(np.float32)]
    mask = np.empty([end - begin for begin, end in box], np.uint8)
    _threshold(logits, *tables, np.float32(threshold_logit), mask)
    return mask


def _taps(
    grid: NetworkGrid,
    start: Sequence[int],
    size: Sequence[int],
    shape: Sequence[int],
    offset: Sequence[int] = (0, 0, 0),
) -> list[NDArray[Any]]:
    """For each axis: both taps in the array (-1 where a voxel is outside) and the second's weight.

    `offset` is where the array begins in the volume.
    """
    tables: list[NDArray[Any]] = []
    for axis in range(3):
        ratio, length = grid.ratio[axis], grid.volume_shape[axis]
        index = np.arange(start[axis], start[axis] + size[axis])
        centre = (index + 0.5) * ratio - 0.5
        inside = (centre > -0.5 - 1e-9) & (centre < length - 0.5 + 1e-9)
        if ratio <= 2:
            first = np.floor(centre)
            second, weight = first + 1, centre - first
        else:
            first, second = np.rint(centre - ratio / 4), np.rint(centre + ratio / 4)
            weight = np.full(len(index), 0.5)
        first, second = np.clip(first, 0, length - 1), np.clip(second, 0, length - 1)
        for tap in (first, second):
            tap -= offset[axis]
            tap[~inside | (tap < 0) | (tap >= shape[axis])] = -1
        tables += [first.astype(np.int64), second.astype(np.int64), weight.astype(np.float32)]
    return tables


@njit(cache=True, nogil=True)
def _read(voxels, z0, z1, wz, y0, y1, wy, x0, x1, wx, outside, low, scale, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Eight taps a voxel; a tap of -1 reads `outside`; then every window."""
    nz, ny, nx = len(z0), len(y0), len(x0)
    windows = len(low)
    row = np.empty((4, 2), np.int64)
    weight = np.empty(4, np.float32)
    for z in range(nz):
        for y in range(ny):
            for corner in range(4):
                upper, right = corner // 2, corner % 2
                row[corner, 0] = z1[z] if upper else z0[z]
                row[corner, 1] = y1[y] if right else y0[y]
                weight[corner] = (wz[z] if upper else np.float32(1) - wz[z]) * (
                    wy[y] if right else np.float32(1) - wy[y]
                )
            for x in range(nx):
                left, right_x, w = x0[x], x1[x], wx[x]
                value = np.float32(0)
                for corner in range(4):
                    a = b = outside
                    iz, iy = row[corner, 0], row[corner, 1]
                    if iz >= 0 and iy >= 0:
                        if left >= 0:
                            a = np.float32(voxels[iz, iy, left])
                        if right_x >= 0:
                            b = np.float32(voxels[iz, iy, right_x])
                    value += weight[corner] * (a + (b - a) * w)
                for c in range(windows):
                    scaled = (value - low[c]) * scale[c] - np.float32(1)
                    out[c, z, y, x] = min(max(scaled, np.float32(-1)), np.float32(1))


@njit(cache=True, nogil=True)
def _threshold(logits, z0, z1, wz, y0, y1, wy, x0, x1, wx, threshold, mask):  # type: ignore[no-untyped-def] # pragma: no cover
    """Trilinear, one blended row of logits at a time."""
    row = np.empty(logits.shape[2], np.float32)
    one = np.float32(1)
    for z in range(len(z0)):
        for y in range(len(y0)):
            a, b = (one - wz[z]) * (one - wy[y]), (one - wz[z]) * wy[y]
            c, d = wz[z] * (one - wy[y]), wz[z] * wy[y]
            for x in range(logits.shape[2]):
                row[x] = (
                    a * logits[z0[z], y0[y], x]
                    + b * logits[z0[z], y1[y], x]
                    + c * logits[z1[z], y0[y], x]
                    + d * logits[z1[z], y1[y], x]
                )
            for x in range(len(x0)):
                value = row[x0[x]] + (row[x1[x]] - row[x0[x]]) * wx[x]
                mask[z, y, x] = value > threshold
