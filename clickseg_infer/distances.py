"""Squared distances from one voxel, in mm."""

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.boxes import Box
from clickseg_infer.file_grid import Index
from clickseg_infer.volume import Spacing


def squared_mm(
    voxels: NDArray[np.int64], from_voxel: Index, spacing_mm: Spacing
) -> NDArray[np.float32]:
    """Those (N,) of voxels (N, 3); all are (z, y, x)."""
    squares = np.zeros(len(voxels), np.float32)
    for along, own, place in zip(voxels.T, spacing_mm, from_voxel, strict=True):
        away = (along - place).astype(np.float32)
        away *= np.float32(own)
        squares += away * away
    return squares


def squared_mm_in(box: Box, from_voxel: Index, spacing_mm: Spacing) -> NDArray[np.float64]:
    """Those (z, y, x) of all voxels of a box."""
    z, y, x = (
        ((np.arange(*bounds) - p) * own) ** 2
        for bounds, p, own in zip(box, from_voxel, spacing_mm, strict=True)
    )
    squares: NDArray[np.float64] = z[:, None, None] + y[:, None] + x
    return squares
