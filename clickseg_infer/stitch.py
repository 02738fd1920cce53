"""Gaussian-weighted blending of overlapping patches."""

import functools
from collections.abc import Iterable, Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from clickseg_infer.file_grid import Index

_SIGMA = 0.125  # of the patch size
_LEAST_WEIGHT = 1e-3

UNCOVERED = -1e4
"""The logit of what no patch covers: certainly outside, yet finite, so that it interpolates."""


@functools.lru_cache(maxsize=8)
def gaussian_weights(patch: Index) -> NDArray[np.float32]:
    """The weight of each voxel (z, y, x) of a patch: 1 near its centre, at least 0.001.

    The importance map of MONAI's `sliding_window_inference` (mode "gaussian", sigma_scale 0.125).
    """
    axes = []
    for size in patch:
        offset = np.arange(size) - (size - 1) / 2
        axes.append(np.exp(-0.5 * (offset / (_SIGMA * size)) ** 2).astype(np.float32))
    weights = axes[0][:, None, None] * axes[1][None, :, None] * axes[2][None, None, :]
    least = max(float(weights.min()), _LEAST_WEIGHT)
    raised: NDArray[np.float32] = np.maximum(weights, least).astype(np.float32)
    raised.flags.writeable = False
    return raised


def blend(
    logits: Iterable[NDArray[np.float32]], starts: Sequence[Index], shape: Index, origin: Index
) -> NDArray[np.float32]:
    """Merge overlapping patch logits into one block.

    Each voxel is the Gaussian-weighted mean of the patches that contain it, so a constant
    prediction stays constant everywhere, borders included. What no patch covers is UNCOVERED.

    Args:
        logits: P arrays (z, y, x) float32, all of one size, consumed one by one. Not modified.
        starts: each patch's first voxel (z, y, x) on the grid; it may reach beyond the block.
        shape: the block's shape (z, y, x).
        origin: the block's first voxel (z, y, x) on the grid.

    Returns:
        (z, y, x) float32 of `shape`.
    """
    total, weight = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for patch, start in zip(logits, starts, strict=True):
        z, y, x = (s - o for s, o in zip(start, origin, strict=True))
        size = (patch.shape[0], patch.shape[1], patch.shape[2])
        _accumulate(patch, gaussian_weights(size), z, y, x, total, weight)
    _normalise(total, weight)
    return total


@njit(cache=True, nogil=True)
def _accumulate(patch, weights, z0, y0, x0, total, weight):  # type: ignore[no-untyped-def] # pragma: no cover
    nz, ny, nx = total.shape
    for z in range(max(0, -z0), min(patch.shape[0], nz - z0)):
        for y in range(max(0, -y0), min(patch.shape[1], ny - y0)):
            for x in range(max(0, -x0), min(patch.shape[2], nx - x0)):
                w = weights[z, y, x]
                total[z0 + z, y0 + y, x0 + x] += w * patch[z, y, x]
                weight[z0 + z, y0 + y, x0 + x] += w


@njit(cache=True, nogil=True)
def _normalise(total, weight):  # type: ignore[no-untyped-def] # pragma: no cover
    nz, ny, nx = total.shape
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                w = weight[z, y, x]
                total[z, y, x] = total[z, y, x] / w if w > 0 else UNCOVERED
