"""Batches prepared by threads while the network learns from others.

Every random choice comes from (seed, step, slot), whichever thread makes it. Slots stand in two
groups: while the network learns from one, the other is prepared.
"""

from abc import ABC, abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from clickseg_train.config import TrainConfig

GROUPS = 2
Prepared = TypeVar("Prepared")


class Feed(ABC, Generic[Prepared]):
    """Gives the batches of a run; a context manager that stops the threads."""

    def __init__(self, config: TrainConfig, first_slot: int, workers: int) -> None:
        """Nothing is prepared yet.

        Args:
            config: of the run.
            first_slot: the number, among those of all processes, of this one's first slot.
            workers: how many threads prepare.
        """
        self._config, self._first = config, first_slot
        self._waiting: list[list[Future[Prepared]]] = [[] for _ in range(GROUPS)]
        self._pool = ThreadPoolExecutor(workers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def begin(self, step: int) -> None:
        """Prepare the first GROUPS batches, from `step` on."""
        for ahead in range(GROUPS):
            self._submit(step + ahead)

    @abstractmethod
    def take(self, step: int) -> Any:
        """The batch of `step`; `answer` must be called before the next one of its group.

        Its `inputs`, (N, C, z, y, x) float32, are what the taught part is called with.
        """

    def answer(self, step: int, logits: NDArray[np.float32]) -> None:
        """Take what the network answered to `step`'s batch, and prepare the next of its group."""
        del logits
        self._submit(step + GROUPS)

    @abstractmethod
    def _prepare(self, step: int, slot: int, rng: np.random.Generator) -> Prepared:
        """Prepare one slot of `step`'s batch, decided by `rng`; called by a thread."""

    def _prepared(self, step: int) -> list[Prepared]:
        """What was prepared for `step`, slot by slot."""
        return [waiting.result() for waiting in self._waiting[step % GROUPS]]

    def _submit(self, step: int) -> None:
        slots = range(self._config.batch)
        rngs = [np.random.default_rng([self._config.seed, step, self._first + n]) for n in slots]
        self._waiting[step % GROUPS] = [
            self._pool.submit(self._prepare, step, slot, rng)
            for slot, rng in zip(slots, rngs, strict=True)
        ]
