"""What was clicked, as far as the model knows structures of the body by name.

A second, smaller network sees the CT alone and says which structure each place belongs to. The
clicks say which structure is meant: each hypothesis, one for every structure and one for "none of
these", weighs as much as the clicks make it likely. The answer is the mean over hypotheses; under
one of a structure, the odds of a voxel are those of the clicking network times those of belonging
to that structure (docs/decisions/0011-the-structure-that-was-meant.md).
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from numpy.typing import NDArray

from clickseg_infer.engines import Engine, Network, open_engine
from clickseg_infer.engines.shared import SharedEngine
from clickseg_infer.file_grid import Index
from clickseg_infer.machine import cores
from clickseg_infer.model_spec import ModelSpec

Floats = NDArray[np.float32]

CELL = 4
"""Voxels along an axis of a patch for which the network gives one answer."""

IMAGE, CHANCES = "image", "chances"
"""The names of its input and output."""

_LEAST = 1e-3  # chance of belonging to a structure, and of not: no more is believed
_LIKELY = 0.02  # hypotheses of less weight are left out
_SURE = 0.98  # no click is so sure to be right as to rule a hypothesis out for good
_UNNAMED = 0.7  # how likely any later click is where none of the structures is meant


@dataclass(frozen=True, eq=False)
class Structures:
    """The network that tells structures apart.

    Attributes:
        engine: what runs it.
    """

    engine: Engine

    def chances(self, ct: Floats) -> Floats:
        """Which structure is where.

        Args:
            ct: (W, z, y, x) float32, the CT channels of a patch. Not modified.

        Returns:
            (1 + structures, z / CELL, y / CELL, x / CELL) float32, adding up to 1 in each cell;
            first the chance of none of them.

        Raises:
            EngineError: the engine failed.
        """
        chances: Floats = self.engine.run_graph({IMAGE: ct[None]})[CHANCES][0]
        return chances

    def shared(self) -> "Structures":
        """The same for several threads."""
        return replace(self, engine=SharedEngine(self.engine))

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()


def open_structures(graph: bytes, spec: ModelSpec, engine: str, precision: str) -> Structures:
    """Compile the graph that lies beside a network's.

    Args:
        graph: a serialised ONNX model in float32.
        spec: of the model.
        engine: as for `open_engine`; "auto" need not come to what runs the network.
        precision: likewise. 16-bit floats and integers are the network's own, and then the engine
            chooses.

    Raises:
        EngineError: the engine cannot run it.
    """
    shape = (1, len(spec.hu_windows), *spec.patch_size)
    network = Network(graph, spec.patch_size, shapes={IMAGE: shape})
    chosen = "auto" if precision in ("float16", "int8") else precision
    return Structures(open_engine(network, engine, chosen))


def meant(before: Floats | None, chances: Floats, position: Index, positive: bool) -> Floats | None:
    """How likely each structure is the one that the clicks mean, after one more click.

    A click tells by the mean over its cell and those that touch it: people click near borders.

    Args:
        before: (1 + structures,), as it was without this click; None where nothing is known, as
            before the first click. Not modified.
        chances: (1 + structures, z, y, x) of a patch. Not modified.
        position: the click's, (z, y, x) in voxels of the patch; may lie outside it, and then it
            tells nothing.
        positive: whether the click is on the object.

    Returns:
        (1 + structures,), adding up to 1; None where still nothing is known.
    """
    z, y, x = (p // CELL for p in position)
    if not all(0 <= c < n for c, n in zip((z, y, x), chances.shape[1:], strict=True)):
        return before
    near = tuple(slice(max(0, c - 1), c + 2) for c in (z, y, x))
    here: Floats = chances[(slice(None), *near)].mean((1, 2, 3))
    if before is None or len(before) != len(here):  # the latter of another model's answer
        return here / here.sum() if positive else None
    likely = np.clip(here if positive else 1 - here, 1 - _SURE, _SURE)
    likely[0] = _UNNAMED
    after: Floats = before * likely
    after /= after.sum()
    return after


def likeliest(weights: Floats | None, names: Sequence[str]) -> tuple[str, float] | None:
    """What the clicks mean, if one structure is likelier than all else together.

    Args:
        weights: (1 + structures,), as `meant` gives them. Not modified.
        names: of the structures.

    Returns:
        Its name, and how likely it is.
    """
    if weights is None:
        return None
    number = int(np.argmax(weights))
    chance = float(weights[number])
    return (names[number - 1], chance) if number > 0 and chance > 0.5 else None


def informed(logits: Floats, chances: Floats, weights: Floats, threshold_logit: float) -> Floats:
    """The logits of the mean over what may be meant.

    Args:
        logits: (z, y, x), what the network says by the clicks. Not modified.
        chances: (1 + structures, z / CELL, y / CELL, x / CELL). Not modified.
        weights: (1 + structures,), how likely each is meant. Not modified.
        threshold_logit: above which a voxel belongs to the object. Logits that cannot come to lie
            above it stay as they are.

    Returns:
        (z, y, x) float32, read-only like what the network gives, for which kernels are compiled;
        the logits themselves if no structure is likely.
    """
    chosen = 1 + np.flatnonzero(weights[1:] > _LIKELY)
    if not len(chosen):
        return logits
    likely = weights[chosen].astype(np.float32)
    rest = np.float32(max(0, 1 - likely.sum()))
    sure = np.clip(chances[chosen], _LEAST, 1 - _LEAST)
    shifts = np.log(sure / (1 - sure))
    hopeless = np.float32(threshold_logit + math.log(_LEAST))
    out = np.empty_like(logits)
    taps = [_taps(n) for n in logits.shape]
    edges = np.linspace(0, len(logits), cores() + 1).astype(int)

    def planes(first: int, last: int) -> None:
        _inform(logits, shifts, likely, rest, hopeless, *taps, first, last, out)

    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(planes, edges[:-1], edges[1:]))
    out.flags.writeable = False
    return out


def _taps(voxels: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """For each voxel along an axis the cells to interpolate between, and the second's weight."""
    place = np.clip((np.arange(voxels) + 0.5) / CELL - 0.5, 0, voxels // CELL - 1)
    first = place.astype(np.int64)
    second = np.minimum(first + 1, voxels // CELL - 1)
    return first, second, (place - first).astype(np.float32)


@njit(cache=True, nogil=True)
def _inform(logits, shifts, likely, rest, hopeless, z, y, x, begin, end, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Fill planes `begin` to `end` of `out`: the mean over hypotheses of shifted logits."""
    one, most = np.float32(1), np.float32(60)  # beyond which a logit overflows
    count, cells = len(likely), shifts.shape[3]
    row = np.empty((count, cells), np.float32)
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
                if logit < hopeless:
                    out[k, j, i] = logit
                    continue
                x0, x1, a = x[0][i], x[1][i], x[2][i]
                against = np.exp(-min(max(logit, -most), most))
                chance = one / (one + against)
                inside, outside = rest * chance, rest * chance * against
                for n in range(count):
                    shifted = logit + row[n, x0] * (one - a) + row[n, x1] * a
                    against = np.exp(-min(max(shifted, -most), most))
                    chance = one / (one + against)
                    inside += likely[n] * chance
                    outside += likely[n] * chance * against
                out[k, j, i] = np.log(inside / outside)
