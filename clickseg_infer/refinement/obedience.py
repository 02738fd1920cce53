"""The promise: every clicked voxel carries its click's label."""

import numpy as np

from clickseg_infer.boxes import Box, origin_of, union
from clickseg_infer.clicks import Click, Clicks
from clickseg_infer.distances import squared_mm, squared_mm_in
from clickseg_infer.prediction import Prediction, with_part
from clickseg_infer.volume import Spacing

FAR_MM = 20.0
"""Beyond this distance from every click nobody asked for a change."""


def carries(answer: Prediction, click: Click) -> bool:
    """Whether a click's voxel carries its label in an answer."""
    return answer.holds(click.zyx) == click.positive


def obeyed(
    answer: Prediction, clicks: Clicks, spacing_mm: Spacing, radius_mm: float
) -> tuple[Prediction, int]:
    """The answer in which every clicked voxel carries its label, and how many did not before.

    Each that did not brings a ball of its label along, of the voxels that are nearer to it than to
    any click of the other kind; so one correction never undoes another.

    Args:
        answer: to the clicks.
        clicks: no voxel clicked as both.
        spacing_mm: of the volume, (z, y, x).
        radius_mm: of the ball.
    """
    wrong = [click for click in clicks if not carries(answer, click)]
    for click in wrong:
        box = _around(click, answer.shape, spacing_mm, radius_mm)
        distance = squared_mm_in(box, click.zyx, spacing_mm)
        ball = distance <= radius_mm**2
        for other in clicks:
            if other.positive != click.positive:
                ball &= distance < squared_mm_in(box, other.zyx, spacing_mm)
        ball |= distance == 0
        part = answer.within(box)
        part[ball] = click.positive
        answer = with_part(answer, box, part)
    return answer, len(wrong)


def far_voxels(before: Prediction, after: Prediction, clicks: Clicks, spacing_mm: Spacing) -> int:
    """How many voxels differ farther than FAR_MM from every click."""
    whole = union(before.box, after.box)
    if whole is None:
        return 0
    changed = np.argwhere(before.within(whole) != after.within(whole)) + origin_of(whole)
    near = np.zeros(len(changed), bool)
    for click in clicks:
        near |= squared_mm(changed, click.zyx, spacing_mm) <= FAR_MM**2
    return int((~near).sum())


def _around(click: Click, shape: tuple[int, ...], spacing_mm: Spacing, radius_mm: float) -> Box:
    z, y, x = (
        (max(0, p - int(radius_mm / own)), min(n, p + int(radius_mm / own) + 1))
        for p, own, n in zip(click.zyx, spacing_mm, shape, strict=True)
    )
    return z, y, x
