"""Distances between voxels, in mm, and what they decide."""

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from clickseg_infer.boxes import Box, origin_of
from clickseg_infer.file_grid import Index
from clickseg_infer.volume import Spacing


def take_back_beyond(
    mask: NDArray[np.uint8],
    before: NDArray[np.uint8],
    box: Box,
    spacing_mm: Spacing,
    centre: Index,
    others: Sequence[Index],
    reach: float,
) -> None:
    """Undo what changed in a mask beyond the reach of a centre.

    That is where a voxel lies farther from the centre than `reach` times as far as from any of the
    others.

    Args:
        mask: (z, y, x) uint8, fills `box`. Modified.
        before: what it was, likewise. Not modified.
        box: where both lie in the volume.
        spacing_mm: of the volume (z, y, x).
        centre: a voxel (z, y, x).
        others: voxels, at least one.
        reach: a share.
    """
    places = np.array([centre, *others], np.float64) - origin_of(box)
    _take_back(mask, before, np.array(spacing_mm), places, reach**2)


def squared_mm(
    voxels: NDArray[np.int64], from_voxel: Index, spacing_mm: Spacing
) -> NDArray[np.float32]:
    """The squared distances (N,) in mm of voxels (N, 3) from one voxel, all (z, y, x)."""
    squares = np.zeros(len(voxels), np.float32)
    for along, own, place in zip(voxels.T, spacing_mm, from_voxel, strict=True):
        away = (along - place).astype(np.float32)
        away *= np.float32(own)
        squares += away * away
    return squares


def squared_mm_in(box: Box, from_voxel: Index, spacing_mm: Spacing) -> NDArray[np.float64]:
    """The squared distances (z, y, x) in mm of all voxels of a box from one voxel."""
    z, y, x = (
        ((np.arange(*bounds) - p) * own) ** 2
        for bounds, p, own in zip(box, from_voxel, spacing_mm, strict=True)
    )
    squares: NDArray[np.float64] = z[:, None, None] + y[:, None] + x
    return squares


@njit(cache=True, nogil=True)
def _take_back(mask, before, spacing, places, share):  # type: ignore[no-untyped-def] # pragma: no cover
    dz, dy, dx = spacing**2
    for z in range(mask.shape[0]):
        for y in range(mask.shape[1]):
            for x in range(mask.shape[2]):
                if mask[z, y, x] == before[z, y, x]:
                    continue
                for n in range(len(places)):
                    az, ay, ax = places[n]
                    away = dz * (z - az) ** 2 + dy * (y - ay) ** 2 + dx * (x - ax) ** 2
                    if n == 0:
                        own = away
                    elif own > share * away:
                        mask[z, y, x] = before[z, y, x]
                        break
