"""Clicks become channels: disks, and cues computed from the clicks and the CT.

Disks mark the clicks themselves (after Benenson et al. 2019 and RITM, https://arxiv.org/abs/2102.06583).
The cues say what the clicks mean for the rest of the patch: how far each voxel is from them along
paths that avoid edges (geodesic distance, after GeoS, https://doi.org/10.1007/978-3-540-88682-2_9,
and DeepIGeoS, https://arxiv.org/abs/1707.00652), and how alike its CT value is. Everything here is
the same in training and at run time.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from clickseg_infer.file_grid import Index

CELL = 2
"""Cues are computed on cells of CELL^3 voxels: an eighth of the work, and noise is averaged."""

_PATH_COST = 0.02  # per cell: a straight path through a whole 96-voxel patch costs about 1
_EDGE_COST = 3.0  # per unit of CT difference (the window spans 2): an organ's edge costs about 0.4
_ROUNDS = 2  # each round sweeps six directions; paths that turn often converge by the second


def centres_of(positions: Sequence[Index]) -> NDArray[np.int64]:
    """Positions (z, y, x) as the (N, 3) int64 array that the maps take."""
    return np.array(positions, np.int64).reshape(-1, 3)


def draw_disks(centres: NDArray[np.int64], radius: int, out: NDArray[np.float32]) -> None:
    """Draw filled balls: 1 within `radius` voxels of a centre, 0 elsewhere.

    A ball is finite, so a click farther away than `radius` changes nothing.

    Args:
        centres: (N, 3) int64, (z, y, x) in the patch's voxels; may lie outside it. Not modified.
        radius: in voxels; a radius of 0 marks the centre alone.
        out: (z, y, x) float32, overwritten.
    """
    _disks(centres, radius, out)


def geodesic_proximity(
    ct: NDArray[np.float32], centres: NDArray[np.int64], out: NDArray[np.float32]
) -> None:
    """How near each voxel is to the centres along smooth paths: exp(-distance), 0 without any.

    A step between neighbouring cells (26-neighbourhood) costs its length and the CT difference
    it crosses. Swept plane by plane in six directions, as in FastGeodis
    (https://arxiv.org/abs/2208.00001), which approximates the shortest path from above.

    Args:
        ct: (z, y, x) float32 in [-1, 1], even sizes. Not modified.
        centres: (N, 3) int64, (z, y, x) in the patch's voxels; those outside are ignored.
        out: (z, y, x) float32 in [0, 1], overwritten.
    """
    seeds = _inside(centres, ct.shape) // CELL
    if len(seeds) == 0:
        out[:] = 0
        return
    cells = _cells(ct)
    distance = np.full(np.add(cells.shape, 2), np.inf, np.float32)
    distance[tuple((seeds + 1).T)] = 0
    padded = np.pad(cells, 1)
    # Each array once in each axis order, because a sweep needs its planes contiguous.
    orders = ((0, 1, 2), (1, 0, 2), (2, 0, 1))
    views = [np.ascontiguousarray(padded.transpose(order)) for order in orders]
    for _ in range(_ROUNDS):
        for order, view in zip(orders, views, strict=True):
            turned = np.ascontiguousarray(distance.transpose(order))
            _sweep(turned, view, np.float32(_PATH_COST), np.float32(_EDGE_COST))
            distance = turned.transpose(np.argsort(order))
    _spread(np.exp(-distance[1:-1, 1:-1, 1:-1]), out)


def intensity_difference(
    ct: NDArray[np.float32], centres: NDArray[np.int64], out: NDArray[np.float32]
) -> None:
    """How much each voxel's CT differs from the most alike of the centres: 0 if equal, at most 2.

    Args:
        ct: (z, y, x) float32 in [-1, 1], even sizes. Not modified.
        centres: (N, 3) int64, (z, y, x) in the patch's voxels; those outside are ignored. Each
            stands for the mean of its cell. Without any, the difference is 2 everywhere.
        out: (z, y, x) float32, overwritten.
    """
    inside = _inside(centres, ct.shape) // CELL * CELL
    means = [
        ct[z : z + CELL, y : y + CELL, x : x + CELL].mean(dtype=np.float32) for z, y, x in inside
    ]
    _least_difference(ct, np.array(means, np.float32), out)


def _inside(centres: NDArray[np.int64], shape: Any) -> NDArray[np.int64]:
    return centres[((centres >= 0) & (centres < np.array(shape))).all(axis=1)]


def _cells(ct: NDArray[np.float32]) -> NDArray[np.float32]:
    z, y, x = (n // CELL for n in ct.shape)
    cells = np.empty((z, y, x), np.float32)
    _mean_cells(ct, cells)
    return cells


@njit(cache=True, nogil=True)
def _disks(centres, radius, out):  # type: ignore[no-untyped-def] # pragma: no cover
    out[:] = 0
    nz, ny, nx = out.shape
    limit = radius * radius
    for n in range(len(centres)):
        cz, cy, cx = centres[n]
        for z in range(max(0, cz - radius), min(nz, cz + radius + 1)):
            for y in range(max(0, cy - radius), min(ny, cy + radius + 1)):
                for x in range(max(0, cx - radius), min(nx, cx + radius + 1)):
                    if (z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 <= limit:
                        out[z, y, x] = 1


@njit(cache=True, nogil=True)
def _mean_cells(ct, cells):  # type: ignore[no-untyped-def] # pragma: no cover
    nz, ny, nx = cells.shape
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                total = np.float32(0)
                for dz in range(2):
                    for dy in range(2):
                        total += ct[2 * z + dz, 2 * y + dy, 2 * x]
                        total += ct[2 * z + dz, 2 * y + dy, 2 * x + 1]
                cells[z, y, x] = total * np.float32(0.125)


@njit(cache=True, nogil=True)
def _sweep(distance, ct, path, edge):  # type: ignore[no-untyped-def] # pragma: no cover
    """Relax every plane from the one before it, forwards and then backwards."""
    planes, rows, width = distance.shape
    straight, side, corner = path, path * np.float32(1.4142135), path * np.float32(1.7320508)
    for direction in range(2):
        for n in range(1, planes - 1):
            p = n if direction == 0 else planes - 1 - n
            q = p - 1 if direction == 0 else p + 1
            for y in range(1, rows - 1):
                for dy in range(-1, 2):
                    ahead = side if dy != 0 else straight
                    slant = corner if dy != 0 else side
                    from_distance, from_ct = distance[q, y + dy], ct[q, y + dy]
                    row, own = distance[p, y], ct[p, y]
                    for x in range(1, width - 1):
                        value = own[x]
                        a = from_distance[x - 1] + slant + edge * abs(value - from_ct[x - 1])
                        b = from_distance[x] + ahead + edge * abs(value - from_ct[x])
                        c = from_distance[x + 1] + slant + edge * abs(value - from_ct[x + 1])
                        best = row[x]
                        best = a if a < best else best
                        best = b if b < best else best
                        best = c if c < best else best
                        row[x] = best


@njit(cache=True, nogil=True)
def _spread(cells, out):  # type: ignore[no-untyped-def] # pragma: no cover
    nz, ny, nx = out.shape
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                out[z, y, x] = cells[z // 2, y // 2, x // 2]


@njit(cache=True, nogil=True)
def _least_difference(ct, means, out):  # type: ignore[no-untyped-def] # pragma: no cover
    nz, ny, nx = out.shape
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                best = np.float32(2)
                for n in range(len(means)):
                    difference = abs(ct[z, y, x] - means[n])
                    best = difference if difference < best else best
                out[z, y, x] = best
