"""Looking: run patches of the network around a place, or over the whole volume, and merge.

A look takes the answer so far and gives the next one. What it did not look at stays as it was.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cc3d
import numpy as np
from numpy.typing import NDArray

from clickseg_infer import stitch
from clickseg_infer.clicks import Click, Clicks
from clickseg_infer.errors import VolumeError
from clickseg_infer.file_grid import Index
from clickseg_infer.model import Model
from clickseg_infer.network_input import fill_click_channels
from clickseg_infer.patches import cover, focus, grow
from clickseg_infer.prediction import Prediction, bounds_of, hull, origin_of, slices_of
from clickseg_infer.resample import (
    Box,
    NetworkGrid,
    from_network,
    mask_to_network,
    network_grid,
    to_network,
)
from clickseg_infer.stopwatch import Stopwatch
from clickseg_infer.volume import Spacing, Volume

MAX_PATCHES = 12
"""A look that grows beyond this many patches stops growing."""

MAX_SWEEP_VOXELS = 2**30
"""A sweep of more voxels of the network's grid is refused; it would need 8 bytes for each."""

_GROW_OVERLAP = 0.25


@dataclass
class Run:
    """One call of `predict`: what it runs on, and what it has spent."""

    model: Model
    volume: Volume
    watch: Stopwatch = field(default_factory=Stopwatch)
    patches: int = 0


def look(
    run: Run, clicks: Clicks, known: Prediction, spacing_mm: Spacing, centre: Sequence[float]
) -> Prediction:
    """Run the patch around `centre`, and neighbours while the object touches a patch's face."""
    spec, volume = run.model.spec, run.volume
    grid = network_grid(volume.shape, volume.spacing_mm, spacing_mm)
    waiting = [focus(grid.of_volume(centre), grid.shape, spec.patch_size)]
    done: dict[Index, NDArray[np.float32]] = {}
    while waiting and len(done) < MAX_PATCHES:
        start = waiting.pop(0)
        done[start] = _patch_logits(run, grid, start, clicks, known, done)
        inside = done[start] > spec.threshold_logit
        for neighbour in grow(start, inside, grid.shape, spec.patch_size, _GROW_OVERLAP):
            if neighbour not in done and neighbour not in waiting:
                waiting.append(neighbour)
    with run.watch.stage("stitch"):
        origin, shape = _extent(list(done), spec.patch_size)
        logits = stitch.blend(list(done.values()), list(done), shape, origin)
    with run.watch.stage("components"):
        _keep_clicked(logits, origin, grid, clicks, known, spec.threshold_logit)
    with run.watch.stage("back"):
        covered = [grid.volume_box(start, spec.patch_size) for start in done]
        return _merge(known, logits, origin, grid, covered, spec.threshold_logit)


def _patch_logits(
    run: Run,
    grid: NetworkGrid,
    start: Index,
    clicks: Clicks,
    known: Prediction,
    done: dict[Index, NDArray[np.float32]],
) -> NDArray[np.float32]:
    """Logits (z, y, x) of one patch; what overlapping patches found is its previous mask there."""
    spec, size = run.model.spec, run.model.spec.patch_size
    batch = np.empty((1, len(spec.channels), *size), np.float32)
    windows = list(spec.hu_windows.values())
    with run.watch.stage("resample"):
        to_network(run.volume.voxels, grid, start, windows, batch[0, : len(windows)])
        before = np.zeros(size, np.float32)
        if known.box is not None:
            mask_to_network(known.crop, known.box, grid, start, before)
        for other, found in done.items():
            ours, theirs = _overlap(start, other, size)
            before[ours] = found[theirs] > spec.threshold_logit
    with run.watch.stage("maps"):
        on = [_position(c, grid, start) for c in clicks if c.positive]
        beside = [_position(c, grid, start) for c in clicks if not c.positive]
        fill_click_channels(spec, on, beside, before, batch[0])
    with run.watch.stage("network"):
        logits: NDArray[np.float32] = run.model.engine.run(batch)[0, 0]
    run.patches += 1
    return logits


def sweep(run: Run, clicks: Clicks, known: Prediction) -> Prediction:
    """The whole volume by sliding window at the close spacing, with the answer so far fed in."""
    spec, volume = run.model.spec, run.volume
    grid = network_grid(volume.shape, volume.spacing_mm, spec.spacing_mm)
    if math.prod(grid.shape) > MAX_SWEEP_VOXELS:
        raise VolumeError(f"too large to be swept: {grid.shape} voxels at {spec.spacing_mm} mm")
    logits = sweep_logits(run, grid, clicks, known)
    with run.watch.stage("components"):
        _keep_clicked(logits, (0, 0, 0), grid, clicks, known, spec.threshold_logit)
    with run.watch.stage("back"):
        z, y, x = ((0, n) for n in volume.shape)
        return _merge(known, logits, (0, 0, 0), grid, [(z, y, x)], spec.threshold_logit)


def sweep_logits(
    run: Run, grid: NetworkGrid, clicks: Clicks, known: Prediction
) -> NDArray[np.float32]:
    """The sliding window's logits (z, y, x) float32 on the whole grid.

    Equal to MONAI's `sliding_window_inference` in mode "gaussian" with the same overlap, except
    that a click's disk is drawn beyond the volume's border too, where MONAI pads with zeros.
    """
    spec = run.model.spec
    starts = cover(grid.shape, spec.patch_size, spec.overlap)
    logits = (_patch_logits(run, grid, start, clicks, known, {}) for start in starts)
    return stitch.blend(logits, starts, grid.shape, (0, 0, 0))


def _keep_clicked(
    logits: NDArray[np.float32],
    origin: Index,
    grid: NetworkGrid,
    clicks: Clicks,
    known: Prediction,
    threshold: float,
) -> None:
    """Remove, in place, every component that no positive click lies on.

    Where none lies on any, what the answer so far overlaps is kept; where there is no answer yet,
    everything is, as the network's best guess.
    """
    components = cc3d.connected_components(logits > threshold, connectivity=26)
    positions = [_position(click, grid, origin) for click in clicks if click.positive]
    kept = {
        int(components[position])
        for position in positions
        if all(0 <= p < n for p, n in zip(position, logits.shape, strict=True))
    } - {0}
    if not kept and known.box is not None:
        before = np.empty(logits.shape, np.float32)
        mask_to_network(known.crop, known.box, grid, origin, before)
        kept = {int(n) for n in np.unique(components[before > 0])}
    elif not kept:
        return
    logits[(components > 0) & ~np.isin(components, list(kept))] = stitch.UNCOVERED


def _merge(
    known: Prediction,
    logits: NDArray[np.float32],
    origin: Index,
    grid: NetworkGrid,
    covered: list[Box],
    threshold: float,
) -> Prediction:
    """The answer so far, replaced within the boxes that were looked at."""
    looked = functools.reduce(hull, covered)
    whole = looked if known.box is None else hull(known.box, looked)
    mask = np.zeros([high - low for low, high in whole], np.uint8)
    begin = origin_of(whole)
    if known.box is not None:
        mask[slices_of(known.box, begin)] = known.crop
    fresh = from_network(logits, origin, grid, looked, threshold)
    for box in covered:
        mask[slices_of(box, begin)] = fresh[slices_of(box, origin_of(looked))]
    bounds = bounds_of(mask, begin)
    if bounds is None:
        return Prediction(known.clicks, known.shape)
    crop = np.ascontiguousarray(mask[slices_of(bounds, begin)])
    return Prediction(known.clicks, known.shape, bounds, crop)


def _position(click: Click, grid: NetworkGrid, origin: Index) -> Index:
    """A click's voxel (z, y, x) in a block of the network's grid that begins at `origin`."""
    z, y, x = (
        int(np.floor(p + 0.5)) - o for p, o in zip(grid.of_volume(click.zyx), origin, strict=True)
    )
    return z, y, x


def _extent(starts: list[Index], patch: Index) -> tuple[Index, Index]:
    """First voxel and shape of the block that holds all patches."""
    first = np.min(starts, axis=0)
    shape = np.max(starts, axis=0) + patch - first
    return (int(first[0]), int(first[1]), int(first[2])), (
        int(shape[0]),
        int(shape[1]),
        int(shape[2]),
    )


def _overlap(
    start: Index, other: Index, size: Index
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The slices in which two patches of one size overlap, in each one's voxels; maybe empty."""
    ours, theirs = [], []
    for a, b, n in zip(start, other, size, strict=True):
        low, high = max(a, b), max(max(a, b), min(a, b) + n)
        ours.append(slice(low - a, high - a))
        theirs.append(slice(low - b, high - b))
    return tuple(ours), tuple(theirs)
