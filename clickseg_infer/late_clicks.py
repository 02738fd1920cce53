"""What a late click changes near it, judged voxel by voxel.

When most of a mask is right, what is left are thin and ragged errors along its border. How far such
an error goes from a click is learnt, not ruled: from each voxel's logit and CT, and from how it
lies to the click and to the mask.
"""

import math

import edt
import numpy as np
from numpy.typing import NDArray

from clickseg_infer.boxes import Box, box_at, overlap, slices_of
from clickseg_infer.clicks import Click, Clicks
from clickseg_infer.distances import squared_mm_in
from clickseg_infer.file_grid import Index
from clickseg_infer.judging import Nearby
from clickseg_infer.look import Look
from clickseg_infer.patch_run import Run
from clickseg_infer.prediction import Prediction, with_part
from clickseg_infer.volume import Spacing

_AROUND = 6.0  # times a voxel's longest edge: farther from a click nothing is judged
_DEEP = 3.2  # likewise, from the mask's border
_BEYOND = 4  # voxels more that are read to measure distances
_SURE = 9.0  # logits beyond this are as this
_HU = 50.0  # as one unit; beyond ten units differences are as ten
_ADDED, _REMOVED = 0.45, 0.6  # chances above which a voxel changes


def judged(
    run: Run, clicks: Clicks, known: Prediction, answer: Prediction, seen: Look
) -> Prediction:
    """An answer, with what its latest click changes near it as the run's judge says.

    Args:
        run: what it belongs to.
        clicks: all of them.
        known: the answer without the latest.
        answer: with it, by the rules of place alone.
        seen: what the network found.
    """
    near = nearby(run, clicks[-1], known, seen)
    chances = None if near is None or not len(near.known) else run.judge(near)
    if near is None or chances is None:
        return answer
    on = clicks[-1].positive
    changes = np.zeros(near.there.shape, bool)
    changes[near.there] = chances > (_ADDED if on else _REMOVED)
    for click in clicks:
        if overlap(near.box, box_at(click.zyx)) is not None:
            z, y, x = (p - low for p, (low, _) in zip(click.zyx, near.box, strict=True))
            changes[z, y, x] = click.positive == on
    part = answer.within(near.box)
    part[near.there] = changes[near.there] == on
    return with_part(answer, near.box, part)


def nearby(run: Run, click: Click, known: Prediction, seen: Look) -> Nearby | None:
    """The voxels near a click that it may change; None if the mask obeys it already, or is empty.

    Args:
        run: what the answer belongs to.
        click: the latest one.
        known: the answer without it.
        seen: what the network found.
    """
    from scipy import ndimage

    volume, limit = run.volume, run.model.spec.threshold_logit
    on, spacing = click.positive, volume.spacing_mm
    if known.box is None or known.holds(click.zyx) == on:
        return None
    unit = max(spacing)
    reach = [math.ceil(_AROUND * unit / own) + _BEYOND for own in spacing]
    z, y, x = (
        (max(0, p - far), min(size, p + far + 1))
        for p, far, size in zip(click.zyx, reach, volume.shape, strict=True)
    )
    box: Box = (z, y, x)
    mask = known.within(box) > 0
    if mask.all() or not mask.any():
        return None
    z0, y0, x0 = (p - low for p, (low, _) in zip(click.zyx, box, strict=True))
    at: Index = (z0, y0, x0)
    inner = edt.edt(mask, anisotropy=spacing, black_border=False, parallel=1)
    outer = edt.edt(~mask, anisotropy=spacing, black_border=False, parallel=1)
    depth = outer if on else inner
    away = np.sqrt(squared_mm_in(box, click.zyx, spacing))
    there = (mask != on) & (away < _AROUND * unit) & (depth < _DEEP * unit)
    own = max(float(depth[at]), min(spacing))

    normal = _normals(outer - inner, spacing)
    own_normal = normal[:, z0, y0, x0]
    axes = [
        (np.arange(*bounds) - p) * step
        for bounds, p, step in zip(box, click.zyx, spacing, strict=True)
    ]
    along = sum(
        n * axis
        for n, axis in zip(own_normal, np.meshgrid(*axes, indexing="ij", sparse=True), strict=True)
    )
    sideways = np.sqrt(np.maximum(away**2 - along**2, 0))
    sign = 1 if on else -1
    filled = mask.astype(np.float32)
    hu = volume.voxels[slices_of(box)].astype(np.float32)
    close = mask & (away < 5 * unit)
    of_mask = float(np.median(hu[close])) if close.any() else float(hu[at])
    logit = sign * (seen.logits_in(box, (limit - _SURE, limit + _SURE)) - limit)
    structure, none = seen.structure_in(box)
    values = (
        logit,
        depth / unit,
        away / unit,
        depth / own,
        away / own,
        own / unit,
        float(inner.max()) / unit,
        np.tensordot(own_normal, normal, 1),
        sign * along / unit,
        sideways / unit,
        ndimage.uniform_filter(filled, 3),
        ndimage.uniform_filter(filled, 5),
        np.clip((hu - hu[at]) / _HU, -10, 10),
        np.clip((hu - of_mask) / _HU, -10, 10),
        np.clip((hu[at] - of_mask) / _HU, -10, 10),
        structure,
        structure[at],
        none,
    )
    table = [np.broadcast_to(value, there.shape)[there] for value in values]
    return Nearby(click, box, there, np.stack(table, 1).astype(np.float32))


def _normals(apart: NDArray[np.float32], spacing_mm: Spacing) -> NDArray[np.float32]:
    """Where borders face: (3, z, y, x), outwards, smoothed by a voxel's longest edge.

    `apart` is the distance (z, y, x) in mm from a mask, negative within it.
    """
    from scipy import ndimage

    sigma = [max(spacing_mm) / step for step in spacing_mm]
    slopes = [
        ndimage.gaussian_filter(apart, sigma, order=[int(axis == n) for n in range(3)]) / step
        for axis, step in enumerate(spacing_mm)
    ]
    normals: NDArray[np.float32] = np.stack(slopes) / (np.linalg.norm(slopes, axis=0) + 1e-6)
    return normals
