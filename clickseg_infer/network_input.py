"""One patch of a volume, the clicks and the previous mask become the network's input."""

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.click_maps import (
    centres_of,
    draw_disks,
    geodesic_proximity,
    intensity_difference,
)
from clickseg_infer.file_grid import Index
from clickseg_infer.model_spec import ModelSpec


def fill_click_channels(
    spec: ModelSpec,
    positive: Sequence[Index],
    negative: Sequence[Index],
    previous: NDArray[np.float32],
    out: NDArray[np.float32],
    drawn: tuple[Sequence[Index], Sequence[Index]] | None = None,
) -> None:
    """Fill every channel that is not CT; the CT channels must be there already.

    The cues are computed on the mean of the CT channels, which is finest where most windows are.

    Args:
        spec: names the channels.
        positive: clicks on the object, (z, y, x) in the patch's voxels; may lie outside it.
        negative: clicks beside it, likewise.
        previous: (z, y, x) float32, 0 or 1: the mask so far. Not modified.
        out: (C, z, y, x) float32; channels after the CT ones are overwritten.
        drawn: the positive and the negative clicks that `out` was filled with before, if it was;
            saves clearing it.
    """
    windows = len(spec.hu_windows)
    ct = out[0] if windows == 1 else functools.reduce(np.add, out[:windows]) / np.float32(windows)
    on, beside = centres_of(positive), centres_of(negative)
    old_on, old_beside = map(centres_of, drawn) if drawn else (None, None)
    for channel, target in zip(spec.channels[windows:], out[windows:], strict=True):
        match channel:
            case "positive":
                draw_disks(on, spec.click_radius, target, old_on)
            case "negative":
                draw_disks(beside, spec.click_radius, target, old_beside)
            case "previous":
                target[:] = previous
            case "geodesic_positive":
                geodesic_proximity(ct, on, target)
            case "geodesic_negative":
                geodesic_proximity(ct, beside, target)
            case "intensity_difference":
                intensity_difference(ct, on, target)
