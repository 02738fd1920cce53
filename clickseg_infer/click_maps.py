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


def draw_disks(
    centres: NDArray[np.int64],
    radius: int,
    out: NDArray[np.float32],
    drawn: NDArray[np.int64] | None = None,
) -> None:
    """Draw filled balls: 1 within `radius` voxels of a centre, 0 elsewhere.

    A ball is finite, so a click farther away than `radius` changes nothing.

    Args:
        centres: (N, 3) int64, (z, y, x) in the patch's voxels; may lie outside it. Not modified.
        radius: in voxels; a radius of 0 marks the centre alone.
        out: (z, y, x) float32, overwritten.
        drawn: centres, likewise, of the balls that `out` holds and nothing else; then only their
            voxels are cleared. Without it, all are.
    """
    if drawn is None:
        out.fill(0)
    else:
        _fill_disks(drawn, radius, np.float32(0), out)
    _fill_disks(centres, radius, np.float32(1), out)


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
    cells = _padded_cells(ct)
    distance = np.full(cells.shape, np.inf, np.float32)
    distance[tuple((seeds + 1).T)] = 0
    _relax(distance, cells, _ROUNDS, np.float32(_PATH_COST), np.float32(_EDGE_COST))
    np.negative(distance, out=distance)
    np.exp(distance, out=distance)
    _spread(distance, out)


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


def _padded_cells(ct: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of each cell, within one layer of zeros."""
    z, y, x = (n // CELL + 2 for n in ct.shape)
    cells = np.zeros((z, y, x), np.float32)
    _mean_cells(ct, cells)
    return cells


@njit(cache=True, nogil=True)
def _fill_disks(centres, radius, value, out):  # type: ignore[no-untyped-def] # pragma: no cover
    nz, ny, nx = out.shape
    limit = radius * radius
    for n in range(len(centres)):
        cz, cy, cx = centres[n]
        for z in range(max(0, cz - radius), min(nz, cz + radius + 1)):
            for y in range(max(0, cy - radius), min(ny, cy + radius + 1)):
                for x in range(max(0, cx - radius), min(nx, cx + radius + 1)):
                    if (z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 <= limit:
                        out[z, y, x] = value


@njit(cache=True, nogil=True)
def _mean_cells(ct, cells):  # type: ignore[no-untyped-def] # pragma: no cover
    nz, ny, nx = cells.shape
    for z in range(nz - 2):
        for y in range(ny - 2):
            for x in range(nx - 2):
                total = np.float32(0)
                for dz in range(2):
                    for dy in range(2):
                        total += ct[2 * z + dz, 2 * y + dy, 2 * x]
                        total += ct[2 * z + dz, 2 * y + dy, 2 * x + 1]
                cells[z + 1, y + 1, x + 1] = total * np.float32(0.125)


@njit(cache=True, nogil=True)
def _relax(distance, ct, rounds, path, edge):  # type: ignore[no-untyped-def] # pragma: no cover
    """Sweep along z, y and x in turn; the arrays are turned so that the swept axis comes first."""
    nz, ny, nx = ct.shape
    shape_y, shape_x = (ny, nx, nz), (nx, nz, ny)
    distance_y, distance_x = np.empty(shape_y, np.float32), np.empty(shape_x, np.float32)
    ct_y, ct_x = np.empty(shape_y, np.float32), np.empty(shape_x, np.float32)
    _turn(ct, ct_y)
    _turn(ct_y, ct_x)
    for _ in range(rounds):
        _sweep(distance, ct, path, edge)
        _turn(distance, distance_y)
        _sweep(distance_y, ct_y, path, edge)
        _turn(distance_y, distance_x)
        _sweep(distance_x, ct_x, path, edge)
        _turn(distance_x, distance)


@njit(cache=True, nogil=True)
def _turn(source, target):  # type: ignore[no-untyped-def] # pragma: no cover
    first, second, third = source.shape
    for b in range(second):
        for a in range(first):
            for c in range(third):
                target[b, c, a] = source[a, b, c]


@njit(cache=True, nogil=True)
def _sweep(distance, ct, path, edge):  # type: ignore[no-untyped-def] # pragma: no cover
    """Relax every plane from the one before it, forwards and then backwards."""
    planes, rows, width = distance.shape
    side, corner = path * np.float32(1.4142135), path * np.float32(1.7320508)
    for direction in range(2):
        for n in range(1, planes - 1):
            p = n if direction == 0 else planes - 1 - n
            q = p - 1 if direction == 0 else p + 1
            for y in range(1, rows - 1):
                row, own = distance[p, y], ct[p, y]
                above, level, below = distance[q, y - 1], distance[q, y], distance[q, y + 1]
                ct_above, ct_level, ct_below = ct[q, y - 1], ct[q, y], ct[q, y + 1]
                for x in range(1, width - 1):
                    v, best = own[x], row[x]
                    best = min(above[x - 1] + corner + edge * abs(v - ct_above[x - 1]), best)
                    best = min(above[x] + side + edge * abs(v - ct_above[x]), best)
                    best = min(above[x + 1] + corner + edge * abs(v - ct_above[x + 1]), best)
                    best = min(level[x - 1] + side + edge * abs(v - ct_level[x - 1]), best)
                    best = min(level[x] + path + edge * abs(v - ct_level[x]), best)
                    best = min(level[x + 1] + side + edge * abs(v - ct_level[x + 1]), best)
                    best = min(below[x - 1] + corner + edge * abs(v - ct_below[x - 1]), best)
                    best = min(below[x] + side + edge * abs(v - ct_below[x]), best)
                    best = min(below[x + 1] + corner + edge * abs(v - ct_below[x + 1]), best)
                    row[x] = best


@njit(cache=True, nogil=True)
def _spread(cells, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Each padded cell's value to its voxels."""
    nz, ny, nx = cells.shape
    for z in range(nz - 2):
        for y in range(ny - 2):
            first = out[2 * z, 2 * y]
            for x in range(nx - 2):
                first[2 * x] = first[2 * x + 1] = cells[z + 1, y + 1, x + 1]
            out[2 * z, 2 * y + 1] = first
            out[2 * z + 1, 2 * y] = first
            out[2 * z + 1, 2 * y + 1] = first


@njit(cache=True, nogil=True)
def _least_difference(ct, means, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Row by row, one mean after the other, so that the inner loop runs along contiguous voxels."""
    nz, ny, nx = out.shape
    for z in range(nz):
        for y in range(ny):
            values, least = ct[z, y], out[z, y]
            least[:] = np.float32(2)
            for n in range(len(means)):
                for x in range(nx):
                    least[x] = min(least[x], abs(values[x] - means[n]))
