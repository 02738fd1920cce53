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
from numpy.typing import NDArray

from clickseg_infer.boxes import Box
from clickseg_infer.file_grid import Index
from clickseg_infer.interpolate import Taps, read_box, threshold
from clickseg_infer.volume import Spacing

AIR_HU = -1024.0
"""What lies outside the volume."""


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
    windows = np.array([(low, 2.0 / (high - low)) for low, high in windows_hu], np.float32)
    taps = _taps(grid, start, out.shape[1:], voxels.shape)
    box = [(0, n) for n in out.shape[1:]]
    read_box(voxels, taps, box, AIR_HU, windows, out)


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
    taps = _taps(grid, start, out.shape, mask.shape, [bounds[0] for bounds in box])
    reached = [_reached(axis) for axis in taps]
    out[:] = 0
    # A window of (0, 1) maps one half to 0.
    read_box(mask, taps, reached, 0, np.array([(0, 2)], np.float32), out[None])
    part = out[tuple(slice(*bounds) for bounds in reached)]
    np.greater_equal(part, 0, out=part)


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
    taps = [
        _taps_back(grid.ratio[axis], start[axis], logits.shape[axis], box[axis])
        for axis in range(3)
    ]
    return threshold(logits, taps, threshold_logit)


def values_back(
    values: NDArray[np.float32],
    start: Sequence[int],
    grid: NetworkGrid,
    box: Box,
    limits: tuple[float, float],
    cell: int = 1,
) -> NDArray[np.float32]:
    """Bring values back to the volume's grid, trilinearly, clipped.

    Args:
        values: (z, y, x) float32 on the network's grid, or of cells of it. Not modified.
        start: the first network voxel (z, y, x) of the first value.
        grid: the grid.
        box: the volume's voxels to fill; beyond the centres of the outermost values these go on.
        limits: between which they are clipped.
        cell: network voxels along an axis of a cell.

    Returns:
        (z, y, x) float32, the size of `box`.
    """
    taps = [
        _taps_back(grid.ratio[axis], start[axis], values.shape[axis], box[axis], cell)
        for axis in range(3)
    ]
    low, high = limits
    out = np.empty((1, *(last - first for first, last in box)), np.float32)
    window = np.array([(low, 2 / (high - low))], np.float32)
    read_box(values, taps, [(0, n) for n in out.shape[1:]], low, window, out)
    back: NDArray[np.float32] = (out[0] + 1) * np.float32((high - low) / 2) + np.float32(low)
    return back


def _taps_back(
    ratio: float, start: int, length: int, bounds: tuple[int, int], cell: int = 1
) -> Taps:
    """The taps of voxels among `length` values, the first of them from network voxel `start`."""
    position = ((np.arange(*bounds) + 0.5) / ratio - start) / cell - 0.5
    position = np.clip(position, 0, length - 1)
    first = np.minimum(position.astype(np.int64), max(0, length - 2))
    second = np.minimum(first + 1, length - 1)
    return first, second, (position - first).astype(np.float32)


def _taps(
    grid: NetworkGrid,
    start: Sequence[int],
    size: Sequence[int],
    shape: Sequence[int],
    offset: Sequence[int] = (0, 0, 0),
) -> list[Taps]:
    """Each axis's taps in an array that begins at `offset`; -1 is a voxel outside of it."""
    tables: list[Taps] = []
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
        tables.append((first.astype(np.int64), second.astype(np.int64), weight.astype(np.float32)))
    return tables


def _reached(taps: Taps) -> tuple[int, int]:
    """From the first position that has a tap inside, to behind the last one."""
    inside = np.flatnonzero((taps[0] >= 0) | (taps[1] >= 0))
    return (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, 0)
