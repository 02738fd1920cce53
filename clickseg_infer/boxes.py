"""Boxes of voxels: half-open bounds along (z, y, x)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from clickseg_infer.file_grid import Index

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""Half-open bounds ((z0, z1), (y0, y1), (x0, x1))."""

Slices = tuple[slice, slice, slice]


def slices_of(box: Box, origin: Index = (0, 0, 0)) -> Slices:
    """Slices that cut `box` out of an array that begins at `origin`."""
    z, y, x = (slice(low - o, high - o) for (low, high), o in zip(box, origin, strict=True))
    return z, y, x


def origin_of(box: Box) -> Index:
    """The first voxel of a box."""
    return box[0][0], box[1][0], box[2][0]


def shape_of(box: Box) -> Index:
    """The shape (z, y, x) of an array that fills a box."""
    z, y, x = (high - low for low, high in box)
    return z, y, x


def box_at(start: Sequence[int], shape: Sequence[int] = (1, 1, 1)) -> Box:
    """The box of that shape whose first voxel is `start`; of one voxel without a shape."""
    z, y, x = ((p, p + n) for p, n in zip(start, shape, strict=True))
    return z, y, x


def bounds_of(array: NDArray[Any], origin: Index = (0, 0, 0)) -> Box | None:
    """The smallest box that holds what is nonzero in an array that begins at `origin`."""
    bits = array if array.dtype.itemsize == 1 else array != 0
    bounds = _bounds(np.ascontiguousarray(bits).view(np.uint8))
    if bounds[0] < 0:
        return None
    z, y, x = (
        (int(low) + o, int(high) + 1 + o)
        for low, high, o in zip(bounds[:3], bounds[3:], origin, strict=True)
    )
    return z, y, x


def union(a: Box | None, b: Box | None) -> Box | None:
    """The smallest box that holds both; None is empty."""
    if a is None or b is None:
        return b if a is None else a
    return hull(a, b)


def hull(a: Box, b: Box) -> Box:
    """The smallest box that holds two boxes."""
    z, y, x = (
        (min(low, other_low), max(high, other_high))
        for (low, high), (other_low, other_high) in zip(a, b, strict=True)
    )
    return z, y, x


def overlap(a: Box, b: Box) -> Box | None:
    """What lies in both boxes, or None."""
    z, y, x = (
        (max(low, other_low), min(high, other_high))
        for (low, high), (other_low, other_high) in zip(a, b, strict=True)
    )
    return (z, y, x) if all(low < high for low, high in (z, y, x)) else None


@njit(cache=True, nogil=True)
def _bounds(array):  # type: ignore[no-untyped-def] # pragma: no cover
    """First and last of what is nonzero along each axis; -1 if nothing is."""
    nz, ny, nx = array.shape
    z0, y0, x0, z1, y1, x1 = -1, ny, nx, -1, -1, -1
    for z in range(nz):
        for y in range(ny):
            row = array[z, y]
            first = 0
            while first < nx and row[first] == 0:
                first += 1
            if first == nx:
                continue
            last = nx - 1
            while last > x1 and row[last] == 0:
                last -= 1
            z0 = z if z0 < 0 else z0
            z1, y0, y1 = z, min(y0, y), max(y1, y)
            x0, x1 = min(x0, first), max(x1, last)
    return z0, y0, x0, z1, y1, x1
