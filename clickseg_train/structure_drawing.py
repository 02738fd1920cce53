"""Which patch is learnt from next, with all its structures, and the batches that come of it."""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.errors import DatasetError
from clickseg_infer.model_spec import ModelSpec
from clickseg_train.augment import Augmentation
from clickseg_train.case_cache import CaseCache
from clickseg_train.cases import Case, Dataset
from clickseg_train.config import TrainConfig
from clickseg_train.feeds import Feed
from clickseg_train.objects import in_windows
from clickseg_train.structures import StructurePatch, cell_shares, class_of, draw_patch, varied

_Slot = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]
"""Inputs, shares and what is named, of one patch of a `StructureBatch`."""


class StructureDraw:
    """Draws patches: the dataset by its share, then the case, then where."""

    def __init__(self, datasets: Sequence[Dataset], cache: CaseCache, config: TrainConfig) -> None:
        self._config, self._cache = config, cache
        self._varied = threading.local()  # transforms keep state while they work
        self._classes = len(config.network.classes) + 1
        self._sources: list[tuple[tuple[Case, ...], NDArray[np.uint8], NDArray[np.bool_]]] = []
        weights = []
        self.labelled_objects = 0
        for dataset in datasets:
            cases = tuple(case for case in dataset.train if case.label)
            found = [o.value for case in cases for o in cache.objects(case)]
            values = np.zeros(1 + max(found, default=0), np.uint8)
            for value, name in dataset.labels.items():
                if value < len(values) and name not in config.sampling.held_out:
                    values[value] = class_of(name, config.network.classes)
            classes = values[found]
            objects = int((classes > 0).sum())
            if objects:
                named = np.isin(np.arange(self._classes), classes[classes > 0])
                self._sources.append((cases, values, named))
                weights.append(math.sqrt(objects) * config.sampling.weights.get(dataset.name, 1.0))
                self.labelled_objects += objects
        if not self._sources:
            raise DatasetError("no training case has a label among network.structures and lesions")
        self._weights = np.array(weights) / sum(weights)

    def __call__(self, rng: np.random.Generator) -> tuple[StructurePatch, NDArray[np.bool_]]:
        """A patch, varied, and which classes its dataset names; decided by `rng` alone."""
        if not hasattr(self._varied, "augmentation"):
            self._varied.augmentation = Augmentation()
        config = self._config
        cases, values, named = self._sources[rng.choice(len(self._sources), p=self._weights)]
        case = self._cache.load(cases[rng.integers(len(cases))])
        patch = draw_patch(rng, case, values, config.sampling.spacing_mm, config.patch_size)
        return varied(patch, self._varied.augmentation, rng), named


@dataclass(frozen=True, eq=False)
class StructureBatch:
    """What the structure branch learns from in one step.

    Attributes:
        inputs: (N, W, z, y, x) float32, one channel for each HU window.
        shares: (N, C, cells along z, y, x) float32, of each class in each cell; class 0 has no
            name.
        named: (N, C), whether the patch's dataset names the class.
    """

    inputs: NDArray[np.float32]
    shares: NDArray[np.float32]
    named: NDArray[np.bool_]


class StructureBatches(Feed[_Slot]):
    """Batches of patches; what the network answers changes nothing."""

    def __init__(
        self,
        draw: StructureDraw,
        spec: ModelSpec,
        config: TrainConfig,
        first_slot: int,
        workers: int,
    ) -> None:
        super().__init__(config, first_slot, workers)
        self._draw, self._spec = draw, spec

    def take(self, step: int) -> StructureBatch:
        """The batch of `step`."""
        inputs, shares, named = zip(*self._prepared(step), strict=True)
        return StructureBatch(np.stack(inputs), np.stack(shares), np.stack(named))

    def _prepare(self, step: int, slot: int, rng: np.random.Generator) -> _Slot:
        del step, slot
        patch, named = self._draw(rng)
        shares = cell_shares(patch.classes, len(named), self._config.network.structure_cell)
        return in_windows(patch.hu, self._spec.hu_windows.values()), shares, named
