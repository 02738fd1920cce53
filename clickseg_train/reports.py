"""What a training run tells while it runs."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class StepReport:
    """What one step did.

    Attributes:
        step: how many steps were taken so far.
        steps: how many there will be.
        loss: of this step's batch.
        objects: each object's kind, number of clicks so far, and Dice.
        seconds: the step took.
    """

    step: int
    steps: int
    loss: float
    objects: tuple[tuple[str, int, float], ...]
    seconds: float


@dataclass(frozen=True)
class ValidationReport:
    """Mean Dice over the validation objects at one step: after each click, or of one sweep."""

    step: int
    mean_dice: tuple[float, ...]


Report = Callable[[StepReport | ValidationReport], None]
