"""Judging what a late click changes near it: small networks that learnt it from other clicks.

There is one for each kind of click. What they know of each voxel is for `late_clicks` to say, and
what was right for others was recorded by `clickseg_train.late_clicks`
(docs/decisions/0012-late-clicks-are-judged.md).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.boxes import Box
from clickseg_infer.clicks import Click

Floats = NDArray[np.float32]

JUDGES = Path(__file__).parent / "models" / "late_clicks.npz"
"""The bundled networks' weights."""

KNOWN = (
    "logit",
    "depth",
    "distance",
    "depth by the click's",
    "distance by the click's depth",
    "the click's depth",
    "thickness",
    "facing",
    "outwards",
    "sideways",
    "filled in 3 voxels",
    "filled in 5 voxels",
    "HU from the click's",
    "HU from the mask's",
    "the click's HU from the mask's",
    "structure",
    "the click's structure",
    "no structure",
)
"""What is known of each voxel, in this order."""


@dataclass(frozen=True, eq=False)
class Nearby:
    """The voxels near a click that it may change.

    Attributes:
        click: the latest one.
        box: of the volume, around the click.
        there: (z, y, x) bool: which of its voxels are judged.
        known: (N, len(KNOWN)) float32: what is known of these, in their order.
    """

    click: Click
    box: Box
    there: NDArray[np.bool_]
    known: Floats


Judge = Callable[[Nearby], Floats | None]
"""How likely each voxel changes, (N,); None leaves all to the rules of place."""


@dataclass(frozen=True, eq=False)
class Network:
    """A network of fully connected layers, each but the last followed by a ReLU.

    Attributes:
        layers: the weights (inputs, outputs) and biases (outputs,) of each.
    """

    layers: tuple[tuple[Floats, Floats], ...]

    def __call__(self, known: Floats) -> Floats:
        """Chances (N,) for inputs (N, len(KNOWN))."""
        for number, (weights, biases) in enumerate(self.layers):
            if number:
                known = np.maximum(known, 0)
            known = known @ weights + biases
        return (1 / (1 + np.exp(-np.clip(known[:, 0], -60, 60)))).astype(np.float32, copy=False)


def bundled_judge(nearby: Nearby) -> Floats:
    """What the bundled networks say."""
    return _bundled()[nearby.click.positive](nearby.known)


@cache
def _bundled() -> dict[bool, Network]:
    with np.load(JUDGES) as stored:
        return {on: _read(stored, name) for on, name in ((True, "adding"), (False, "removing"))}


def _read(stored: "np.lib.npyio.NpzFile", name: str) -> Network:
    count = sum(key.startswith(f"{name}.weights") for key in stored)
    layers = ((stored[f"{name}.weights{n}"], stored[f"{name}.biases{n}"]) for n in range(count))
    return Network(tuple(layers))
