"""How good a mask is."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def dice(truth: NDArray[Any], mask: NDArray[Any]) -> float:
    """Twice the overlap over the sum of both sizes; 1 if both are empty.

    Args:
        truth: nonzero on the object. Not modified.
        mask: the same shape, nonzero where the answer says so. Not modified.
    """
    a, b = truth.astype(bool), mask.astype(bool)
    total = int(a.sum()) + int(b.sum())
    return 1.0 if total == 0 else 2.0 * int(np.logical_and(a, b).sum()) / total


def clicks_to(dice_by_click: Sequence[float], target: float) -> int | None:
    """The number of clicks after which Dice first reached `target`; None if it never did."""
    for clicks, value in enumerate(dice_by_click, start=1):
        if value >= target:
            return clicks
    return None
