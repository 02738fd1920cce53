"""What TensorBoard shows of a run: scalars, and slices with clicks, truth and answer."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from clickseg_infer.model_spec import ModelSpec
from clickseg_train.config import TrainConfig
from clickseg_train.drawing import Batch
from clickseg_train.reports import StepReport, ValidationReport

FOLDER = "tensorboard"
_SHOWN_CLICKS = (1, 3, 5)
_TRUTH, _ANSWER, _POSITIVE, _NEGATIVE = (0.2, 0.9, 0.3), (1.0, 0.5, 0.1), (0, 1, 1), (1, 0, 1)


class Board:
    """Writes the events of a run; a context manager, and silent without a folder."""

    def __init__(self, out: Path | None, spec: ModelSpec, config: TrainConfig, step: int) -> None:
        self._spec, self._every = spec, config.picture_every
        self._writer = None
        if out is not None:
            # What a killed run wrote after its checkpoint is hidden.
            self._writer = SummaryWriter(str(out / FOLDER), purge_step=step + 1)

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def step(self, report: StepReport, learning_rate: float) -> None:
        """Loss, rate, speed, and mean Dice by kind of object and by number of clicks."""
        if self._writer is None:
            return
        values = {
            "loss": report.loss,
            "learning_rate": learning_rate,
            "steps_per_second": 1 / report.seconds,
        }
        groups: dict[str, list[float]] = {}
        for kind, clicks, dice in report.objects:
            groups.setdefault(f"dice/{kind}", []).append(dice)
            if clicks in _SHOWN_CLICKS:
                groups.setdefault(f"dice/click_{clicks}", []).append(dice)
        values |= {name: float(np.mean(scores)) for name, scores in groups.items()}
        for name, value in values.items():
            self._writer.add_scalar(name, value, report.step)

    def validation(self, report: ValidationReport) -> None:
        """Mean Dice of the validation objects after each click."""
        if self._writer is not None:
            for n, dice in enumerate(report.mean_dice, start=1):
                self._writer.add_scalar(f"validation/click_{n}", dice, report.step)

    def picture(self, step: int, batch: Batch, logits: NDArray[np.float32]) -> None:
        """Every now and then, one slice of each object: CT, truth and answer outlined, clicks."""
        if self._writer is None or not self._every or step % self._every:
            return
        rows = [
            picture(self._spec, inputs, truth[0], found[0] > self._spec.threshold_logit)
            for inputs, truth, found in zip(batch.inputs, batch.truth, logits, strict=True)
        ]
        self._writer.add_image("objects", np.concatenate(rows, axis=1), step, dataformats="HWC")


def picture(
    spec: ModelSpec,
    inputs: NDArray[np.float32],
    truth: NDArray[np.float32],
    answer: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """The slice with most of the object: (y, x, 3) float32 in [0, 1], anterior at the top.

    Truth is outlined in green, the answer in orange; clicks within the slice's reach are cyan where
    they are positive and magenta where they are negative.
    """
    z = int(truth.sum(axis=(1, 2)).argmax())
    colours = np.repeat((inputs[0, z, ..., None] + 1) / 2, 3, axis=2)
    for mask, colour in ((truth[z] > 0, _TRUTH), (answer[z], _ANSWER)):
        colours[_outline(mask)] = colour
    for name, colour in (("positive", _POSITIVE), ("negative", _NEGATIVE)):
        if name in spec.channels:
            colours[inputs[spec.channels.index(name), z] > 0] = colour
    return np.ascontiguousarray(colours[::-1]).astype(np.float32)


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The voxels of a mask that have a neighbour outside it."""
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inside
