"""How a model follows clicks: a simulated user clicks the middle of the largest error.

Needs no torch: what is evaluated is an exported model, through the runtime's own `Session`.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.errors import DatasetError
from clickseg_infer.metrics import clicks_to, dice
from clickseg_infer.model import Model
from clickseg_infer.prediction import bounds_of, slices_of, union
from clickseg_infer.session import Session
from clickseg_infer.simulate import next_click
from clickseg_infer.volume import Volume
from clickseg_train.cases import Case, load_case, read_dataset

TARGETS = (0.85, 0.90, 0.95)


@dataclass(frozen=True)
class ObjectResult:
    """One object of one image.

    Attributes:
        image: the image's path.
        label_value: the object's value in the label file.
        dice: after each click. Once truth and mask agree nobody clicks again, and the last value
            stands for the rest.
        click_ms: time of each click that was made, without the simulated user's.
    """

    image: str
    label_value: int
    dice: tuple[float, ...]
    click_ms: tuple[float, ...]


@dataclass(frozen=True)
class Evaluation:
    """All objects of all images."""

    cases: tuple[ObjectResult, ...]

    @property
    def mean_dice(self) -> tuple[float, ...]:
        """The mean over objects after each click."""
        means = np.mean([case.dice for case in self.cases], axis=0)
        return tuple(float(mean) for mean in means)

    @property
    def median_click_ms(self) -> float:
        """Over every click of every object."""
        return float(np.median([ms for case in self.cases for ms in case.click_ms]))

    def clicks_to(self, target: float) -> float:
        """Mean clicks until Dice reached `target`; where it never did, all clicks count."""
        return float(np.mean([needed or len(case.dice) for case, needed in self._needed(target)]))

    def failures(self, target: float) -> int:
        """How many objects never reached a Dice of `target`."""
        return sum(needed is None for _, needed in self._needed(target))

    def _needed(self, target: float) -> list[tuple[ObjectResult, int | None]]:
        return [(case, clicks_to(case.dice, target)) for case in self.cases]

    def as_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return {
            "cases": [
                {**vars(case), "dice": list(case.dice), "click_ms": list(case.click_ms)}
                for case in self.cases
            ],
            "mean_dice": list(self.mean_dice),
            "clicks_to": {f"{target:.2f}": self.clicks_to(target) for target in TARGETS},
            "failures": {f"{target:.2f}": self.failures(target) for target in TARGETS},
        }


def evaluate(
    model: Model,
    cases: Iterable[Case],
    max_clicks: int,
    label_value: int | None = None,
    report: Callable[[ObjectResult], None] = lambda _: None,
) -> Evaluation:
    """Let the simulated user segment every object of every case.

    Args:
        model: to evaluate.
        cases: image and label files.
        max_clicks: for each object.
        label_value: only objects of this value; None for every value above 0.
        report: called after each object.

    Raises:
        FileError, VolumeError: as the readers do.
        DatasetError: no object to evaluate.
    """
    results = []
    for case in cases:
        loaded = load_case(case)
        for value, _ in loaded.objects:
            if label_value in (None, value):
                truth = loaded.label == value
                scores, times = click_object(model, loaded.volume, truth, max_clicks)
                results.append(ObjectResult(str(case.image), value, tuple(scores), tuple(times)))
                report(results[-1])
    if not results:
        wanted = "above 0" if label_value is None else f"of {label_value}"
        raise DatasetError(f"nothing to evaluate: the labels hold no value {wanted}")
    return Evaluation(tuple(results))


def click_object(
    model: Model, volume: Volume, truth: NDArray[np.bool_], max_clicks: int
) -> tuple[Sequence[float], Sequence[float]]:
    """One object: Dice after each click, and the milliseconds of each click.

    Args:
        model: to evaluate.
        volume: the scan. Not modified.
        truth: (z, y, x) bool of the volume's shape. Not modified.
        max_clicks: how many to make at most.
    """
    session = Session(model, volume)
    whole = bounds_of(truth)
    scores: list[float] = []
    times: list[float] = []
    for _ in range(max_clicks):
        # Error and overlap lie within the box of both, which is far smaller than the scan.
        box = union(whole, session.prediction.box)
        assert box is not None
        area = slices_of(box)
        click = next_click(truth[area], session.mask[area], volume.spacing_mm)
        if click is None:
            break
        z, y, x = (p + low for p, (low, _) in zip(click.zyx, box, strict=True))
        began = time.perf_counter()
        mask = session.click((z, y, x), click.positive)
        times.append((time.perf_counter() - began) * 1e3)
        scores.append(dice(truth, mask))
    scores += [scores[-1]] * (max_clicks - len(scores))
    return scores, times


def choose_cases(
    dataset: Path | None, split: str, image: Path | None, label: Path | None
) -> tuple[Case, ...]:
    """The cases of a dataset's split ("val", "train" or "all"), or one image with its label.

    Raises:
        DatasetError: neither or both are given, an unknown or empty split, or a dataset that
            `read_dataset` refuses.
    """
    if dataset is None:
        if image is None or label is None:
            raise DatasetError("give a dataset, or an image and its label")
        return (Case(image.name, image, label),)
    if image is not None or label is not None:
        raise DatasetError("give a dataset, or an image and its label, not both")
    if split not in ("val", "train", "all"):
        raise DatasetError(f"unknown split {split!r}, allowed are val, train and all")
    known = read_dataset(dataset)
    cases = known.train + known.val if split == "all" else getattr(known, split)
    if not cases:
        raise DatasetError(f"{dataset}: the split {split!r} has no cases; try --split all")
    return tuple(cases)
