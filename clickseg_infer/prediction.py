"""An answer: the mask after some clicks, stored as the box that it fills."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from clickseg_infer.boxes import (
    Box,
    bounds_of,
    box_at,
    hull,
    origin_of,
    overlap,
    shape_of,
    slices_of,
    union,
)
from clickseg_infer.clicks import Clicks
from clickseg_infer.file_grid import Index
from clickseg_infer.meaning import Meaning
from clickseg_infer.refinement.tuning import Refinement, Tuning


def _nothing() -> NDArray[np.uint8]:
    return np.zeros((0, 0, 0), np.uint8)


@dataclass(frozen=True, eq=False)
class Prediction:
    """The mask after `clicks`, and what it took to get there.

    Attributes:
        clicks: that led to this mask, in order.
        shape: the volume's shape (z, y, x).
        box: the smallest box that holds the mask, or None for an empty mask.
        crop: (z, y, x) uint8, 0 or 1: the mask within `box`. Made read-only.
        patches: how many patches the network ran since the answer this one continues.
        ms: milliseconds by stage since then.
        final: False where a budget ended before the latest click was answered in full.
        swept: whether the whole volume was swept; no answer continues such a one.
        tuning: with which f-BRS had the network agree with its clicks last, if it had to.
        refinement: how the answer came to obey its clicks; None where nothing refines.
        meant: which structure of the body the clicks mean; None where that is not known.
    """

    clicks: Clicks
    shape: Index
    box: Box | None = None
    crop: NDArray[np.uint8] = field(default_factory=_nothing)
    patches: int = 0
    ms: dict[str, float] = field(default_factory=dict)
    final: bool = True
    swept: bool = False
    tuning: Tuning | None = None
    refinement: Refinement | None = None
    meant: Meaning | None = None

    def __post_init__(self) -> None:
        self.crop.flags.writeable = False

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

    def with_mask(self, other: "Prediction") -> "Prediction":
        """This answer with the mask of another."""
        return replace(self, box=other.box, crop=other.crop)

    def holds(self, zyx: Index) -> bool:
        """Whether the mask holds a voxel (z, y, x)."""
        if self.box is None or overlap(self.box, box_at(zyx)) is None:
            return False
        z, y, x = (p - low for p, (low, _) in zip(zyx, self.box, strict=True))
        return bool(self.crop[z, y, x])

    def within(self, box: Box) -> NDArray[np.uint8]:
        """The part of the mask that lies in `box`: (z, y, x) uint8, newly made."""
        part = np.zeros(shape_of(box), np.uint8)
        shared = None if self.box is None else overlap(box, self.box)
        if self.box is not None and shared is not None:
            ours = self.crop[slices_of(shared, origin_of(self.box))]
            part[slices_of(shared, origin_of(box))] = ours
        return part


def from_mask(mask: NDArray[Any]) -> Prediction:
    """The answer to no clicks that a mask (z, y, x) stands for; nonzero is the object."""
    filled = (mask != 0).view(np.uint8)
    return _tight(Prediction((), filled.shape), filled, (0, 0, 0))


def joined(known: Prediction, found: Prediction) -> Prediction:
    """The first answer and all that is in the second."""
    box = union(known.box, found.box)
    if box is None or found.box is None:
        return known
    mask = known.within(box)
    mask[slices_of(found.box, origin_of(box))] |= found.crop
    return replace(known, box=box, crop=mask)


def reduced(known: Prediction, found: Prediction, looked: list[Box]) -> Prediction:
    """The first answer without what the second does not have within the boxes that it looked at."""
    if known.box is None:
        return known
    mask, begin = known.crop.copy(), origin_of(known.box)
    for box in looked:
        shared = overlap(box, known.box)
        if shared is not None:
            mask[slices_of(shared, begin)] &= found.within(shared)
    return _tight(known, mask, begin)


def difference(before: Prediction, after: Prediction) -> Box | None:
    """The smallest box that holds every voxel in which two answers differ."""
    whole = union(before.box, after.box)
    if whole is None:
        return None
    changed = before.within(whole)
    if after.box is not None:
        changed[slices_of(after.box, origin_of(whole))] ^= after.crop
    return bounds_of(changed, origin_of(whole))


def with_part(answer: Prediction, box: Box, part: NDArray[np.uint8]) -> Prediction:
    """The answer with another mask within `box`, which `part` (z, y, x) fills."""
    whole = box if answer.box is None else hull(answer.box, box)
    mask = answer.within(whole)
    mask[slices_of(box, origin_of(whole))] = part
    return _tight(answer, mask, origin_of(whole))


def cut(mask: NDArray[np.uint8], box: Box, shape: Index) -> Prediction:
    """The answer to no clicks of which `mask` (z, y, x) uint8 fills `box`, or a part of it."""
    return _tight(Prediction((), shape), mask, origin_of(box))


def _tight(answer: Prediction, mask: NDArray[np.uint8], begin: Index) -> Prediction:
    """The answer with another mask, one that begins at `begin`."""
    box = bounds_of(mask, begin)
    crop = _nothing() if box is None else np.ascontiguousarray(mask[slices_of(box, begin)])
    return replace(answer, box=box, crop=crop)


@dataclass(frozen=True, eq=False)
class Packed:
    """A prediction whose mask is kept as deflated bits."""

    bare: Prediction
    bits: bytes

    @property
    def clicks(self) -> Clicks:
        """The prediction's clicks."""
        return self.bare.clicks

    @property
    def final(self) -> bool:
        """Whether the prediction is final."""
        return self.bare.final

    def unpack(self) -> Prediction:
        """The prediction, equal bit for bit."""
        if self.bare.box is None:
            return self.bare
        shape = shape_of(self.bare.box)
        bits = np.frombuffer(isal_zlib.decompress(self.bits), np.uint8)
        crop = np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape)
        return replace(self.bare, crop=crop)


def pack(answer: Prediction) -> Packed:
    """A small copy of an answer, for a long history."""
    bits = isal_zlib.compress(np.packbits(answer.crop), level=1)
    return Packed(replace(answer, crop=_nothing()), bits)
