"""Shapes in millimetres: smooth random fields, random paths, and distances negative inside a shape.

`axes` are 1-D float32 arrays of voxel centres, one per dimension, in the patient frame.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Vector = Array | tuple[float, float, float]  # (z, y, x)


def field(rng: np.random.Generator, axes: tuple[Array, ...], smooth_mm: float) -> Array:
    """A smooth Gaussian random field over the axes' grid: float32, mean 0 and sd 1 at every voxel.

    White noise on a lattice of step `smooth_mm` is spread by Gaussians of that sd. The kernel is
    separable, so the work is one small matrix product per axis.
    """
    if min(len(axis) for axis in axes) == 0:  # a box outside a cropped field of view
        return np.zeros([len(axis) for axis in axes], np.float32)
    knots = [
        np.arange(axis[0] - 3 * smooth_mm, axis[-1] + 3 * smooth_mm, smooth_mm) for axis in axes
    ]
    noise = rng.standard_normal([len(knot) for knot in knots], dtype=np.float32)
    for dimension, (axis, knot) in enumerate(zip(axes, knots, strict=True)):
        kernel = np.exp(-0.5 * ((axis[:, None] - knot[None]) / smooth_mm) ** 2)
        kernel /= np.sqrt((kernel**2).sum(axis=1, keepdims=True))
        spread = np.tensordot(kernel.astype(np.float32), noise, axes=(1, dimension))
        noise = np.moveaxis(spread, 0, dimension)
    return np.ascontiguousarray(noise)


def grid(axes: tuple[Array, ...]) -> tuple[Array, Array, Array]:
    """Broadcastable (z, 1, 1), (1, y, 1), (1, 1, x) coordinates."""
    z, y, x = axes
    return z[:, None, None], y[None, :, None], x[None, None, :]


def ellipsoid(axes: tuple[Array, ...], centre: Vector, radii: Vector) -> Array:
    """About the signed distance to an ellipsoid: exact in sign, good near the surface."""
    z, y, x = (
        (axis - mid) / radius for axis, mid, radius in zip(grid(axes), centre, radii, strict=True)
    )
    distance: Array = (np.sqrt(z * z + y * y + x * x) - 1) * float(np.min(radii))
    return distance


def join(first: Array, second: Array, blend_mm: float) -> Array:
    """The union of two shapes, its crease filled over `blend_mm`."""
    mix = np.maximum(blend_mm - np.abs(first - second), 0) / blend_mm
    union: Array = np.minimum(first, second) - mix * mix * (blend_mm / 4)
    return union


def bend(rng: np.random.Generator, where: Array, sway_mm: float) -> Array:
    """A slow random curve along a coordinate in mm, within `sway_mm` of 0."""
    first, second = rng.uniform(0, 2 * np.pi, 2)
    sway: Array = 0.7 * np.sin(where / 55 + first) + 0.3 * np.sin(where / 24 + second)
    return sway_mm * sway


def line(rng: np.random.Generator, points: Sequence[Vector] | Array, sway_mm: float) -> Array:
    """A path through (z, y, x) points, (n, 3) float, a step every 2 mm or less."""
    knots = np.asarray(points, float)
    far = np.linalg.norm(np.diff(knots, axis=0), axis=1)
    at = np.concatenate([[0], np.cumsum(far)])
    steps = np.linspace(0, at[-1], int(at[-1] / 2) + 2)
    # The ends stay where they were put, so that branches meet their trunk.
    fade = np.minimum(1, np.minimum(steps, at[-1] - steps) / 15)
    return np.stack(
        [np.interp(steps, at, knot) + fade * bend(rng, steps, sway_mm) for knot in knots.T], axis=1
    )
