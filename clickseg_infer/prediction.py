"""An answer: the mask after some clicks, stored as the box that it fills."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.clicks import Clicks
from clickseg_infer.file_grid import Index
from clickseg_infer.resample import Box

Slices = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class Prediction:
    """The mask after `clicks`, and what it took to get there.

    Attributes:
        clicks: that led to this mask, in order.
        shape: the volume's shape (z, y, x).
        box: the smallest box that holds the mask, or None for an empty mask.
        crop: (z, y, x) uint8, 0 or 1: the mask within `box`.
        changed: the box within which the latest click changed the mask, or None.
        patches: how many patches the network ran since the answer this one continues.
        ms: milliseconds by stage since then.
        swept: whether the whole volume was swept; no answer continues such a one.
    """

    clicks: Clicks
    shape: Index
    box: Box | None = None
    crop: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 0, 0), np.uint8))
    changed: Box | None = None
    patches: int = 0
    ms: dict[str, float] = field(default_factory=dict)
    swept: bool = False

    @property
    def mask(self) -> NDArray[np.uint8]:
        """The whole mask: (z, y, x) uint8, 0 or 1, newly made."""
        full = np.zeros(self.shape, np.uint8)
        if self.box is not None:
            full[slices_of(self.box)] = self.crop
        return full

    @property
    def voxels(self) -> int:
        """How many voxels the mask has."""
        return int(np.count_nonzero(self.crop))


def slices_of(box: Box, origin: Index = (0, 0, 0)) -> Slices:
    """Slices that cut `box` out of an array that begins at `origin`."""
    z, y, x = (slice(low - o, high - o) for (low, high), o in zip(box, origin, strict=True))
    return z, y, x


def origin_of(box: Box) -> Index:
    """The first voxel of a box."""
    return box[0][0], box[1][0], box[2][0]


def bounds_of(array: NDArray[Any], origin: Index = (0, 0, 0)) -> Box | None:
    """The smallest box that holds what is nonzero in an array that begins at `origin`."""
    bounds = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        hit = np.flatnonzero(array.any(axis=others))
        if len(hit) == 0:
            return None
        bounds.append((int(hit[0]) + origin[axis], int(hit[-1]) + 1 + origin[axis]))
    return bounds[0], bounds[1], bounds[2]


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


def joined(before: Prediction, after: Prediction) -> Prediction:
    """What is in either of two answers on one volume, with the clicks of the second."""
    box = union(before.box, after.box)
    return _combined(before, after, box, np.bitwise_or)


def common(before: Prediction, after: Prediction) -> Prediction:
    """What is in both of two answers on one volume, with the clicks of the second."""
    box = None if after.box is None else before.box
    return _combined(before, after, box, np.bitwise_and)


def _combined(before: Prediction, after: Prediction, box: Box | None, operation: Any) -> Prediction:
    """One answer of two, within a box that holds everything it can have."""
    if box is None:
        return Prediction(after.clicks, after.shape)
    mask = operation(_within(before, box), _within(after, box))
    bounds = bounds_of(mask, origin_of(box))
    if bounds is None:
        return Prediction(after.clicks, after.shape)
    crop = np.ascontiguousarray(mask[slices_of(bounds, origin_of(box))])
    return Prediction(after.clicks, after.shape, bounds, crop)


def _within(answer: Prediction, box: Box) -> NDArray[np.uint8]:
    """The part of a mask that lies in `box`."""
    whole = hull(box, answer.box) if answer.box is not None else box
    mask = np.zeros([high - low for low, high in whole], np.uint8)
    if answer.box is not None:
        mask[slices_of(answer.box, origin_of(whole))] = answer.crop
    return mask[slices_of(box, origin_of(whole))]
