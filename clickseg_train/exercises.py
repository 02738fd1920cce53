"""An exercise: one object, clicked and corrected until the next is drawn.

The simulated user of the runtime places the clicks, the runtime's own maps draw them, and the
network's own answer is fed back as the previous mask, so that training sees what inference makes.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from clickseg_infer.clicks import Click
from clickseg_infer.file_grid import Index
from clickseg_infer.model_spec import ModelSpec
from clickseg_infer.network_input import fill_click_channels
from clickseg_infer.simulate import next_click
from clickseg_train.known_masks import coarse, half_known, known_mask
from clickseg_train.objects import TrainingObject, in_windows

_EXTRA_NEGATIVES = 0.25  # chance that a user starts with more than one click
_GROWN = 0.08  # chance of a patch that an object grew into: half a mask and no click yet
_KNOWN = 0.12  # chance of a mask to correct from the first click on
_COARSE = 0.1  # chance that the previous mask comes from a wider look
_LOOK_AGAIN = 0.15  # chance of a second look at the same clicks with the first answer fed back
_FORGET = 0.07  # chance that the previous mask is withheld
_CENTRAL, _CENTRAL_FIRST = 0.4, 0.6  # chance of a click in the very middle of an error
_MISPLACED = 0.03  # chance of a click that corrects no error but is true all the same


@dataclass
class Exercise:
    """The state of one object being clicked; changed by `prepare` and `answer`.

    Attributes:
        ct: (W, z, y, x) float32, one channel for each HU window.
        truth: (z, y, x) uint8.
        previous: (z, y, x) uint8, the network's latest answer.
        clicks: so far, in the patch's voxels.
        clickless: whether the next round is asked without a click.
        rounds: how often the network was asked.
    """

    ct: NDArray[np.float32]
    truth: NDArray[np.uint8]
    previous: NDArray[np.uint8]
    kind: str
    clicks: list[Click] = field(default_factory=list)
    clickless: bool = False
    rounds: int = 0


def start(rng: np.random.Generator, spec: ModelSpec, item: TrainingObject) -> Exercise:
    """A new exercise on `item`: no answer yet, half a mask and no click, or a mask to correct."""
    ct = in_windows(item.hu, spec.hu_windows.values())
    exercise = Exercise(ct, item.truth, np.zeros_like(item.truth), item.kind)
    if rng.random() < _GROWN:
        exercise.previous = half_known(rng, item.truth)
        exercise.clickless = bool(exercise.previous.any())
    elif rng.random() < _KNOWN:
        exercise.previous = known_mask(rng, item)
    elif rng.random() < _EXTRA_NEGATIVES:
        exercise.clicks += _negatives(rng, item)
    return exercise


def prepare(
    exercise: Exercise, rng: np.random.Generator, spec: ModelSpec, out: NDArray[np.float32]
) -> None:
    """Add a click where the user would, and write the network's input to `out` (C, z, y, x)."""
    look_again = exercise.rounds > 0 and rng.random() < _LOOK_AGAIN
    if not (exercise.clickless or look_again):
        exercise.clicks += _click(exercise, rng)
    exercise.clickless = False
    exercise.rounds += 1
    previous = exercise.previous.astype(np.float32)
    if rng.random() < _FORGET and exercise.clicks:
        previous[:] = 0
    elif rng.random() < _COARSE:
        previous[:] = coarse(exercise.previous, 2)
    out[: len(exercise.ct)] = exercise.ct
    positive, negative = positions(exercise.clicks)
    fill_click_channels(spec, positive, negative, previous, out)


def answer(exercise: Exercise, logits: NDArray[np.float32], threshold_logit: float) -> None:
    """Take the network's logits (z, y, x) as the next previous mask."""
    exercise.previous = (logits > threshold_logit).astype(np.uint8)


def positions(clicks: list[Click]) -> tuple[list[Index], list[Index]]:
    """The voxels of the positive and of the negative clicks."""
    positive = [click.zyx for click in clicks if click.positive]
    return positive, [click.zyx for click in clicks if not click.positive]


def _click(exercise: Exercise, rng: np.random.Generator) -> list[Click]:
    if rng.random() < _MISPLACED:
        zyx = np.unravel_index(rng.integers(exercise.truth.size), exercise.truth.shape)
        z, y, x = (int(p) for p in zyx)
        return [Click((z, y, x), bool(exercise.truth[z, y, x]))]
    central = rng.random() < (_CENTRAL if exercise.clicks else _CENTRAL_FIRST)
    click = next_click(exercise.truth, exercise.previous, rng=None if central else rng)
    return [] if click is None else [click]


def _negatives(rng: np.random.Generator, item: TrainingObject) -> list[Click]:
    """A few clicks beside the object: near its border, on other objects, or anywhere else."""
    near = ndimage.binary_dilation(item.truth, iterations=int(rng.integers(3, 7)))
    near &= ~ndimage.binary_dilation(item.truth, iterations=2)
    choices = [near, item.truth == 0]
    if item.others is not None:
        choices.append((item.others > 0) & (item.truth == 0))
    clicks = []
    for _ in range(int(rng.integers(1, 4))):
        places = np.flatnonzero(choices[rng.integers(len(choices))])
        if len(places):
            z, y, x = np.unravel_index(rng.choice(places), item.truth.shape)
            clicks.append(Click((int(z), int(y), int(x)), positive=False))
    return clicks
