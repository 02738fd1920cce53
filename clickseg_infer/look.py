"""Looking: run patches of the network around a place, or over the whole volume.

A look says what it found and where it looked; what becomes of it is for `predicting` to say.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cc3d
import numpy as np
from numpy.typing import NDArray

from clickseg_infer import stitch
from clickseg_infer.boxes import (
    Box,
    bounds_of,
    box_at,
    hull,
    origin_of,
    overlap,
    shape_of,
    slices_of,
)
from clickseg_infer.clicks import Clicks
from clickseg_infer.errors import VolumeError
from clickseg_infer.file_grid import Index
from clickseg_infer.meaning import Meaning, chance_of_meant, meant, other_parts
from clickseg_infer.mixing import informed
from clickseg_infer.patch_run import Run, hints_for, position_in, run_patch, run_patch_once
from clickseg_infer.patches import cover, focus, grow
from clickseg_infer.prediction import Prediction, cut
from clickseg_infer.resample import (
    NetworkGrid,
    from_network,
    mask_to_network,
    network_grid,
    values_back,
)
from clickseg_infer.volume import Spacing
from clickseg_infer.weighing import weighed
from clickseg_infer.workspace import Seen

MAX_PATCHES = 12
"""A look that grows beyond this many patches stops growing."""

MAX_SWEEP_VOXELS = 2**30
"""A sweep of more voxels of the network's grid is refused; it would need 4 bytes for each."""

_GROW_OVERLAP = 0.25


@dataclass(frozen=True, eq=False)
class Look:
    """What was found, as an answer to no clicks, and the boxes of the volume that were looked at.

    Nothing is found outside these boxes. `logits` (z, y, x) are those of what was found, on the
    look's own `grid` from `origin` on. `plain` is what the network found before it was tuned; the
    same where it was not. `meant` says what the clicks mean; None where that is not known.
    `structure` (z, y, x) is how likely cells of the first patch, which began at `start`, belong to
    the structure that is meant; None where none is known.
    """

    found: Prediction
    boxes: list[Box]
    logits: NDArray[np.float32]
    plain: Prediction
    meant: Meaning | None
    grid: NetworkGrid
    origin: Index
    start: Index
    structure: NDArray[np.float32] | None
    cell_size: int

    def logits_in(self, box: Box, limits: tuple[float, float]) -> NDArray[np.float32]:
        """The logits (z, y, x) in a box of the volume, clipped."""
        return values_back(self.logits, self.origin, self.grid, box, limits)

    def structure_in(self, box: Box) -> tuple[NDArray[np.float32], float]:
        """How likely a box of the volume belongs to what is meant, (z, y, x); and "none" is."""
        if self.structure is None or self.meant is None:
            return np.zeros(shape_of(box), np.float32), 1.0
        there = values_back(self.structure, self.start, self.grid, box, (0, 1), self.cell_size)
        return there, self.meant.none


def look(
    run: Run,
    clicks: Clicks,
    known: Prediction,
    spacing_mm: Spacing,
    centre: Sequence[float],
    wanted: Box | None = None,
    *,
    late: bool = False,
) -> Look:
    """Run the patch around `centre`, and neighbours while the object touches a patch's face.

    The neighbour that more of the object touches is run first. A `late` look runs one patch, and
    takes away little beyond its click's own place. What lies outside the box `wanted` need not be
    found.
    """
    spec, volume = run.model.spec, run.volume
    grid = network_grid(volume.shape, volume.spacing_mm, spacing_mm)
    first = focus(grid.of_volume(centre), grid.shape, spec.patch_size)
    waiting = {first: 0}
    meaning, structure, cell_size = known.meant, None, 1
    done: dict[Index, NDArray[np.float32]] = {}
    plain: dict[Index, NDArray[np.float32]] = {}
    while waiting and len(done) < MAX_PATCHES and not (done and run.out_of_time()):
        start = max(waiting, key=lambda place: waiting[place])
        del waiting[start]
        hints = hints_for(run, grid, start, clicks, known, done)
        seen = run_patch_once(run, grid, start, hints)
        if seen.chances is not None and not done:
            at = position_in(clicks[-1], grid, start)
            meaning = meant(meaning, seen.chances, at, clicks[-1], seen.cell_size)
            if late and meaning is not None:
                structure, cell_size = chance_of_meant(meaning, seen.chances), seen.cell_size
        done[start], plain[start] = _informed(run, seen, grid, start, clicks, meaning)
        if late:
            break
        inside = done[start] > spec.threshold_logit
        for neighbour, touched in grow(start, inside, grid.shape, spec.patch_size, _GROW_OVERLAP):
            if neighbour not in done:
                waiting[neighbour] = max(touched, waiting.get(neighbour, 0))
    origin, shape = _extent(list(done), spec.patch_size)
    boxes = [grid.volume_box(start, spec.patch_size) for start in done]
    parts = boxes if wanted is None else [b for box in boxes if (b := overlap(box, wanted))]

    def found(patches: dict[Index, NDArray[np.float32]]) -> tuple[Prediction, NDArray[np.float32]]:
        with run.watch.stage("stitch"):
            logits = stitch.blend(list(patches.values()), list(patches), shape, origin)
        with run.watch.stage("weigh"):
            logits = weighed(
                logits, origin, grid, spacing_mm, clicks[-1], known, spec.threshold_logit, late=late
            )
        logits = _clicked_part(run, logits, origin, grid, clicks, known)
        return _brought_back(run, logits, origin, grid, parts), logits

    answer, logits = found(done)
    tuned = any(plain[start] is not done[start] for start in done)
    untuned = found(plain)[0] if tuned else answer
    return Look(answer, boxes, logits, untuned, meaning, grid, origin, first, structure, cell_size)


def sweep(run: Run, clicks: Clicks, known: Prediction) -> Prediction:
    """The whole volume by sliding window at the close spacing, with the answer so far fed in."""
    spec, volume = run.model.spec, run.volume
    grid = network_grid(volume.shape, volume.spacing_mm, spec.spacing_mm)
    if math.prod(grid.shape) > MAX_SWEEP_VOXELS:
        raise VolumeError(f"too large to be swept: {grid.shape} voxels at {spec.spacing_mm} mm")
    logits = sweep_logits(run, grid, clicks, known)
    logits = _clicked_part(run, logits, (0, 0, 0), grid, clicks, known)
    return _brought_back(run, logits, (0, 0, 0), grid, [box_at((0, 0, 0), volume.shape)])


def sweep_logits(
    run: Run, grid: NetworkGrid, clicks: Clicks, known: Prediction
) -> NDArray[np.float32]:
    """The sliding window's logits (z, y, x) float32 on the whole grid.

    Equal to MONAI's `sliding_window_inference` in mode "gaussian" with the same overlap, except
    that a click's disk is drawn beyond the volume's border too, where MONAI pads with zeros. So the
    network is never tuned for it.
    """
    spec = run.model.spec
    starts = cover(grid.shape, spec.patch_size, spec.overlap)
    hints = (replace(hints_for(run, grid, s, clicks, known, {}), targets=()) for s in starts)
    pairs = zip(starts, hints, strict=True)
    logits = (run_patch(run, grid, start, hint).logits for start, hint in pairs)
    return stitch.blend(logits, starts, grid.shape, (0, 0, 0))


def _informed(
    run: Run,
    seen: Seen,
    grid: NetworkGrid,
    start: Index,
    clicks: Clicks,
    meaning: Meaning | None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A patch's logits, and those before the network was tuned, by what is known of structures."""
    if seen.chances is None or meaning is None:
        return seen.logits, seen.plain
    z, y, x = (r * own for r, own in zip(grid.ratio, run.volume.spacing_mm, strict=True))
    on = [position_in(click, grid, start) for click in clicks if click.positive]
    beside: dict[int, list[Index]] = {}
    for click, number in meaning.rivals:
        beside.setdefault(number, []).append(position_in(click, grid, start))
    with run.watch.stage("structures"):
        others = other_parts(seen.chances.shape[1:], seen.cell_size, (z, y, x), on, beside)
        limit = run.model.spec.threshold_logit
        logits = informed(seen.logits, seen.chances, meaning, limit, others)
        if seen.plain is seen.logits:
            return logits, logits
        return logits, informed(seen.plain, seen.chances, meaning, limit, others)


def _clicked_part(
    run: Run,
    logits: NDArray[np.float32],
    origin: Index,
    grid: NetworkGrid,
    clicks: Clicks,
    known: Prediction,
) -> NDArray[np.float32]:
    """The logits, UNCOVERED where what is above the threshold is not what was clicked.

    May write into `logits`.
    """
    with run.watch.stage("components"):
        inside = logits > run.model.spec.threshold_logit
        extent = bounds_of(inside)
        if extent is None:
            return logits
        inside = np.ascontiguousarray(inside[slices_of(extent)])
        others = _not_clicked(inside, _plus(origin, origin_of(extent)), grid, clicks, known)
        if others is not None:
            logits = logits if logits.flags.writeable else logits.copy()
            logits[slices_of(extent)][others] = stitch.UNCOVERED
        return logits


def _brought_back(
    run: Run, logits: NDArray[np.float32], origin: Index, grid: NetworkGrid, boxes: list[Box]
) -> Prediction:
    """What is above the threshold, in the volume's voxels within `boxes`."""
    threshold, nothing = run.model.spec.threshold_logit, Prediction((), run.volume.shape)
    with run.watch.stage("back"):
        extent = bounds_of(logits > threshold)
        if extent is None:
            return nothing
        # Up to one voxel of the network's beyond the object, an interpolated logit may be in it.
        first = _plus(_plus(origin, origin_of(extent)), (-1, -1, -1))
        reach = grid.volume_box(first, _plus(shape_of(extent), (2, 2, 2)))
        parts = [part for box in boxes if (part := overlap(box, reach)) is not None]
        if not parts:
            return nothing
        whole = functools.reduce(hull, parts)
        mask = from_network(logits, origin, grid, whole, threshold)
        if len(parts) > 1:  # between them nobody looked
            looked = np.zeros_like(mask)
            for part in parts:
                looked[slices_of(part, origin_of(whole))] = 1
            mask &= looked
        return cut(mask, whole, run.volume.shape)


def _not_clicked(
    inside: NDArray[np.bool_], origin: Index, grid: NetworkGrid, clicks: Clicks, known: Prediction
) -> NDArray[np.bool_] | None:
    """Where components are that no positive click lies on; None if there are none.

    Where none lies on any, those are meant that the answer so far does not overlap; where there is
    no answer yet, none: everything is the network's best guess.
    """
    # As numbers: cc3d 4.1 fails on some truth values that lie in a single row.
    components, count = cc3d.connected_components(
        inside.view(np.uint8), connectivity=26, return_N=True
    )
    positions = [position_in(click, grid, origin) for click in clicks if click.positive]
    kept = {
        int(components[position])
        for position in positions
        if all(0 <= p < n for p, n in zip(position, inside.shape, strict=True))
    } - {0}
    if not kept and known.box is not None:
        before = np.empty(inside.shape, np.float32)
        mask_to_network(known.crop, known.box, grid, origin, before)
        kept = {int(n) for n in np.unique(components[before > 0])} - {0}
    elif not kept:
        return None
    if len(kept) == count:
        return None
    other = np.ones(count + 1, bool)
    other[[0, *kept]] = False
    apart: NDArray[np.bool_] = other[components]
    return apart


def _plus(a: Sequence[int], b: Sequence[int]) -> Index:
    z, y, x = (p + q for p, q in zip(a, b, strict=True))
    return z, y, x


def _extent(starts: list[Index], patch: Index) -> tuple[Index, Index]:
    """First voxel and shape of the block that holds all patches."""
    boxes = (box_at(start, patch) for start in starts)
    whole = functools.reduce(hull, boxes)
    return origin_of(whole), shape_of(whole)
