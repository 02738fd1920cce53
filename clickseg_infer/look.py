"""Looking: run patches of the network around a place, or over the whole volume.

A look says what it found and where it looked; what becomes of it is for `predicting` to say.
"""

import functools
import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

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
from clickseg_infer.clicks import Click, Clicks
from clickseg_infer.errors import VolumeError
from clickseg_infer.file_grid import Index
from clickseg_infer.model import Model
from clickseg_infer.network_input import fill_click_channels
from clickseg_infer.patches import cover, focus, grow
from clickseg_infer.prediction import Prediction, cut
from clickseg_infer.resample import (
    NetworkGrid,
    from_network,
    mask_to_network,
    network_grid,
    to_network,
)
from clickseg_infer.stopwatch import Stopwatch
from clickseg_infer.volume import Spacing, Volume
from clickseg_infer.workspace import Workspace

MAX_PATCHES = 12
"""A look that grows beyond this many patches stops growing."""

MAX_SWEEP_VOXELS = 2**30
"""A sweep of more voxels of the network's grid is refused; it would need 4 bytes for each."""

_GROW_OVERLAP = 0.25


@dataclass
class Run:
    """One call of `predict`: what it runs on, what it may spend, and what it has spent.

    Attributes:
        patches: that the network ran.
        final: False once a look was cut short.
    """

    model: Model
    volume: Volume
    workspace: Workspace = field(default_factory=Workspace)
    watch: Stopwatch = field(default_factory=Stopwatch)
    patches: int = 0
    final: bool = True
    _deadline: float = math.inf
    _least_patches: int = 0

    def stop_at(self, deadline: float) -> None:
        """Begin no more patches after `deadline`, of `time.perf_counter`, but run one at least."""
        self._deadline, self._least_patches = deadline, self.patches + 1

    def out_of_time(self) -> bool:
        """Whether to stop here; an answer that does is not final."""
        late = time.perf_counter() >= self._deadline and self.patches >= self._least_patches
        self.final = self.final and not late
        return late


@dataclass(frozen=True, eq=False)
class Look:
    """What was found, as an answer to no clicks, and the boxes of the volume that were looked at.

    Nothing is found outside these boxes.
    """

    found: Prediction
    boxes: list[Box]


def look(
    run: Run,
    clicks: Clicks,
    known: Prediction,
    spacing_mm: Spacing,
    centre: Sequence[float],
    wanted: Box | None = None,
    follow: bool = True,
) -> Look:
    """Run the patch around `centre`, and neighbours while the object touches a patch's face.

    The neighbour that more of the object touches is run first; none is without `follow`. What lies
    outside the box `wanted` need not be found.
    """
    spec, volume = run.model.spec, run.volume
    grid = network_grid(volume.shape, volume.spacing_mm, spacing_mm)
    waiting = {focus(grid.of_volume(centre), grid.shape, spec.patch_size): 0}
    done: dict[Index, NDArray[np.float32]] = {}
    while waiting and len(done) < MAX_PATCHES and not (done and run.out_of_time()):
        start = max(waiting, key=lambda place: waiting[place])
        del waiting[start]
        hints = _hints(run, grid, start, clicks, known, done)
        done[start] = _patch_logits_once(run, grid, start, hints)
        if not follow:
            break
        inside = done[start] > spec.threshold_logit
        for neighbour, touched in grow(start, inside, grid.shape, spec.patch_size, _GROW_OVERLAP):
            if neighbour not in done:
                waiting[neighbour] = max(touched, waiting.get(neighbour, 0))
    with run.watch.stage("stitch"):
        origin, shape = _extent(list(done), spec.patch_size)
        logits = stitch.blend(list(done.values()), list(done), shape, origin)
    boxes = [grid.volume_box(start, spec.patch_size) for start in done]
    parts = boxes if wanted is None else [b for box in boxes if (b := overlap(box, wanted))]
    return Look(_found(run, logits, origin, grid, parts, clicks, known), boxes)


def sweep(run: Run, clicks: Clicks, known: Prediction) -> Prediction:
    """The whole volume by sliding window at the close spacing, with the answer so far fed in."""
    spec, volume = run.model.spec, run.volume
    grid = network_grid(volume.shape, volume.spacing_mm, spec.spacing_mm)
    if math.prod(grid.shape) > MAX_SWEEP_VOXELS:
        raise VolumeError(f"too large to be swept: {grid.shape} voxels at {spec.spacing_mm} mm")
    logits = sweep_logits(run, grid, clicks, known)
    z, y, x = ((0, n) for n in volume.shape)
    return _found(run, logits, (0, 0, 0), grid, [(z, y, x)], clicks, known)


def sweep_logits(
    run: Run, grid: NetworkGrid, clicks: Clicks, known: Prediction
) -> NDArray[np.float32]:
    """The sliding window's logits (z, y, x) float32 on the whole grid.

    Equal to MONAI's `sliding_window_inference` in mode "gaussian" with the same overlap, except
    that a click's disk is drawn beyond the volume's border too, where MONAI pads with zeros.
    """
    spec = run.model.spec
    starts = cover(grid.shape, spec.patch_size, spec.overlap)
    hints = (_hints(run, grid, start, clicks, known, {}) for start in starts)
    logits = (_patch_logits(run, grid, *pair) for pair in zip(starts, hints, strict=True))
    return stitch.blend(logits, starts, grid.shape, (0, 0, 0))


@dataclass(frozen=True, eq=False)
class _Hints:
    """What a patch's input has beside the CT.

    Attributes:
        on: clicks on the object, in the patch's voxels, that its input can depend on.
        beside: clicks beside it, likewise.
        before: (z, y, x) float32, 0 or 1: the previous mask.
    """

    on: tuple[Index, ...]
    beside: tuple[Index, ...]
    before: NDArray[np.float32]


def _hints(
    run: Run,
    grid: NetworkGrid,
    start: Index,
    clicks: Clicks,
    known: Prediction,
    done: dict[Index, NDArray[np.float32]],
) -> _Hints:
    """Clicks, and as the previous mask what is known and what overlapping patches have found."""
    spec = run.model.spec
    with run.watch.stage("resample"):
        before = np.zeros(spec.patch_size, np.float32)
        if known.box is not None:
            mask_to_network(known.crop, known.box, grid, start, before)
        for other, found in done.items():
            shared = overlap(box_at(start, spec.patch_size), box_at(other, spec.patch_size))
            if shared is not None:
                theirs = found[slices_of(shared, other)]
                before[slices_of(shared, start)] = theirs > spec.threshold_logit
    near: dict[bool, list[Index]] = {True: [], False: []}
    reach = spec.click_radius
    for click in clicks:
        position = _position(click, grid, start)
        if all(-reach <= p < n + reach for p, n in zip(position, spec.patch_size, strict=True)):
            near[click.positive].append(position)
    return _Hints(tuple(near[True]), tuple(near[False]), before)


def _patch_logits(run: Run, grid: NetworkGrid, start: Index, hints: _Hints) -> NDArray[np.float32]:
    """Run one patch: logits (z, y, x)."""
    spec, workspace = run.model.spec, run.workspace
    batch = workspace.batch((1, len(spec.channels), *spec.patch_size))
    windows = list(spec.hu_windows.values())
    with run.watch.stage("resample"):
        to_network(run.volume.voxels, grid, start, windows, batch[0, : len(windows)])
    with run.watch.stage("maps"):
        drawn, workspace.drawn = workspace.drawn, None
        fill_click_channels(spec, hints.on, hints.beside, hints.before, batch[0], drawn)
        workspace.drawn = hints.on, hints.beside
    with run.watch.stage("network"):
        logits: NDArray[np.float32] = run.model.engine.run(batch)[0, 0]
    run.patches += 1
    return logits


def _patch_logits_once(
    run: Run, grid: NetworkGrid, start: Index, hints: _Hints
) -> NDArray[np.float32]:
    """As `_patch_logits`, but a patch whose input is as it was lately is not run again."""
    with run.watch.stage("resample"):
        mask = hashlib.blake2b(np.packbits(hints.before > 0).tobytes(), digest_size=16).digest()
    key = (grid.ratio, start, hints.on, hints.beside, mask)
    logits = run.workspace.recall(key)
    if logits is None:
        logits = _patch_logits(run, grid, start, hints)
        run.workspace.keep(key, logits)
    return logits


def _found(
    run: Run,
    logits: NDArray[np.float32],
    origin: Index,
    grid: NetworkGrid,
    boxes: list[Box],
    clicks: Clicks,
    known: Prediction,
) -> Prediction:
    """What was clicked of the object in `logits`, in the volume's voxels within `boxes`."""
    threshold, nothing = run.model.spec.threshold_logit, Prediction((), run.volume.shape)
    with run.watch.stage("components"):
        inside = logits > threshold
        extent = bounds_of(inside)
        if extent is None:
            return nothing
        inside = np.ascontiguousarray(inside[slices_of(extent)])
        others = _not_clicked(inside, _plus(origin, origin_of(extent)), grid, clicks, known)
        if others is not None:
            logits = logits if logits.flags.writeable else logits.copy()
            logits[slices_of(extent)][others] = stitch.UNCOVERED
            extent = bounds_of(inside & ~others, origin_of(extent))
            if extent is None:
                return nothing
    with run.watch.stage("back"):
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
    components, count = cc3d.connected_components(
        inside, connectivity=26, return_N=True, binary_image=True
    )
    positions = [_position(click, grid, origin) for click in clicks if click.positive]
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


def _position(click: Click, grid: NetworkGrid, origin: Index) -> Index:
    """A click's voxel (z, y, x) in a block of the network's grid that begins at `origin`."""
    z, y, x = (
        int(np.floor(p + 0.5)) - o for p, o in zip(grid.of_volume(click.zyx), origin, strict=True)
    )
    return z, y, x


def _extent(starts: list[Index], patch: Index) -> tuple[Index, Index]:
    """First voxel and shape of the block that holds all patches."""
    boxes = (box_at(start, patch) for start in starts)
    whole = functools.reduce(hull, boxes)
    return origin_of(whole), shape_of(whole)
