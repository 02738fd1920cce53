"""Running one patch of the network: its input, its logits, and another look where it disagrees."""

import hashlib
import math
import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.boxes import box_at, overlap, slices_of
from clickseg_infer.clicks import Click, Clicks
from clickseg_infer.file_grid import Index
from clickseg_infer.judging import Judge, bundled_judge
from clickseg_infer.model import Model
from clickseg_infer.network_input import fill_click_channels
from clickseg_infer.prediction import Prediction
from clickseg_infer.refinement.fbrs import Target, disobeyed, tune
from clickseg_infer.refinement.tuning import Tuning
from clickseg_infer.resample import NetworkGrid, mask_to_network, to_network
from clickseg_infer.stopwatch import Stopwatch
from clickseg_infer.volume import Volume
from clickseg_infer.workspace import Seen, Workspace


@dataclass
class Run:
    """One call of `predict`: what it runs on, what it may spend, and what it has spent.

    Attributes:
        judge: says what late clicks change near them.
        patches: that the network ran.
        final: False once a look was cut short.
        begin_with: what the network was tuned to last, before the answer to this click.
        tuned: for each patch of the answer to one click in which the network was tuned, in order:
            to what, and by how many evaluations.
    """

    model: Model
    volume: Volume
    workspace: Workspace = field(default_factory=Workspace)
    judge: Judge = bundled_judge
    watch: Stopwatch = field(default_factory=Stopwatch)
    patches: int = 0
    final: bool = True
    begin_with: Tuning | None = None
    tuned: list[tuple[Tuning, int]] = field(default_factory=list)
    _deadline: float = math.inf
    _least_patches: int = 0

    def begin(self, known: Prediction) -> None:
        """Begin the answer to one more click, after what is known."""
        self.workspace.begin()
        self.tuned, self.begin_with = [], known.tuning

    def stop_at(self, deadline: float) -> None:
        """Begin no more patches after `deadline`, of `time.perf_counter`, but run one at least."""
        self._deadline, self._least_patches = deadline, self.patches + 1

    def out_of_time(self) -> bool:
        """Whether to stop here; an answer that does is not final."""
        late = time.perf_counter() >= self._deadline and self.patches >= self._least_patches
        self.final = self.final and not late
        return late


@dataclass(frozen=True, eq=False)
class Hints:
    """What a patch's input has beside the CT.

    Attributes:
        on: clicks on the object, in the patch's voxels, that its input can depend on.
        beside: clicks beside it, likewise.
        before: (z, y, x) float32, 0 or 1: the previous mask.
        targets: the clicks in the patch, where the mask will be made; none where nothing refines.
    """

    on: tuple[Index, ...]
    beside: tuple[Index, ...]
    before: NDArray[np.float32]
    targets: tuple[Target, ...]


def hints_for(
    run: Run,
    grid: NetworkGrid,
    start: Index,
    clicks: Clicks,
    known: Prediction,
    done: dict[Index, NDArray[np.float32]],
) -> Hints:
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
        position = position_in(click, grid, start)
        if all(-reach <= p < n + reach for p, n in zip(position, spec.patch_size, strict=True)):
            near[click.positive].append(position)
    targets = () if run.model.refiner is None else _targets(clicks, grid, start, spec.patch_size)
    return Hints(tuple(near[True]), tuple(near[False]), before, targets)


def _targets(clicks: Clicks, grid: NetworkGrid, start: Index, patch: Index) -> tuple[Target, ...]:
    """The clicks in a patch, at their exact places."""
    targets = []
    for click in clicks:
        place = np.subtract(grid.of_volume(click.zyx), start)
        if all(-0.5 <= p < n - 0.5 for p, n in zip(place, patch, strict=True)):
            z, y, x = np.clip(place, 0, np.subtract(patch, 1)).tolist()
            targets.append(Target((z, y, x), click.positive))
    return tuple(targets)


def run_patch(
    run: Run,
    grid: NetworkGrid,
    start: Index,
    hints: Hints,
    *,
    structures: bool = False,
    in_full: bool = False,
) -> Seen:
    """Run one patch, and tune the network for it where it disagrees with a click there.

    With `structures`, and a model that knows some, it is asked for them too. A deadline ends the
    search for the tuning, unless it is wanted `in_full`.
    """
    spec, workspace = run.model.spec, run.workspace
    batch = workspace.batch((1, len(spec.channels), *spec.patch_size))
    windows = list(spec.hu_windows.values())
    with run.watch.stage("resample"):
        to_network(run.volume.voxels, grid, start, windows, batch[0, : len(windows)])
    with run.watch.stage("maps"):
        drawn, workspace.drawn = workspace.drawn, None
        fill_click_channels(spec, hints.on, hints.beside, hints.before, batch[0], drawn)
        workspace.drawn = hints.on, hints.beside
    run.patches += 1
    chances = None
    if structures and run.model.structures is not None:
        with run.watch.stage("network"):
            chances = run.model.structures.chances(batch[0, : len(windows)])
    refiner = run.model.refiner
    if refiner is None:
        with run.watch.stage("network"):
            logits: NDArray[np.float32] = run.model.engine.run(batch)[0, 0]
        return Seen(logits, logits, chances)
    with run.watch.stage("network"):
        tensors = run.model.engine.run_graph({"input": batch})
        logits = tensors.pop("logits")[0, 0]
    with run.watch.stage("refine"):
        if not disobeyed(logits, hints.targets, spec.threshold_logit):
            return Seen(logits, logits, chances)
        tuned = tune(
            refiner,
            tensors,
            hints.targets,
            spec.threshold_logit,
            run.begin_with,
            stop=lambda: not in_full and run.out_of_time(),
        )
        better = refiner.all_logits(tensors, tuned.tuning)
    cut_short = not run.final
    return Seen(better, logits, chances, tuned.tuning, tuned.evaluations, cut_short)


def run_patch_once(run: Run, grid: NetworkGrid, start: Index, hints: Hints) -> Seen:
    """As `run_patch`, with structures, but a patch whose input is as lately is not run again.

    Unless a deadline cut it short: then it is run in full, whatever the time.
    """
    with run.watch.stage("resample"):
        mask = hashlib.blake2b(np.packbits(hints.before > 0).tobytes(), digest_size=16).digest()
    given = (hints.on, hints.beside, mask, hints.targets)
    key = (grid.ratio, start, *given, run.begin_with)
    seen = run.workspace.recall(key)
    if seen is None or seen.cut_short:
        in_full = seen is not None
        seen = run_patch(run, grid, start, hints, structures=True, in_full=in_full)
        run.workspace.keep(key, seen)
    if seen.tuning is not None:
        run.tuned.append((seen.tuning, seen.evaluations))
    return seen


def position_in(click: Click, grid: NetworkGrid, origin: Index) -> Index:
    """A click's voxel (z, y, x) in a block of the network's grid that begins at `origin`."""
    z, y, x = (
        int(np.floor(p + 0.5)) - o for p, o in zip(grid.of_volume(click.zyx), origin, strict=True)
    )
    return z, y, x
