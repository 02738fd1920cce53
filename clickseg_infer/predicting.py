"""Clicks to a mask: the pure heart of clickseg.

The answer to n clicks is a function of the answer to the first n - 1 and of all n clicks. A session
that keeps its latest answer and a script that starts from nothing therefore get the same mask,
bit for bit.

One look is one patch of the network, and its neighbours as far as the object reaches them. The
first click is answered by a wide look, which finds out how large the object is, and two fresh looks
at about the spacing at which the object fits with room to spare, of which the surer counts. The
next clicks look once, at the spacing at which it just fits, and later ones at their own place from
as close as the model can. All ask the model which structure of the body is meant, if it knows any.
A positive click only adds to the mask and a negative one only takes away: far from the mask's
border or the click only what the network is sure of, and not too far from the click where clicks of
the other kind are nearer. What a late click changes close by is judged apart (`late_clicks`).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from clickseg_infer.boxes import Box, box_at, hull, union
from clickseg_infer.clicks import Click, Clicks, check_clicks, check_places
from clickseg_infer.confidence import expected_dice
from clickseg_infer.distances import take_back_beyond
from clickseg_infer.errors import ClickError
from clickseg_infer.file_grid import Index
from clickseg_infer.judging import Judge, bundled_judge
from clickseg_infer.late_clicks import judged
from clickseg_infer.look import Look, look, sweep
from clickseg_infer.model import Model
from clickseg_infer.patch_run import Run
from clickseg_infer.prediction import Prediction, difference, joined, reduced, with_part
from clickseg_infer.refinement.obedience import far_voxels, obeyed
from clickseg_infer.refinement.tuning import Refinement
from clickseg_infer.volume import Spacing, Volume
from clickseg_infer.workspace import Workspace

_LATE = 4  # from this click on, what is left to correct is near the click
_MOST_CHANGED = 0.5  # of the mask: more than this a click changes only in its reach
_REACH_ON, _REACH_OFF, _REACH_LATE = 1.0, 2.0, 0.6  # of positive, negative, late positive clicks
_CLOSER = 1.0, 0.8  # of the fitting spacing: the first click is looked at from these
_MARGIN, _MARGIN_ROUGH = 1.05, 1.3  # a patch is so much longer than an object; than a rough one


def predict(
    model: Model,
    volume: Volume,
    clicks: Sequence[Click],
    previous: Prediction | None = None,
    *,
    budget_ms: float | None = None,
    whole_volume: bool = False,
    workspace: Workspace | None = None,
    on_the_way: Callable[[Prediction], None] = lambda _: None,
    judge: Judge = bundled_judge,
) -> Prediction:
    """Segment the object that was clicked.

    Pure and deterministic: nothing is remembered but in the workspace, which changes no answer, and
    the same arguments give the same bits. Only a budget lets the clock decide; an answer that it
    cut short says so, and no answer continues such a one.

    Args:
        model: the network and its spec.
        volume: the scan. Not modified.
        clicks: all clicks so far, in order, at least one of them positive.
        previous: the answer to the first clicks of this list, to save computing it again; or, from
            `from_mask`, a mask to begin with, and no click needs to be positive.
        budget_ms: once so many milliseconds have passed, the latest click's answer is the best so
            far. At least one patch is run, and earlier clicks are answered in full before that.
        whole_volume: sweep the whole volume once after the last click, instead of only the
            patches that the object reaches.
        workspace: of earlier answers on this volume, to save computing parts of them again.
        on_the_way: called with the answer to each click before the last.
        judge: says what late clicks change near them.

    Raises:
        ClickError: no positive click, one outside the volume, contradictory ones, a budget that
            is not positive, or a previous answer that this one does not continue.
        VolumeError: the volume is too large to be swept.
        EngineError: the engine failed.
    """
    clicks, began = tuple(clicks), time.perf_counter()
    check_budget(budget_ms)
    answer = Prediction((), volume.shape) if previous is None else previous
    nothing = answer.box is None and not answer.clicks
    (check_clicks if nothing else check_places)(clicks, volume)
    known = len(answer.clicks)
    continued = answer.clicks == clicks[:known] and answer.shape == volume.shape
    if not continued or answer.swept or not answer.final:
        raise ClickError(
            "the previous answer is to other clicks, of another volume, swept, or not final"
        )
    run = Run(model, volume, workspace or Workspace(), judge)
    for count in range(known + 1, len(clicks) + 1):
        if budget_ms is not None and count == len(clicks):
            run.stop_at(began + budget_ms / 1e3)
        run.begin(answer)
        answer = _answer(run, clicks[:count], answer)
        if count < len(clicks):
            on_the_way(answer)
    if run.final:
        run.workspace.trim()
    if whole_volume:
        run.begin(answer)
        answer = replace(sweep(run, clicks, answer), clicks=clicks, swept=True, meant=answer.meant)
        if model.refiner is not None:
            answer = _obeyed(run, clicks, answer, answer)
    return replace(answer, patches=run.patches, ms=run.watch.ms, final=run.final)


def check_budget(budget_ms: float | None) -> None:
    """Raise ClickError unless a budget is None or positive milliseconds."""
    if budget_ms is not None and not budget_ms > 0:
        raise ClickError(f"a budget must be positive milliseconds, not {budget_ms}")


def _answer(run: Run, clicks: Clicks, known: Prediction) -> Prediction:
    """The answer to one more click."""
    known = replace(known, clicks=clicks)
    if known.box is not None:
        seen = _fitting_look(run, clicks, known, hull(known.box, box_at(clicks[-1].zyx)))
    elif clicks[-1].positive:
        seen = _first_look(run, clicks, known)
    else:  # with nothing there, a negative click has nothing to take away
        return replace(known, refinement=None if run.model.refiner is None else Refinement())
    known = replace(known, meant=seen.meant)
    with run.watch.stage("back"):
        answer = _answered(run, clicks, known, seen, seen.found)
    if run.model.refiner is None:
        return answer
    with run.watch.stage("refine"):
        untuned = seen.plain is seen.found
        plain = answer if untuned else _answered(run, clicks, known, seen, seen.plain)
        return _obeyed(run, clicks, answer, plain)


def _answered(
    run: Run, clicks: Clicks, known: Prediction, seen: Look, found: Prediction
) -> Prediction:
    """The answer by what was found, and near a late click by its judge."""
    answer = _changed(run, clicks, known, found, seen.boxes)
    if len(clicks) < _LATE or known.box is None:
        return answer
    return judged(run, clicks, known, answer, seen)


def _changed(
    run: Run, clicks: Clicks, known: Prediction, found: Prediction, looked: list[Box]
) -> Prediction:
    """What is known, and what the latest click changes of it by what was found for it."""
    on = clicks[-1].positive
    changed = joined(known, found) if on else reduced(known, found, looked)
    if known.box is None:
        return changed
    reach = _reach(clicks, known, changed)
    if reach is None:
        return changed
    box = difference(known, changed)
    others = [click.zyx for click in clicks if click.positive != on]
    if box is None or not others:
        return changed
    part, spacing = changed.within(box), run.volume.spacing_mm
    take_back_beyond(part, known.within(box), box, spacing, clicks[-1].zyx, others, reach)
    return with_part(changed, box, part)


def _reach(clicks: Clicks, before: Prediction, after: Prediction) -> float | None:
    """How far from a click it may change the mask; None for anywhere.

    As a share of a voxel's distance to the nearest click of the other kind.
    """
    on = clicks[-1].positive
    if on and len(clicks) >= _LATE:
        return _REACH_LATE
    if abs(after.voxels - before.voxels) <= _MOST_CHANGED * before.voxels:
        return None
    return _REACH_ON if on else _REACH_OFF


def _obeyed(run: Run, clicks: Clicks, answer: Prediction, plain: Prediction) -> Prediction:
    """The answer with every clicked voxel as its click says, and a word on how it came to that.

    `plain` is what the answer would be if the network had not been tuned.
    """
    spec, volume = run.model.spec, run.volume
    radius_mm = spec.click_radius * max(spec.spacing_mm)
    answer, corrected = obeyed(answer, clicks, volume.spacing_mm, radius_mm)
    evaluations = sum(evaluations for _, evaluations in run.tuned)
    far = far_voxels(plain, answer, clicks, volume.spacing_mm) if run.tuned else 0
    done = Refinement(len(run.tuned), evaluations, corrected, far)
    tuning = run.tuned[-1][0] if run.tuned else answer.tuning
    return replace(answer, clicks=clicks, tuning=tuning, refinement=done)


def _first_look(run: Run, clicks: Clicks, known: Prediction) -> Look:
    """Look wide for the object's size, then closer without regard to what was seen.

    The wide look's mask is rough, and the network would take it for an answer to be kept. Of the
    closer looks, the one counts of which the network is surest.
    """
    wide, latest = run.model.spec.overview_spacing_mm, clicks[-1].zyx
    rough = look(run, clicks, known, wide, latest)
    seen = union(rough.found.box, box_at(latest))
    assert seen is not None
    fitting = fitting_spacing(run, seen, _MARGIN_ROUGH)
    best, surest = rough, 0.0
    for share in _CLOSER if fitting != wide else ():
        if run.out_of_time():
            break
        z, y, x = (share * along for along in fitting)
        closer = look(run, clicks, known, (z, y, x), fitting_centre(run, seen, (z, y, x), latest))
        sure = expected_dice(closer.logits, run.model.spec.threshold_logit)
        if sure > surest and closer.found.box is not None:
            best, surest = closer, sure
    return best


def _fitting_look(run: Run, clicks: Clicks, known: Prediction, seen: Box) -> Look:
    """Look at the spacing at which what was seen just fits; late ones look close."""
    late, latest = len(clicks) >= _LATE, clicks[-1]
    spacing = run.model.spec.spacing_mm if late else fitting_spacing(run, seen)
    centre = fitting_centre(run, seen, spacing, latest.zyx)
    wanted = None if latest.positive else known.box
    return look(run, clicks, known, spacing, centre, wanted, late=late)


def fitting_spacing(run: Run, box: Box, margin: float = _MARGIN) -> Spacing:
    """The finest spacing of the model's at which one patch is `margin` times as long as the box."""
    spec = run.model.spec
    zooms = [
        (high - low) * own * margin / (size * close)
        for (low, high), own, size, close in zip(
            box, run.volume.spacing_mm, spec.patch_size, spec.spacing_mm, strict=True
        )
    ]
    z, y, x = (
        min(max(1.0, *zooms) * close, wide)
        for close, wide in zip(spec.spacing_mm, spec.overview_spacing_mm, strict=True)
    )
    return z, y, x


def fitting_centre(run: Run, box: Box, spacing_mm: Spacing, click: Index) -> list[float]:
    """The middle of the box; along an axis that is too long for a patch, the click."""
    return [
        (low + high - 1) / 2 if (high - low) * own <= size * spacing else float(position)
        for (low, high), own, size, spacing, position in zip(
            box,
            run.volume.spacing_mm,
            run.model.spec.patch_size,
            spacing_mm,
            click,
            strict=True,
        )
    ]
