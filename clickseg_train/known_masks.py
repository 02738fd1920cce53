"""What may be known of an object before it is clicked: part of it, too much, a rough copy."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from clickseg_train.objects import TrainingObject


def known_mask(rng: np.random.Generator, item: TrainingObject) -> NDArray[np.uint8]:
    """A mask (z, y, x) uint8 such as an earlier look, a neighbour patch or another tool leaves."""
    choice = rng.integers(4)
    if choice == 0:
        return half_known(rng, item.truth)
    if choice == 1:
        return coarse(item.truth, int(rng.integers(2, 5)))
    if choice == 2 and item.others is not None and item.others.any():
        return np.maximum(item.truth, _part(rng, item.others))
    steps = int(rng.integers(1, 5))
    change = ndimage.binary_dilation if rng.random() < 0.5 else ndimage.binary_erosion
    changed: Any = change(item.truth, iterations=steps)
    return changed.astype(np.uint8)


def half_known(rng: np.random.Generator, truth: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The truth on one side of a plane: what a patch knows of an object that grew into it."""
    axis = int(rng.integers(3))
    hit = np.flatnonzero(truth.any(axis=tuple(a for a in range(3) if a != axis)))
    cut = int(rng.integers(hit[0], hit[-1])) + 1 if len(hit) > 1 else int(hit[0])
    known = truth.copy()
    side = slice(cut, None) if rng.random() < 0.5 else slice(None, cut)
    known[tuple(side if a == axis else slice(None) for a in range(3))] = 0
    return known


def coarse(mask: NDArray[np.uint8], cell: int) -> NDArray[np.uint8]:
    """The mask as a look at a spacing `cell` times as wide would have drawn it."""
    share = ndimage.uniform_filter(mask.astype(np.float32), cell)
    corner = cell // 2
    cells = share[corner::cell, corner::cell, corner::cell] >= 0.5
    for axis, size in enumerate(mask.shape):
        cells = np.repeat(cells, cell, axis=axis).take(range(size), axis=axis, mode="clip")
    return cells.astype(np.uint8)


def _part(rng: np.random.Generator, others: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What lies within a ball around a random voxel of the other objects."""
    places = np.argwhere(others)
    centre = places[rng.integers(len(places))]
    radius = rng.uniform(4, 16)
    grid = np.ogrid[tuple(slice(0, n) for n in others.shape)]
    inside = sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)) <= radius**2
    return (others * inside).astype(np.uint8)
