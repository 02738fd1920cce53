"""How a model follows clicks: a simulated user corrects it, and every answer is measured."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.boxes import bounds_of, slices_of, union
from clickseg_infer.clicks import Click, Clicks
from clickseg_infer.errors import DatasetError
from clickseg_infer.metrics import clicks_to, dice
from clickseg_infer.model import Model
from clickseg_infer.session import Session
from clickseg_infer.simulate import deepest_click, next_click
from clickseg_infer.volume import Spacing, Volume
from clickseg_train.cases import Case, Dataset, load_case, read_dataset

TARGETS = (0.85, 0.90, 0.95)
USERS = ("centre", "fbrs", "noisy")
"""Who clicks: the middle of the largest error; the deepest voxel of any error, as in f-BRS; or
anywhere in an error, large ones more often."""


@dataclass(frozen=True)
class Protocol:
    """What is done and measured for each object.

    Attributes:
        max_clicks: for each object.
        user: one of USERS.
        surfaces: whether surface Dice is measured, which takes longer than a click.
        baseline: whether the classical baseline answers the same clicks.
        seed: of a user who is not deterministic.
    """

    max_clicks: int = 10
    user: str = "centre"
    surfaces: bool = True
    baseline: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.user not in USERS:
            raise DatasetError(f"unknown user {self.user!r}, allowed are {', '.join(USERS)}")


@dataclass(frozen=True)
class ObjectResult:
    """One object of one image; each tuple has a value for each click.

    Once truth and mask agree nobody clicks again, and the last value stands for the rest.

    Attributes:
        image: the image's path.
        label_value: the object's value in the label file.
        clicks: that were made.
        dice: after each click.
        surface_dice: within 2 mm; empty if not asked for.
        volume_error: the mask's volume less the object's, as a fraction of the object's.
        baseline_dice: the classical baseline's; empty if not asked for.
        click_ms: time of each click that was made, without the simulated user's.
    """

    image: str
    label_value: int
    clicks: Clicks
    dice: tuple[float, ...]
    surface_dice: tuple[float, ...]
    volume_error: tuple[float, ...]
    baseline_dice: tuple[float, ...]
    click_ms: tuple[float, ...]


@dataclass(frozen=True)
class Evaluation:
    """All objects of all images."""

    cases: tuple[ObjectResult, ...]

    def mean(self, measure: str) -> tuple[float, ...]:
        """The mean over objects of one of `ObjectResult`'s measures, after each click."""
        means = np.mean([getattr(case, measure) for case in self.cases], axis=0)
        return tuple(float(mean) for mean in means)  # of no values, if it was not asked for

    @property
    def mean_dice(self) -> tuple[float, ...]:
        """The mean over objects after each click."""
        return self.mean("dice")

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
        measures = ("dice", "surface_dice", "volume_error", "baseline_dice")
        cases = []
        for case in self.cases:
            clicks = [{"zyx": list(c.zyx), "positive": c.positive} for c in case.clicks]
            values = {name: list(getattr(case, name)) for name in (*measures, "click_ms")}
            named = {"image": case.image, "label_value": case.label_value}
            cases.append({**named, "clicks": clicks, **values})
        return {
            "cases": cases,
            **{f"mean_{name}": list(self.mean(name)) for name in measures},
            "clicks_to": {f"{target:.2f}": self.clicks_to(target) for target in TARGETS},
            "failures": {f"{target:.2f}": self.failures(target) for target in TARGETS},
            "median_click_ms": self.median_click_ms,
        }


def evaluate(
    model: Model,
    cases: Iterable[Case],
    protocol: Protocol,
    label_values: Sequence[int] = (),
    report: Callable[[ObjectResult], None] = lambda _: None,
) -> Evaluation:
    """Let the simulated user segment every object of every case.

    Args:
        model: to evaluate.
        cases: image and label files.
        protocol: what is done and measured.
        label_values: only objects of these values; without any, of every value above 0.
        report: called after each object.

    Raises:
        FileError, VolumeError: as the readers do.
        DatasetError: no object to evaluate.
    """
    results = []
    for case in cases:
        loaded = load_case(case)
        for found in loaded.objects:
            if not label_values or found.value in label_values:
                truth = loaded.label == found.value
                measured = click_object(model, loaded.volume, truth, protocol)
                results.append(ObjectResult(str(case.image), found.value, **measured))
                report(results[-1])
    if not results:
        wanted = f"of {', '.join(map(str, label_values))}" if label_values else "above 0"
        raise DatasetError(f"nothing to evaluate: the labels hold no value {wanted}")
    return Evaluation(tuple(results))


def click_object(
    model: Model, volume: Volume, truth: NDArray[np.bool_], protocol: Protocol
) -> dict[str, Any]:
    """One object: the measures of an `ObjectResult`, by name.

    Args:
        model: to evaluate.
        volume: the scan. Not modified.
        truth: (z, y, x) bool of the volume's shape. Not modified.
        protocol: what is done and measured.
    """
    session = Session(model, volume)
    rng = np.random.default_rng(protocol.seed)
    whole = bounds_of(truth)
    region = _region_growing(volume) if protocol.baseline else None
    scores: dict[str, list[float]] = {
        name: [] for name in ("dice", "surface_dice", "volume_error", "baseline_dice", "click_ms")
    }
    for _ in range(protocol.max_clicks):
        # Error and overlap lie within the box of both, which is far smaller than the scan.
        box = union(whole, session.prediction.box)
        assert box is not None
        area = slices_of(box)
        begin = [low for low, _ in box]
        clicked = [_moved(c.zyx, [-low for low in begin]) for c in session.clicks]
        click = _user_click(
            protocol.user, truth[area], session.mask[area], volume.spacing_mm, clicked, rng
        )
        if click is None:
            break
        began = time.perf_counter()
        mask = session.click(_moved(click.zyx, begin), click.positive)
        scores["click_ms"].append((time.perf_counter() - began) * 1e3)
        box = union(whole, session.prediction.box)
        assert box is not None
        ours, theirs = mask[slices_of(box)], truth[slices_of(box)]
        scores["dice"].append(dice(theirs, ours))
        scores["volume_error"].append((int(ours.sum()) - int(theirs.sum())) / int(theirs.sum()))
        if protocol.surfaces:
            from clickseg_train.surface_dice import surface_dice

            scores["surface_dice"].append(surface_dice(theirs, ours, volume.spacing_mm))
        if region is not None:
            scores["baseline_dice"].append(dice(truth, region(session.clicks)))
    times = scores.pop("click_ms")
    for values in scores.values():
        values += values[-1:] * (protocol.max_clicks - len(values))
    measured: dict[str, Any] = {name: tuple(values) for name, values in scores.items()}
    return {**measured, "clicks": session.clicks, "click_ms": tuple(times)}


def _region_growing(volume: Volume) -> Callable[[Clicks], NDArray[np.uint8]]:
    from clickseg_train.baseline import grown_region, smoothed

    image = smoothed(volume)
    return lambda clicks: grown_region(image, clicks)


def _user_click(
    user: str,
    truth: NDArray[np.bool_],
    mask: NDArray[np.uint8],
    spacing_mm: Spacing,
    clicked: Sequence[tuple[int, int, int]],
    rng: np.random.Generator,
) -> Click | None:
    if user == "fbrs":
        return deepest_click(truth, mask, spacing_mm, clicked)
    return next_click(truth, mask, spacing_mm, rng if user == "noisy" else None)


def _moved(zyx: Sequence[int], by: Sequence[int]) -> tuple[int, int, int]:
    z, y, x = (int(p + b) for p, b in zip(zyx, by, strict=True))
    return z, y, x


def choose_cases(
    dataset: Path | None,
    split: str,
    image: Path | None,
    label: Path | None,
) -> tuple[Dataset | None, tuple[Case, ...]]:
    """The labelled cases of a dataset's split ("val", "train" or "all"), or one image's.

    Returns:
        The dataset, if one was given, and the cases.

    Raises:
        DatasetError: neither or both are given, an unknown or empty split, or a dataset that
            `read_dataset` refuses.
    """
    if dataset is None:
        if image is None or label is None:
            raise DatasetError("give a dataset, or an image and its label")
        return None, (Case(image.name, image, label),)
    if image is not None or label is not None:
        raise DatasetError("give a dataset, or an image and its label, not both")
    if split not in ("val", "train", "all"):
        raise DatasetError(f"unknown split {split!r}, allowed are val, train and all")
    known = read_dataset(dataset)
    cases = known.train + known.val if split == "all" else getattr(known, split)
    cases = tuple(case for case in cases if case.label)
    if not cases:
        raise DatasetError(f"{dataset}: the split {split!r} has no cases; try --split all")
    return known, cases


def values_named(names: Sequence[str], dataset: Dataset | None) -> tuple[int, ...]:
    """The label values of names or numbers.

    Raises:
        DatasetError: a name that the dataset does not have.
    """
    known = {name: value for value, name in dataset.labels.items()} if dataset else {}
    unknown = [name for name in names if name not in known and not name.isdigit()]
    if unknown:
        raise DatasetError(f"unknown labels {unknown}; known are {sorted(known)}")
    return tuple(known.get(name, 0) or int(name) for name in names)
