"""What a click may change, by place: far from the mask's border or the click only what is sure."""

from dataclasses import dataclass

import edt
import numpy as np
from numpy.typing import NDArray

from clickseg_infer.boxes import bounds_of, box_at, hull, overlap, slices_of, union
from clickseg_infer.clicks import Click
from clickseg_infer.distances import squared_mm_in
from clickseg_infer.file_grid import Index
from clickseg_infer.patch_run import position_in
from clickseg_infer.prediction import Prediction
from clickseg_infer.resample import NetworkGrid, mask_to_network
from clickseg_infer.volume import Spacing

_EASY = 0.75  # of the click's own distance: nearer than that, adding is easier
_NEAREST = 2.0  # network voxels of the finest axis: a click nearer than that counts as so far
_AROUND = 2.0  # times the click's own distance: nothing within that is far from the click
_FARTHEST = 6.0  # times it: beyond `_AROUND`, no more than so much counts


@dataclass(frozen=True)
class _Rule:
    """By how many logits a voxel is held back for each time the click's own distance.

    Attributes:
        beyond: that it lies deeper in what changes than the click does.
        away: that it lies farther from the click than `_AROUND`.
    """

    beyond: float
    away: float


_ADDING = _Rule(beyond=1.5, away=0.2)
_REMOVING, _REMOVING_LATE = _Rule(beyond=1.5, away=0.0), _Rule(beyond=6.0, away=0.5)


def weighed(
    logits: NDArray[np.float32],
    origin: Index,
    grid: NetworkGrid,
    spacing_mm: Spacing,
    click: Click,
    known: Prediction,
    threshold_logit: float,
    *,
    late: bool,
) -> NDArray[np.float32]:
    """What the network says after a click, weighed by how far from border and click it says so.

    People click an error near its middle, so it ends about twice as far from the mask as the
    click lies. With distances from the mask in units of the click's own (two voxels at least),
    a logit falls by 1.5 for each unit beyond 1, and rises by 1.5 for each unit below 0.75; the
    clicked voxel's own does not fall. It also falls by 0.2 for each of six units from the click
    beyond 2. After a negative click logits in the mask rise by 1.5 for each unit beyond 1, with
    distances from what is outside of it. After a late one, when most of the mask is right, by 6,
    and by 0.5 for each of six units from the click beyond 2.

    Args:
        logits: (z, y, x) float32 on the network's grid. Not modified.
        origin: their first voxel on that grid.
        grid: the grid.
        spacing_mm: the grid's (z, y, x).
        click: the latest one.
        known: the answer without it.
        threshold_logit: above which a voxel belongs to the object.
        late: whether the click is one of those that correct what is nearly right.

    Returns:
        (z, y, x) float32; the logits themselves if there is no mask, or on this grid it obeys
        the click already.
    """
    block = box_at((0, 0, 0), logits.shape)
    position = position_in(click, grid, origin)
    if known.box is None or overlap(block, box_at(position)) is None:
        return logits
    before = np.empty(logits.shape, np.float32)
    mask_to_network(known.crop, known.box, grid, origin, before)
    mask, on = before > 0, click.positive
    held = bounds_of(mask)
    if held is None or mask[position] == on:
        return logits
    if on:
        rule = _ADDING
        likely = bounds_of(logits > threshold_logit - rule.beyond * _EASY)
        box = union(hull(held, box_at(position)), likely)
    else:  # and one voxel around it, from which to measure
        rule = _REMOVING_LATE if late else _REMOVING
        (z0, z1), (y0, y1), (x0, x1) = held
        box = overlap(block, ((z0 - 1, z1 + 1), (y0 - 1, y1 + 1), (x0 - 1, x1 + 1)))
    assert box is not None
    area = slices_of(box)
    changing = np.ascontiguousarray(mask[area] != on)
    if changing.all():
        return logits
    z, y, x = (p - low for p, (low, _) in zip(position, box, strict=True))
    shift = _held_back(changing, (z, y, x), spacing_mm, rule, _EASY if on else 0.0)
    moved = logits.copy()
    change = np.subtract if on else np.add
    change(moved[area], shift, out=moved[area], where=changing)
    return moved


def _held_back(
    changing: NDArray[np.bool_], click: Index, spacing_mm: Spacing, rule: _Rule, easy: float
) -> NDArray[np.float32]:
    """By how many logits voxels are held back; less than 0 where they lie nearer than `easy`."""
    depth = edt.edt(changing, anisotropy=spacing_mm, black_border=False, parallel=1)
    own = max(float(depth[click]), _NEAREST * min(spacing_mm))
    depth /= own
    depth -= np.clip(depth, np.float32(easy), np.float32(1))
    depth *= np.float32(rule.beyond)
    if rule.away:
        away = np.sqrt(squared_mm_in(box_at((0, 0, 0), changing.shape), click, spacing_mm))
        far = np.clip(away / own - _AROUND, 0, _FARTHEST)
        depth += (far * rule.away).astype(np.float32)
    held: NDArray[np.float32] = depth
    return held
