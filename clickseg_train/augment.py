"""Variations of a training object: orientation, small rotations, sharpness, noise, HU scale."""

from typing import Any

import numpy as np
from monai.transforms import (
    Compose,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandRotate90d,
    RandScaleIntensityd,
    RandShiftIntensityd,
)

from clickseg_train.objects import HU_RANGE, TrainingObject

_ALL = ("hu", "truth", "others")
_QUARTER_TURNS = ((0, 1), (1, 2), (0, 2))


def augmentation() -> Compose:
    """The transform; give it a fresh random state for each object through `augment`."""
    return Compose(
        [
            *(RandFlipd(_ALL, prob=0.5, spatial_axis=axis) for axis in range(3)),
            *(RandRotate90d(_ALL, prob=0.5, spatial_axes=axes) for axes in _QUARTER_TURNS),
            RandAffined(
                _ALL,
                prob=0.25,
                rotate_range=(0.35, 0.35, 0.35),
                shear_range=(0.1, 0.1, 0.1),
                mode=("bilinear", "nearest", "nearest"),
                padding_mode="border",
            ),
            RandGaussianSmoothd("hu", prob=0.2, sigma_x=(0.3, 0.9)),
            RandGaussianNoised("hu", prob=0.4, std=30.0),
            RandScaleIntensityd("hu", factors=0.1, prob=0.4),
            RandShiftIntensityd("hu", offsets=20.0, prob=0.4),
        ],
        lazy=False,
    )


def augment(transform: Compose, item: TrainingObject, rng: np.random.Generator) -> TrainingObject:
    """A variation of `item`, decided by `rng` alone; patches must be cubes to be turned."""
    transform.set_random_state(seed=int(rng.integers(2**31)))
    others = np.zeros_like(item.truth) if item.others is None else item.others
    arrays = {"hu": item.hu[None], "truth": item.truth[None], "others": others[None]}
    varied: dict[str, Any] = transform(arrays)
    hu = np.clip(np.asarray(varied["hu"][0], np.float32), *HU_RANGE)
    truth, others = (np.asarray(varied[key][0]).astype(np.uint8) for key in ("truth", "others"))
    return TrainingObject(hu, truth, item.kind, others)
