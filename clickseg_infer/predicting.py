"""Clicks to a mask: the pure heart of clickseg.

The answer to n clicks is a function of the answer to the first n - 1 and of all n clicks. A session
that keeps its latest answer and a script that starts from nothing therefore get the same mask,
bit for bit.

One look is one patch of the network, and its neighbours as far as the object reaches them. The
first click is answered by a wide look, which finds out how large the object is, and a fresh look
at the spacing at which the object just fits; later clicks look once, at that spacing. A positive
click only adds to the mask and a negative one only takes away.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from clickseg_infer.clicks import Click, Clicks, check_clicks
from clickseg_infer.errors import ClickError
from clickseg_infer.file_grid import Index
from clickseg_infer.look import Run, look, sweep
from clickseg_infer.model import Model
from clickseg_infer.prediction import (
    Prediction,
    bounds_of,
    common,
    hull,
    joined,
    origin_of,
    slices_of,
    union,
)
from clickseg_infer.resample import Box
from clickseg_infer.volume import Spacing, Volume

_MARGIN = 1.3  # a patch is this much longer than the object it is fitted to


def predict(
    model: Model,
    volume: Volume,
    clicks: Sequence[Click],
    previous: Prediction | None = None,
    *,
    whole_volume: bool = False,
) -> Prediction:
    """Segment the object that was clicked.

    Pure and deterministic: nothing is remembered, and the same arguments give the same bits.

    Args:
        model: the network and its spec.
        volume: the scan. Not modified.
        clicks: all clicks so far, in order, at least one of them positive.
        previous: the answer to the first clicks of this list, to save computing it again.
        whole_volume: sweep the whole volume once after the last click, instead of only the
            patches that the object reaches.

    Raises:
        ClickError: no positive click, one outside the volume, contradictory ones, or a previous
            answer that this one does not continue.
        VolumeError: the volume is too large to be swept.
        EngineError: the engine failed.
    """
    clicks = tuple(clicks)
    check_clicks(clicks, volume)
    answer = previous if previous is not None else Prediction((), volume.shape)
    known = len(answer.clicks)
    if answer.clicks != clicks[:known] or answer.shape != volume.shape or answer.swept:
        raise ClickError("the previous answer is to other clicks, of another volume, or was swept")
    run = Run(model, volume)
    before = answer
    for count in range(known + 1, len(clicks) + 1):
        before = answer
        answer = _answer(run, clicks[:count], answer)
    if whole_volume:
        answer = sweep(run, clicks, answer)
    changed = _changed(before, answer)
    return replace(
        answer, changed=changed, patches=run.patches, ms=run.watch.ms, swept=whole_volume
    )


def _answer(run: Run, clicks: Clicks, known: Prediction) -> Prediction:
    """The answer to one more click."""
    if known.box is None and not clicks[-1].positive:
        return replace(known, clicks=clicks)  # there is nothing to take away
    latest = clicks[-1].zyx
    if known.box is None:
        return replace(_first_answer(run, clicks, known), clicks=clicks)
    found = _fitting_look(run, clicks, known, hull(known.box, _voxel_box(latest)), latest)
    combine = joined if clicks[-1].positive else common
    return replace(combine(known, found), clicks=clicks)


def _first_answer(run: Run, clicks: Clicks, known: Prediction) -> Prediction:
    """Look wide for the object's size, then closer without regard to what was seen.

    The wide look's mask is rough, and the network would take it for an answer to be kept.
    """
    wide, latest = run.model.spec.overview_spacing_mm, clicks[-1].zyx
    rough = look(run, clicks, known, wide, latest)
    seen = union(rough.box, _voxel_box(latest))
    assert seen is not None
    if _fitting_spacing(run, seen) == wide:
        return rough
    found = _fitting_look(run, clicks, known, seen, latest)
    return rough if found.box is None else found


def _fitting_look(
    run: Run, clicks: Clicks, known: Prediction, seen: Box, latest: Index
) -> Prediction:
    spacing = _fitting_spacing(run, seen)
    return look(run, clicks, known, spacing, _centre(run, seen, spacing, latest))


def _fitting_spacing(run: Run, box: Box) -> Spacing:
    """The finest spacing of the model's at which one patch holds the box with a margin."""
    spec = run.model.spec
    zooms = [
        (high - low) * own * _MARGIN / (size * close)
        for (low, high), own, size, close in zip(
            box, run.volume.spacing_mm, spec.patch_size, spec.spacing_mm, strict=True
        )
    ]
    z, y, x = (
        min(max(1.0, *zooms) * close, wide)
        for close, wide in zip(spec.spacing_mm, spec.overview_spacing_mm, strict=True)
    )
    return z, y, x


def _centre(run: Run, box: Box, spacing_mm: Spacing, click: Index) -> list[float]:
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


def _changed(before: Prediction, after: Prediction) -> Box | None:
    """The smallest box that holds every voxel in which two answers differ."""
    whole = union(before.box, after.box)
    if whole is None:
        return None
    begin = origin_of(whole)
    difference = np.zeros([high - low for low, high in whole], np.uint8)
    for answer in (before, after):
        if answer.box is not None:
            difference[slices_of(answer.box, begin)] ^= answer.crop
    return bounds_of(difference, begin)


def _voxel_box(zyx: Index) -> Box:
    z, y, x = ((p, p + 1) for p in zyx)
    return z, y, x
