"""Which patches to run, in voxels of the network's grid."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.file_grid import Index


def cover(shape: Index, patch: Index, overlap: float) -> list[Index]:
    """First voxels of patches that cover a whole grid, as a sliding window visits them.

    Steps and order are those of MONAI's `sliding_window_inference`. Along an axis shorter than the
    patch there is one patch, centred, so that its first voxel is negative.

    Args:
        shape: the grid's shape (z, y, x).
        patch: the patch size (z, y, x).
        overlap: fraction of a patch shared with the next, 0 <= overlap < 1.
    """
    axes = []
    for length, size in zip(shape, patch, strict=True):
        if length <= size:
            axes.append([-((size - length) // 2)])
            continue
        step = max(1, int(size * (1 - overlap)))
        count = math.ceil((length - size) / step) + 1
        axes.append([min(n * step, length - size) for n in range(count)])
    return [(z, y, x) for z in axes[0] for y in axes[1] for x in axes[2]]


def focus(centre: Sequence[float], shape: Index, patch: Index) -> Index:
    """First voxel of the patch around `centre` (z, y, x), moved to lie within the grid."""
    z, y, x = (
        -((size - length) // 2)
        if length <= size
        else min(max(math.floor(c - size / 2 + 1), 0), length - size)
        for c, length, size in zip(centre, shape, patch, strict=True)
    )
    return z, y, x


def grow(
    start: Index, inside: NDArray[np.bool_], shape: Index, patch: Index, overlap: float
) -> list[tuple[Index, int]]:
    """The neighbours that an object reaches.

    Args:
        start: first voxel (z, y, x) of a patch that ran.
        inside: (z, y, x) bool of the patch's size, the object in it.
        shape: the grid's shape (z, y, x).
        patch: the patch size (z, y, x).
        overlap: fraction of a patch shared with its neighbour.

    Returns:
        For each face of the patch that the object touches, unless the grid ends there: the first
        voxel of the neighbour, and how many voxels of the face the object touches.
    """
    neighbours = []
    for axis in range(3):
        step = max(1, int(patch[axis] * (1 - overlap)))
        last = shape[axis] - patch[axis]
        if last <= 0:
            continue
        faces = ((0, max(start[axis] - step, 0)), (-1, min(start[axis] + step, last)))
        for face, moved in faces:
            ahead = moved < start[axis] if face == 0 else moved > start[axis]
            touched = int(np.count_nonzero(inside.take(face, axis=axis))) if ahead else 0
            if touched:
                z, y, x = (moved if a == axis else start[a] for a in range(3))
                neighbours.append(((z, y, x), touched))
    return neighbours
