"""Gaussian-weighted blending of overlapping patches."""

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numba import njit
from numpy.typing import NDArray

from clickseg_infer.file_grid import Index
from clickseg_infer.machine import cores

_SIGMA = 0.125  # of the patch size
_LEAST_WEIGHT = 1e-3

UNCOVERED = -1e4
"""The logit of what no patch covers: certainly outside, yet finite, so that it interpolates."""

Weights = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], np.float32]
"""A bell along z, y and x, and the least weight: a voxel's is the bells' product, or that least."""


@functools.lru_cache(maxsize=8)
def gaussian_weights(patch: Index) -> Weights:
    """What the voxels of a patch weigh: 1 near its centre, at least 0.001.

    The importance map of MONAI's `sliding_window_inference` (mode "gaussian", sigma_scale 0.125).
    """
    offsets = [(np.arange(size) - (size - 1) / 2) / (_SIGMA * size) for size in patch]
    z, y, x = (np.exp(-0.5 * offset**2).astype(np.float32) for offset in offsets)
    return z, y, x, np.float32(max(float(z[0] * y[0] * x[0]), _LEAST_WEIGHT))


def blend(
    logits: Iterable[NDArray[np.float32]], starts: Sequence[Index], shape: Index, origin: Index
) -> NDArray[np.float32]:
    """Merge overlapping patch logits into one block.

    Each voxel is the Gaussian-weighted mean of the patches that contain it, so a constant
    prediction stays constant everywhere, borders included. What no patch covers is UNCOVERED.
    The block that is returned is all the memory that it takes; a patch that is the whole block is
    returned as it is.

    Args:
        logits: P arrays (z, y, x) float32, all of one size, consumed one by one; each must stay as
            it is until the one after the next is asked for. Not modified.
        starts: each patch's first voxel (z, y, x) on the grid; it may reach beyond the block.
        shape: the block's shape (z, y, x).
        origin: the block's first voxel (z, y, x) on the grid.

    Returns:
        (z, y, x) float32 of `shape`.
    """
    if len(starts) == 0:
        return np.full(shape, UNCOVERED, np.float32)
    places = np.array(starts, np.int64) - np.array(origin, np.int64)
    if len(starts) == 1 and not places.any():
        logits = list(logits)
        if logits[0].shape == shape:
            return logits[0]
    block = np.zeros(shape, np.float32)
    adding: list[Future[None]] = []
    with ThreadPoolExecutor(cores()) as pool:
        # Threads share out a patch's planes while the next patch is made; each patch waits for the
        # one before it, so that voxels add up in one order.
        for patch, place in zip(logits, places, strict=True):
            for part in adding:
                part.result()
            weights = gaussian_weights(patch.shape)
            add = functools.partial(_add, patch, place, *weights, block)
            adding = [pool.submit(add, *slab) for slab in _slabs(len(patch))]
        for part in adding:
            part.result()
        normalise = functools.partial(_normalise, block, places, *weights)
        for part in [pool.submit(normalise, *slab) for slab in _slabs(len(block))]:
            part.result()
    return block


def _slabs(planes: int) -> Iterator[tuple[int, int]]:
    """Where a part for each core begins, and where it ends."""
    edges = np.linspace(0, planes, cores() + 1).astype(int).tolist()
    return itertools.pairwise(edges)


@njit(cache=True, nogil=True)
def _add(patch, place, wz, wy, wx, least, block, begin, end):  # type: ignore[no-untyped-def] # pragma: no cover
    """Add planes `begin` to `end` of a patch, weighted, where they lie in the block."""
    nz, ny, nx = block.shape
    z0, y0, x0 = place
    first, last = _within(x0, len(wx), nx)
    bell = wx[first:last]
    lowest, highest = _within(z0, len(wz), nz)
    for z in range(max(begin, lowest), min(end, highest)):
        for y in range(*_within(y0, len(wy), ny)):
            height = wz[z] * wy[y]
            row, total = patch[z, y, first:last], block[z0 + z, y0 + y, x0 + first : x0 + last]
            for x in range(len(bell)):
                weight = height * bell[x]
                total[x] += (weight if weight > least else least) * row[x]  # faster than max()


@njit(cache=True, nogil=True)
def _normalise(block, places, wz, wy, wx, least, begin, end):  # type: ignore[no-untyped-def] # pragma: no cover
    """Divide planes by the patches' weights, which are added up again, for one row at a time."""
    _, ny, nx = block.shape
    weights = np.empty(nx, np.float32)
    for z in range(begin, end):
        level = places[(places[:, 0] <= z) & (z < places[:, 0] + len(wz))]
        for y in range(ny):
            weights[:] = 0
            for z0, y0, x0 in level:
                if y0 <= y < y0 + len(wy):
                    first, last = _within(x0, len(wx), nx)
                    bell, total = wx[first:last], weights[x0 + first : x0 + last]
                    height = wz[z - z0] * wy[y - y0]
                    for x in range(len(bell)):
                        weight = height * bell[x]
                        total[x] += weight if weight > least else least
            row = block[z, y]
            for x in range(nx):
                row[x] = row[x] / weights[x] if weights[x] > 0 else UNCOVERED


@njit(cache=True, nogil=True)
def _within(start, size, length):  # type: ignore[no-untyped-def] # pragma: no cover
    """The part of a patch, along one axis, that lies in the block; it may be empty."""
    first = max(0, -start)
    return first, max(first, min(size, length - start))
