"""What the clicks mean, as far as the model knows structures of the body by name.

There is a hypothesis for every structure as a whole, one for a part of it, and one for "none of
these". Each weighs as much as the clicks make it likely. What makes a part is a click beside the
object in the same structure: the part ends halfway to it, as one lung does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.clicks import Click
from clickseg_infer.file_grid import Index
from clickseg_infer.volume import Spacing

Floats = NDArray[np.float32]

_SURE_ON = 0.9  # no click on the object says more: it corrects, so there the structure was missed
_SURE_BESIDE = 0.98  # nor one beside it; neither rules a hypothesis out for good
_UNNAMED = 0.7  # how likely any later click is where none of the structures is meant
_AROUND = 4  # voxels: cells so near to the clicked one tell as much as it does
_PART = 0.15  # how likely it is a part of a structure that is meant


@dataclass(frozen=True, eq=False)
class Meaning:
    """How likely each hypothesis is; all add up to 1.

    Attributes:
        none: that none of the structures is meant.
        whole: (structures,) float32, that one is. Made read-only.
        part: (structures,) float32, that a part of one is. Made read-only.
        rivals: clicks beside the object that lie in a structure, with its number from 0.
    """

    none: float
    whole: Floats
    part: Floats
    rivals: tuple[tuple[Click, int], ...] = ()

    def __post_init__(self) -> None:
        self.whole.flags.writeable = self.part.flags.writeable = False


def meant(
    before: Meaning | None, chances: Floats, position: Index, click: Click, cell_size: int
) -> Meaning | None:
    """What is meant after one more click.

    A click tells by the mean over its cell and those close to it: people click near borders.

    Args:
        before: what was meant without it; None where nothing is known, as before the first click.
        chances: (1 + structures, z, y, x) of a patch's cells, the first for none. Not modified.
        position: the click's, (z, y, x) in voxels of the patch; may lie outside it, and then it
            tells nothing.
        click: the click.
        cell_size: voxels along an axis of a cell.

    Returns:
        None where still nothing is known.
    """
    if before is not None and len(before.whole) != len(chances) - 1:
        before = None  # of another model's answer
    cell = [p // cell_size for p in position]
    if not all(0 <= c < n for c, n in zip(cell, chances.shape[1:], strict=True)):
        return before
    reach = _AROUND // cell_size
    around = tuple(slice(max(0, c - reach), c + reach + 1) for c in cell)
    here: Floats = chances[(slice(None), *around)].mean((1, 2, 3))
    none, named = float(here[0]), here[1:]
    if before is None:
        whole, part = (1 - _PART) * named, _PART * named
        return _normalised(none, whole, part, ()) if click.positive else None
    sure = _SURE_ON if click.positive else _SURE_BESIDE
    likely = np.clip(named if click.positive else 1 - named, 1 - sure, sure)
    rival = np.zeros(len(named), bool)
    if not click.positive:
        block = tuple(_block(p, cell_size) for p in position)
        rival = chances[(slice(1, None), *block)].mean((1, 2, 3)) > 0.5
    rivals = (*before.rivals, *((click, number) for number in np.flatnonzero(rival).tolist()))
    none, whole = _UNNAMED * before.none, likely * before.whole
    part = np.where(rival, np.float32(_UNNAMED), likely) * before.part
    return _normalised(none, whole, part, rivals)


def likeliest(meaning: Meaning | None, names: Sequence[str]) -> tuple[str, float] | None:
    """What the clicks mean, if one structure is likelier than all else together.

    Args:
        meaning: what is meant.
        names: of the structures.

    Returns:
        Its name, and how likely it is, or a part of it.
    """
    if meaning is None or len(meaning.whole) != len(names):
        return None
    either = meaning.whole + meaning.part
    number = int(np.argmax(either))
    chance = float(either[number])
    return (names[number], chance) if chance > 0.5 else None


def chance_of_meant(meaning: Meaning, chances: Floats) -> Floats:
    """How likely each cell belongs to the structure that is meant, if one is.

    Args:
        meaning: what is meant.
        chances: (1 + structures, z, y, x) of cells. Not modified.

    Returns:
        (z, y, x).
    """
    either = meaning.whole + meaning.part
    there: Floats = np.tensordot(either / max(float(either.sum()), 1e-6), chances[1:], 1)
    return there


def other_parts(
    size: Index,
    cell_size: int,
    spacing_mm: Spacing,
    on: Sequence[Index],
    beside: Mapping[int, Sequence[Index]],
) -> dict[int, NDArray[np.bool_]]:
    """Where other parts than the one meant are: nearer to a click beside it than to any on it.

    Args:
        size: of a patch (z, y, x), in cells.
        cell_size: voxels along an axis of a cell.
        spacing_mm: of its voxels (z, y, x).
        on: clicks on the object, (z, y, x) in voxels of the patch; may lie outside of it.
        beside: clicks beside it, by the number of the structure that they lie in; likewise.

    Returns:
        (z, y, x) of cells, for each of these structures.
    """
    if not on or not beside:
        return {}
    own = _nearest(size, cell_size, spacing_mm, on)
    return {
        number: _nearest(size, cell_size, spacing_mm, there) < own
        for number, there in beside.items()
    }


def _block(voxel: int, cell_size: int) -> slice:
    """The cells along an axis that fill the block of `_AROUND` voxels that a voxel lies in."""
    first, cells = voxel // _AROUND * _AROUND // cell_size, max(1, _AROUND // cell_size)
    return slice(first, first + cells)


def _normalised(
    none: float, whole: Floats, part: Floats, rivals: tuple[tuple[Click, int], ...]
) -> Meaning:
    total = np.float32(none) + whole.sum() + part.sum()
    return Meaning(float(none / total), whole / total, part / total, rivals)


def _nearest(
    size: Index, cell_size: int, spacing_mm: Spacing, places: Sequence[Index]
) -> NDArray[np.float64]:
    """The squared distance in mm of the middle of each cell from the nearest of some places."""
    nearest = np.full(size, np.inf)
    for place in places:
        z, y, x = (
            (((np.arange(n) + 0.5) * cell_size - 0.5 - p) * own) ** 2
            for n, own, p in zip(size, spacing_mm, place, strict=True)
        )
        np.minimum(nearest, z[:, None, None] + y[:, None] + x, out=nearest)
    return nearest
