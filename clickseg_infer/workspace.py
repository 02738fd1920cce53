"""What answers on one volume keep for each other, and never show."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.file_grid import Index
from clickseg_infer.refinement.tuning import Tuning

_KEPT = 4  # patches of a final answer, each four to seven bytes for every voxel


@dataclass(frozen=True, eq=False)
class Seen:
    """What the network made of a patch.

    Attributes:
        logits: (z, y, x). Made read-only.
        plain: what they were before the network was tuned; the same where it was not. Likewise.
        chances: (1 + structures, z, y, x) of cells: which structure is where, if that was asked
            for. Likewise.
        tuning: what f-BRS found, if it searched.
        evaluations: that it took.
        cut_short: whether a budget ended the search before it was over.
    """

    logits: NDArray[np.float32]
    plain: NDArray[np.float32]
    chances: NDArray[np.float32] | None = None
    tuning: Tuning | None = None
    evaluations: int = 0
    cut_short: bool = False

    def __post_init__(self) -> None:
        self.logits.flags.writeable = self.plain.flags.writeable = False
        if self.chances is not None:
            self.chances.flags.writeable = False

    @property
    def cell_size(self) -> int:
        """Voxels along an axis of a cell of `chances`, which must be there."""
        assert self.chances is not None
        cells: int = self.chances.shape[1]
        return len(self.logits) // cells


class Workspace:
    """A buffer for the network's input, and what patches that ran lately gave.

    Belongs to one model, one volume and one thread. It changes what an answer costs, never the
    answer.

    Attributes:
        drawn: the positive and the negative clicks whose disks the buffer holds; None if unknown.
    """

    def __init__(self) -> None:
        self.drawn: tuple[Sequence[Index], Sequence[Index]] | None = None
        self._batch = np.empty(0, np.float32)
        self._before: dict[Hashable, Seen] = {}
        self._now: dict[Hashable, Seen] = {}

    def begin(self) -> None:
        """Begin another answer: patches that served neither this one nor the one before may go."""
        self._before, self._now = self._now, {}

    def trim(self) -> None:
        """The answer is final: of its patches only the last few stay."""
        self._now = dict(list(self._now.items())[-_KEPT:])
        self._before = {}

    def batch(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """An array of `shape`, float32, as it was left; the same one every time."""
        if self._batch.shape != shape:
            self._batch, self.drawn = np.empty(shape, np.float32), None
        return self._batch

    def recall(self, key: Hashable) -> Seen | None:
        """What was kept under `key`, or None."""
        known = self._now.get(key, self._before.get(key))
        if known is not None:
            self._now[key] = known
        return known

    def keep(self, key: Hashable, seen: Seen) -> None:
        """Keep what the network made of a patch."""
        self._now[key] = seen
