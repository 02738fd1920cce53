"""Normalised surface Dice: how much of two surfaces lies within a tolerance of the other."""

import warnings
from typing import Any

import numpy as np
import torch
from monai.metrics import compute_surface_dice
from numpy.typing import NDArray

from clickseg_infer.boxes import bounds_of, slices_of
from clickseg_infer.volume import Spacing

TOLERANCE_MM = 2.0


def surface_dice(
    truth: NDArray[Any],
    mask: NDArray[Any],
    spacing_mm: Spacing,
    tolerance_mm: float = TOLERANCE_MM,
) -> float:
    """Surface Dice of two masks (Nikolov et al. 2021, https://doi.org/10.2196/26151).

    Args:
        truth: (z, y, x), nonzero on the object. Not modified.
        mask: the same shape, nonzero where the answer says so. Not modified.
        spacing_mm: of the voxels (z, y, x).
        tolerance_mm: how far apart surfaces may be and still agree.

    Returns:
        0 to 1; 1 if both are empty, 0 if only one is.
    """
    a, b = truth.astype(bool), mask.astype(bool)
    box = bounds_of(a | b)
    if box is None:
        return 1.0
    if not (a.any() and b.any()):
        return 0.0
    first, second = (
        torch.from_numpy(np.pad(part[slices_of(box)], 1).astype(np.float32)[None, None])
        for part in (a, b)
    )
    with warnings.catch_warnings():  # MONAI warns of its own arguments
        warnings.simplefilter("ignore", FutureWarning)
        found = compute_surface_dice(
            second,
            first,
            class_thresholds=[tolerance_mm],
            include_background=True,
            spacing=[float(s) for s in spacing_mm],
            use_subvoxels=True,
        )
    return float(found[0, 0])
