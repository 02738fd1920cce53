"""f-BRS: the scale and the bias with which the network agrees with the clicks.

After Sofiiuk et al. 2020 (https://arxiv.org/abs/2001.10331): L-BFGS-B lowers the mean of (1 - p)^2
at positive clicks, that of p^2 at negative ones, and the squared change of scale and bias. Logits
are needed at the clicks only, between voxels as the mask is made there.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.file_grid import Index
from clickseg_infer.refinement.refiner import Refiner, Windows
from clickseg_infer.refinement.tuning import Tuning
from clickseg_infer.refinement.windows import WINDOW

Floats = NDArray[np.float32]

MOST_EVALUATIONS = 3
"""Of the loss and its gradient, for one patch."""

_STAY = 1e-4  # weight of the squared change of scale and bias
_SURE = 0.1  # a logit is this far on its side of the threshold before the search ends
_OWN = 0.9  # what a clicked voxel weighs, of its whole neighbourhood
_AROUND = np.array(list(itertools.product((-1, 0, 1), repeat=3)), np.float64)
_CENTRE = len(_AROUND) // 2


@dataclass(frozen=True)
class Target:
    """A click where the network has to agree with it.

    Attributes:
        position: (z, y, x) in the patch's voxels, within it.
        positive: whether it lies on the object.
    """

    position: tuple[float, float, float]
    positive: bool


@dataclass(frozen=True, eq=False)
class Tuned:
    """What the search found.

    Attributes:
        tuning: the best so far.
        evaluations: of loss and gradient.
        obeyed: whether the network agrees with every click now, and by a margin.
    """

    tuning: Tuning
    evaluations: int
    obeyed: bool


def disobeyed(logits: Floats, targets: Sequence[Target], threshold_logit: float) -> bool:
    """Whether the logits (z, y, x) of a patch are on the wrong side at any target."""
    return any((_at(logits, t.position) > threshold_logit) != t.positive for t in targets)


def tune(
    refiner: Refiner,
    tensors: Mapping[str, Floats],
    targets: Sequence[Target],
    threshold_logit: float,
    begin: Tuning | None = None,
    most_evaluations: int = MOST_EVALUATIONS,
    stop: Callable[[], bool] = lambda: False,
) -> Tuned:
    """Search for a scale and a bias with which the network agrees with the targets.

    Args:
        refiner: what to run.
        tensors: what the network made of the patch.
        targets: at least one.
        threshold_logit: above it a voxel belongs to the object.
        begin: where to begin, for instance what the last click led to; see `Refiner.change`.
        most_evaluations: bound of the search.
        stop: asked before each evaluation but the first.

    Raises:
        EngineError: the engine failed.
    """
    from scipy.optimize import minimize

    search = _Search(refiner, tensors, targets, threshold_logit, most_evaluations, stop)
    with suppress(_EnoughError):
        minimize(search, refiner.change(begin), jac=True, method="L-BFGS-B")
    return Tuned(refiner.tuning(search.best), search.evaluations, search.obeyed)


class _EnoughError(Exception):
    """The search may end."""


class _Search:
    """The loss and its gradient at a change, as of `Refiner.change`; remembers the best."""

    def __init__(
        self,
        refiner: Refiner,
        tensors: Mapping[str, Floats],
        targets: Sequence[Target],
        threshold_logit: float,
        most_evaluations: int,
        stop: Callable[[], bool],
    ) -> None:
        starts = [_start(target.position) for target in targets]
        self._windows: Windows = refiner.windows(tensors, starts)
        self._positive = np.array([target.positive for target in targets])
        self._threshold, self._most, self._stop = threshold_logit, most_evaluations, stop
        self._taps, self._weights = _sampling(targets, starts, refiner.patch)
        self._tuning = refiner.tuning
        self.best, self._least = refiner.change(None), np.inf
        self.evaluations, self.obeyed = 0, False

    def __call__(self, change: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        if self.evaluations and self._stop():
            raise _EnoughError
        self.evaluations += 1
        tuning = self._tuning(change)
        logits = self._windows.logits(tuning).reshape(len(self._taps), -1).astype(np.float64)
        at = np.einsum("npv,nv->np", self._taps, logits) - self._threshold
        p = 1 / (1 + np.exp(-at))
        error = p - self._positive[:, None]
        loss = float((self._weights * error**2).sum() + _STAY * (change**2).sum())
        centre = at[:, _CENTRE] * np.where(self._positive, 1, -1)
        self.obeyed = bool((centre >= _SURE).all())
        if self.obeyed or loss < self._least:
            self.best, self._least = change.copy(), loss
        if self.obeyed or self.evaluations == self._most:
            raise _EnoughError
        d_at = 2 * self._weights * error * p * (1 - p)
        d_logits = np.einsum("npv,np->nv", self._taps, d_at).astype(np.float32)
        gradients = self._windows.gradients(tuning, d_logits.reshape(-1, *WINDOW))
        return loss, np.concatenate(gradients).astype(np.float64) + 2 * _STAY * change


def _start(position: Sequence[float]) -> Index:
    """Where the window around a target begins."""
    z, y, x = (int(p - 1) // 2 * 2 if p >= 1 else -2 for p in position)
    return z, y, x


def _sampling(
    targets: Sequence[Target], starts: Sequence[Index], patch: Index
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How points around N targets read their windows' logits, and what the points weigh.

    Returns:
        Trilinear weights (N, P, voxels of a window), and (N, P): all positive targets together
        weigh 1, and so do all negative ones; points nearer to a target of the other kind weigh 0.
    """
    taps = np.zeros((len(targets), len(_AROUND), *WINDOW))
    weights = np.zeros(taps.shape[:2])
    last = np.array(patch) - 1
    for n, (target, start) in enumerate(zip(targets, starts, strict=True)):
        points = np.clip(target.position + _AROUND, 0, last)
        first = np.minimum(points.astype(np.int64), np.maximum(last - 1, 0))
        part = points - first
        for corner in itertools.product((0, 1), repeat=3):
            share = np.prod(np.where(corner, part, 1 - part), axis=1)
            z, y, x = (np.minimum(first + corner, last) - start).T
            np.add.at(taps[n], (np.arange(len(points)), z, y, x), share)
        own = ((points - target.position) ** 2).sum(axis=1)
        kept = np.ones(len(points), bool)
        for other in targets:
            if other.positive != target.positive:
                kept &= own < ((points - other.position) ** 2).sum(axis=1)
        kept[_CENTRE] = True
        alike = sum(other.positive == target.positive for other in targets)
        weights[n, kept] = (1 - _OWN) / kept.sum()
        weights[n, _CENTRE] += _OWN
        weights[n] /= alike
    return taps.reshape(*weights.shape, -1), weights


def _at(logits: Floats, position: Sequence[float]) -> float:
    """A logit between voxels."""
    low = [min(int(p), n - 2) for p, n in zip(position, logits.shape, strict=True)]
    value = logits[tuple(slice(p, p + 2) for p in low)].astype(np.float64)
    for p, begin in zip(position, low, strict=True):
        value = value[0] * (1 - (p - begin)) + value[1] * (p - begin)
    return float(value)
