"""The answer of clicks and structures together.

It is the mean over hypotheses; under one of a structure, the odds of a voxel are those of the
clicking network times those of belonging to that structure. The clicking network hardly believes
in anything far from a click, so under a structure its doubt counts only so much.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType

import numpy as np
from numba import njit
from numpy.typing import NDArray

from clickseg_infer.machine import cores
from clickseg_infer.meaning import Meaning

Floats = NDArray[np.float32]

_LEAST = 1e-3  # chance of belonging to a structure, and of not: no more is believed
_LIKELY = 0.02  # hypotheses of less weight are left out
_DOUBT = -2.0  # under a structure the clicking network's logits count as this at least
_HOPELESS = 3.0  # below the threshold: logits that no hypothesis brings nearer stay as they are


def informed(
    logits: Floats,
    chances: Floats,
    meaning: Meaning,
    threshold_logit: float,
    other_parts: Mapping[int, NDArray[np.bool_]] = MappingProxyType({}),
) -> Floats:
    """The logits of the mean over what may be meant.

    Args:
        logits: (z, y, x), what the network says by the clicks. Not modified.
        chances: (1 + structures, z, y, x) of cells that fill the patch. Not modified.
        meaning: how likely each structure is meant, or a part of it.
        threshold_logit: above which a voxel belongs to the object. Logits that come to lie far
            below it under every hypothesis stay as they are.
        other_parts: (z, y, x) of cells by the number of a structure, where other parts of it are
            than the one meant; where there are none, a part is as the whole.

    Returns:
        (z, y, x) float32, read-only like what the network gives, for which kernels are compiled;
        the logits themselves if no structure is likely.
    """
    likely, shifts = _hypotheses(chances, meaning, other_parts)
    if not len(likely):
        return logits
    rest = np.float32(max(0, 1 - likely.sum()))
    hopeless = np.float32(threshold_logit - _HOPELESS)
    out = np.empty_like(logits)
    taps = [_taps(*n) for n in zip(logits.shape, chances.shape[1:], strict=True)]
    edges = np.linspace(0, len(logits), cores() + 1).astype(int)

    def planes(first: int, last: int) -> None:
        _inform(logits, shifts, likely, rest, hopeless, *taps, first, last, out)

    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(planes, edges[:-1], edges[1:]))
    out.flags.writeable = False
    return out


def _hypotheses(
    chances: Floats, meaning: Meaning, other_parts: Mapping[int, NDArray[np.bool_]]
) -> tuple[Floats, Floats]:
    """How likely each is that counts, and by how much it moves the logit of each cell."""
    found: list[tuple[np.float32, Floats]] = []
    for number, (whole, part) in enumerate(zip(meaning.whole, meaning.part, strict=True)):
        there = chances[1 + number]
        if number in other_parts:
            found += [(whole, there), (part, np.where(other_parts[number], 0, there))]
        else:
            found.append((whole + part, there))
    counting = [(weight, _log_odds(there)) for weight, there in found if weight > _LIKELY]
    weights, shifts = zip(*counting, strict=True) if counting else ((), ())
    return np.array(weights, np.float32), np.array(shifts, np.float32)


def _log_odds(chances: Floats) -> Floats:
    sure = np.clip(chances, _LEAST, 1 - _LEAST)
    odds: Floats = np.log(sure / (1 - sure))
    return odds


def _taps(voxels: int, cells: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """For each voxel along an axis the cells to interpolate between, and the second's weight."""
    place = np.clip((np.arange(voxels) + 0.5) * cells / voxels - 0.5, 0, cells - 1)
    first = place.astype(np.int64)
    second = np.minimum(first + 1, cells - 1)
    return first, second, (place - first).astype(np.float32)


@njit(cache=True, nogil=True)
def _inform(logits, shifts, likely, rest, hopeless, z, y, x, begin, end, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Fill planes `begin` to `end` of `out`: the mean over hypotheses of shifted logits."""
    one, most = np.float32(1), np.float32(60)  # beyond which a logit overflows
    doubt = np.float32(_DOUBT)
    count, cells = len(likely), shifts.shape[3]
    row = np.empty((count, cells), np.float32)
    shifted = np.empty(count, np.float32)
    for k in range(begin, end):
        z0, z1, c = z[0][k], z[1][k], z[2][k]
        for j in range(logits.shape[1]):
            y0, y1, b = y[0][j], y[1][j], y[2][j]
            for n in range(count):
                for i in range(cells):
                    near = shifts[n, z0, y0, i] * (one - b) + shifts[n, z0, y1, i] * b
                    far = shifts[n, z1, y0, i] * (one - b) + shifts[n, z1, y1, i] * b
                    row[n, i] = near * (one - c) + far * c
            for i in range(logits.shape[2]):
                logit = logits[k, j, i]
                believed = max(logit, doubt)
                x0, x1, a = x[0][i], x[1][i], x[2][i]
                best = logit
                for n in range(count):
                    shifted[n] = believed + row[n, x0] * (one - a) + row[n, x1] * a
                    best = max(best, shifted[n])
                if best < hopeless:
                    out[k, j, i] = logit
                    continue
                against = np.exp(-min(max(logit, -most), most))
                chance = one / (one + against)
                inside, outside = rest * chance, rest * chance * against
                for n in range(count):
                    against = np.exp(-min(max(shifted[n], -most), most))
                    chance = one / (one + against)
                    inside += likely[n] * chance
                    outside += likely[n] * chance * against
                out[k, j, i] = np.log(inside / outside)
