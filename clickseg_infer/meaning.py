"""What the clicks mean, as far as the model knows structures of the body by name.

There is a hypothesis for every structure as a whole, one for a part of it, and one for "none of
these". Each weighs as much as the clicks make it likely. What makes a part is a click beside the
object in the same structure: the part ends halfway to it, as one lung does, or one vertebra.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.file_grid import Index
from clickseg_infer.structures import CELL
from clickseg_infer.volume import Spacing

Floats = NDArray[np.float32]

_SURE = 0.98  # no click is so sure to be right as to rule a hypothesis out for good
_UNNAMED = 0.7  # how likely any later click is where none of the structures is meant
_PART = 0.15  # how likely it is a part of a structure that is meant


def meant(before: Floats | None, chances: Floats, position: Index, positive: bool) -> Floats | None:
    """How likely each structure is the one that the clicks mean, after one more click.

    A click tells by the mean over its cell and those that touch it: people click near borders.

    Args:
        before: (1 + 2 * structures,), as it was without this click; None where nothing is known, as
            before the first click. Not modified.
        chances: (1 + structures, z, y, x) of a patch. Not modified.
        position: the click's, (z, y, x) in voxels of the patch; may lie outside it, and then it
            tells nothing.
        positive: whether the click is on the object.

    Returns:
        (1 + 2 * structures,), adding up to 1: none of them, each as a whole, a part of each; None
        where still nothing is known.
    """
    here = _around(chances, position)
    if here is None:
        return before
    named = here[1:]
    if before is None or len(before) != 1 + 2 * len(named):  # the latter of another model's answer
        if not positive:
            return None
        first: Floats = np.concatenate([here[:1], (1 - _PART) * named, _PART * named])
        first /= first.sum()
        return first
    whole = np.clip(named if positive else 1 - named, 1 - _SURE, _SURE)
    part = whole if positive else np.maximum(whole, np.float32(_UNNAMED))
    after: Floats = before * np.concatenate([[np.float32(_UNNAMED)], whole, part])
    after /= after.sum()
    return after


def likeliest(weights: Floats | None, names: Sequence[str]) -> tuple[str, float] | None:
    """What the clicks mean, if one structure is likelier than all else together.

    Args:
        weights: (1 + 2 * structures,), as `meant` gives them. Not modified.
        names: of the structures.

    Returns:
        Its name, and how likely it is, or a part of it.
    """
    if weights is None:
        return None
    each = weights[1:].reshape(2, -1).sum(0)
    number = int(np.argmax(each))
    chance = float(each[number])
    return (names[number], chance) if chance > 0.5 else None


def rivals(chances: Floats, start: Index, beside: Sequence[Index]) -> dict[int, list[Index]]:
    """Clicks beside the object by the number, from 0, of the structure that they surely lie in.

    Args:
        chances: (1 + structures, z, y, x) of a patch. Not modified.
        start: the patch's first voxel (z, y, x) on the network's grid.
        beside: clicks beside the object, in voxels of that grid.
    """
    found: dict[int, list[Index]] = {}
    for click in beside:
        here = _around(chances, _minus(click, start))
        for number in () if here is None else np.flatnonzero(here[1:] > 0.5).tolist():
            found.setdefault(number, []).append(click)
    return found


def other_parts(
    start: Index,
    size: Index,
    spacing_mm: Spacing,
    on: Sequence[Index],
    beside: Mapping[int, Sequence[Index]],
) -> dict[int, NDArray[np.bool_]]:
    """Where other parts than the one meant are: nearer to a click beside it than to any on it.

    Args:
        start: a patch's first voxel (z, y, x) on the network's grid.
        size: of the patch (z, y, x), in voxels.
        spacing_mm: of the grid (z, y, x).
        on: clicks on the object, in voxels of the grid.
        beside: the `rivals` of structures.

    Returns:
        (z / CELL, y / CELL, x / CELL) for each structure that has some.
    """
    if not on or not beside:
        return {}
    own = _nearest(start, size, spacing_mm, on)
    return {n: _nearest(start, size, spacing_mm, there) < own for n, there in beside.items()}


def _around(chances: Floats, position: Index) -> Floats | None:
    """The mean chances of the cells around a place of a patch; None outside of it."""
    cell = [p // CELL for p in position]
    if not all(0 <= c < n for c, n in zip(cell, chances.shape[1:], strict=True)):
        return None
    near = tuple(slice(max(0, c - 1), c + 2) for c in cell)
    mean: Floats = chances[(slice(None), *near)].mean((1, 2, 3))
    return mean


def _nearest(
    start: Index, size: Index, spacing_mm: Spacing, places: Sequence[Index]
) -> NDArray[np.float64]:
    """The squared distance in mm of the middle of each cell from the nearest of some places."""
    nearest = np.full([n // CELL for n in size], np.inf)
    for place in places:
        z, y, x = (
            ((np.arange(n // CELL) * CELL + (CELL - 1) / 2 - p) * own) ** 2
            for n, own, p in zip(size, spacing_mm, _minus(place, start), strict=True)
        )
        np.minimum(nearest, z[:, None, None] + y[:, None] + x, out=nearest)
    return nearest


def _minus(a: Index, b: Index) -> Index:
    z, y, x = (p - q for p, q in zip(a, b, strict=True))
    return z, y, x
