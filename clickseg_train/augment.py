"""Variations of a training object: contrast, orientation, shape, sharpness, noise, HU scale."""

from dataclasses import replace
from typing import Any

import numpy as np
from monai.transforms import (
    Compose,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandGridDistortiond,
    RandRotate90d,
    RandScaleIntensityd,
    RandShiftIntensityd,
)
from numpy.typing import NDArray
from scipy import ndimage

from clickseg_train.objects import HU_RANGE, TrainingObject

_ALL = ("hu", "truth", "others")
_MODES = ("bilinear", "nearest", "nearest")
_SOME: Any = {"allow_missing_keys": True}  # an object may have no others beside it
_QUARTER_TURNS = ((0, 1), (1, 2), (0, 2))
_TURNED = 0.25  # chance that a labelled patch is turned as no patient lies
_ENHANCED = 0.3  # chance that an object takes up more or less contrast agent than it did
_ENHANCEMENT_HU = 40.0


class Augmentation:
    """The transforms of one run; each object is varied by its own generator alone."""

    def __init__(self) -> None:
        self._left_right = Compose([RandFlipd(_ALL, prob=0.5, spatial_axis=2, **_SOME)])
        self._any_way = Compose(
            [
                *(RandFlipd(_ALL, prob=0.5, spatial_axis=axis, **_SOME) for axis in range(3)),
                *(
                    RandRotate90d(_ALL, prob=0.5, spatial_axes=axes, **_SOME)
                    for axes in _QUARTER_TURNS
                ),
            ]
        )
        self._rest = Compose(
            [
                RandAffined(
                    _ALL,
                    prob=0.4,
                    rotate_range=(0.3, 0.3, 0.3),
                    shear_range=(0.1, 0.1, 0.1),
                    scale_range=(0.2, 0.2, 0.2),
                    mode=_MODES,
                    padding_mode="border",
                    **_SOME,
                ),
                RandGridDistortiond(
                    _ALL,
                    prob=0.25,
                    distort_limit=0.25,
                    mode=_MODES,
                    padding_mode="border",
                    **_SOME,
                ),
                RandGaussianSmoothd("hu", prob=0.2, sigma_x=(0.3, 0.9)),
                RandGaussianNoised("hu", prob=0.4, std=30.0),
                RandScaleIntensityd("hu", factors=0.1, prob=0.4),
                RandShiftIntensityd("hu", offsets=20.0, prob=0.4),
            ],
            lazy=False,
        )

    def __call__(
        self, item: TrainingObject, rng: np.random.Generator, *, enhance: bool = True
    ) -> TrainingObject:
        """A variation of `item`; patches must be cubes to be turned.

        Patients lie as the volume's axes say, so a label is mostly only mirrored. A pseudo-object
        has no orientation. Without `enhance` contrast stays as it is, and
        `truth` may hold any values.
        """
        if enhance:
            item = _enhanced(item, rng)
        given = {key: getattr(item, key) for key in _ALL}
        arrays: Any = {key: array[None] for key, array in given.items() if array is not None}
        turned = item.kind != "labels" or rng.random() < _TURNED
        for transform in (self._any_way if turned else self._left_right, self._rest):
            transform.set_random_state(seed=int(rng.integers(2**31)))
            arrays = transform(arrays)
        hu = np.clip(np.asarray(arrays["hu"][0], np.float32), *HU_RANGE)
        masks = {key: np.asarray(arrays[key][0]).astype(np.uint8) for key in arrays if key != "hu"}
        return TrainingObject(hu, masks["truth"], item.kind, masks.get("others"))


def _enhanced(item: TrainingObject, rng: np.random.Generator) -> TrainingObject:
    """The object, or those around it, brighter or darker, as in another phase of contrast."""
    hu = item.hu
    for mask in (item.truth, item.others):
        if item.kind == "labels" and mask is not None and rng.random() < _ENHANCED:
            hu = hu + rng.normal(0, _ENHANCEMENT_HU) * _soft(mask, rng.uniform(0.5, 1.0))
    return replace(item, hu=hu.astype(np.float32, copy=False))


def _soft(mask: NDArray[np.uint8], sigma: float) -> NDArray[np.float32]:
    return ndimage.gaussian_filter(mask.astype(np.float32), sigma)
