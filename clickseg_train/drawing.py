"""Which object is clicked next, and the batches that come of it.

Exercises end where a checkpoint is written, so that a resumed run goes on as the unbroken one would
have.
"""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.errors import DatasetError
from clickseg_infer.model_spec import ModelSpec
from clickseg_train import exercises
from clickseg_train.augment import Augmentation
from clickseg_train.case_cache import CaseCache
from clickseg_train.cases import Case, Dataset, LabelledObject
from clickseg_train.config import TrainConfig
from clickseg_train.exercises import Exercise
from clickseg_train.feeds import GROUPS, Feed
from clickseg_train.objects import KINDS, TrainingObject, draw_object


class Draw:
    """Draws objects: the kind by its share, then dataset, case and object."""

    def __init__(self, datasets: Sequence[Dataset], cache: CaseCache, config: TrainConfig) -> None:
        self._config = config
        self._cache = cache
        self._varied = threading.local()  # transforms keep state while they work
        self._scans = [dataset.train for dataset in datasets if dataset.train]
        self._labelled: list[list[tuple[Case, tuple[LabelledObject, ...]]]] = []
        weights = []
        for dataset in datasets:
            kept = {v for v, name in dataset.labels.items() if name in config.sampling.held_out}
            found = [
                (case, tuple(o for o in cache.objects(case) if o.value not in kept))
                for case in dataset.train
            ]
            found = [(case, objects) for case, objects in found if objects]
            if found:
                self._labelled.append(found)
                objects = sum(len(o) for _, o in found)
                weights.append(math.sqrt(objects) * config.sampling.weights.get(dataset.name, 1.0))
        shares = np.array([getattr(config.sampling, kind) for kind in KINDS], float)
        if not self._labelled:
            shares[KINDS.index("labels")] = 0
        if shares.sum() == 0:
            raise DatasetError("no training case has a label to learn from")
        self._shares = shares / shares.sum()
        self._weights = np.array(weights) / sum(weights)

    @property
    def labelled_objects(self) -> int:
        """How many objects the training cases hold."""
        return sum(len(objects) for found in self._labelled for _, objects in found)

    def __call__(self, rng: np.random.Generator) -> TrainingObject:
        """An object, varied; decided by `rng` alone."""
        if not hasattr(self._varied, "augmentation"):
            self._varied.augmentation = Augmentation()
        for _ in range(1000):
            item = self._draw(rng)
            if item is not None:
                item = self._varied.augmentation(item, rng)
                if item.truth.any():
                    return item
        raise DatasetError("1000 draws found no object: are the labels empty?")

    def _draw(self, rng: np.random.Generator) -> TrainingObject | None:
        sampling, size = self._config.sampling, self._config.patch_size
        kind = str(rng.choice(KINDS, p=self._shares))
        objects: tuple[LabelledObject, ...] = ()
        if kind == "labels":
            found = self._labelled[rng.choice(len(self._labelled), p=self._weights)]
            case, objects = found[rng.integers(len(found))]
        else:
            scans = self._scans[rng.integers(len(self._scans))]
            case = scans[rng.integers(len(scans))]
        return draw_object(rng, self._cache.load(case), kind, sampling, size, objects)


@dataclass(frozen=True, eq=False)
class Batch:
    """What the network learns from in one step.

    Attributes:
        inputs: (N, C, z, y, x) float32.
        truth: (N, 1, z, y, x) float32, 0 or 1.
        kinds: of each object.
        clicks: how many each object has so far.
    """

    inputs: NDArray[np.float32]
    truth: NDArray[np.float32]
    kinds: tuple[str, ...]
    clicks: tuple[int, ...]


class Batches(Feed[None]):
    """Exercises, whose next clicks are placed while the network learns from the other group."""

    def __init__(
        self, draw: Draw, spec: ModelSpec, config: TrainConfig, first_slot: int, workers: int
    ) -> None:
        super().__init__(config, first_slot, workers)
        self._draw, self._spec = draw, spec
        shape = (GROUPS, config.batch, len(spec.channels), *config.patch_size)
        self._inputs = np.empty(shape, np.float32)
        self._exercises: list[list[Exercise | None]] = [
            [None] * config.batch for _ in range(GROUPS)
        ]

    def take(self, step: int) -> Batch:
        """The batch of `step`; `answer` must be called before the next one of its group."""
        self._prepared(step)
        group = step % GROUPS
        current = [e for e in self._exercises[group] if e is not None]
        truth = np.stack([e.truth for e in current])[:, None].astype(np.float32)
        kinds, clicks = (e.kind for e in current), (len(e.clicks) for e in current)
        return Batch(self._inputs[group], truth, tuple(kinds), tuple(clicks))

    def answer(self, step: int, logits: NDArray[np.float32]) -> None:
        """Give the exercises of `step` their logits (N, 1, z, y, x), and prepare the next."""
        for exercise, found in zip(self._exercises[step % GROUPS], logits, strict=True):
            assert exercise is not None
            exercises.answer(exercise, found[0], self._spec.threshold_logit)
        super().answer(step, logits)

    def _prepare(self, step: int, slot: int, rng: np.random.Generator) -> None:
        config, group = self._config, step % GROUPS
        exercise = self._exercises[group][slot]
        every = config.checkpoint_every
        ended = step // every != (step - GROUPS) // every
        if exercise is None or ended or exercise.rounds >= config.sampling.clicks:
            exercise = exercises.start(rng, self._spec, self._draw(rng))
            self._exercises[group][slot] = exercise
        exercises.prepare(exercise, rng, self._spec, self._inputs[group][slot])
