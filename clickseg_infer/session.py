"""A session: the clicks on one object, and the way back. It remembers; it never computes."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.boxes import Box
from clickseg_infer.clicks import Click, Clicks
from clickseg_infer.errors import ClickError, VolumeError
from clickseg_infer.file_grid import Index
from clickseg_infer.model import Model
from clickseg_infer.predicting import check_budget, predict
from clickseg_infer.prediction import Packed, Prediction, difference, from_mask, pack
from clickseg_infer.volume import Volume
from clickseg_infer.workspace import Workspace


class Session:
    """Clicks on one object of one volume.

    However the clicks came about, every final answer equals `predict(model, volume, session.clicks,
    session.start)`.
    Earlier answers are kept packed, so that undo and redo compute nothing and copy no volume.
    Not for several threads at once.

    Attributes:
        model: the network and its spec.
        volume: the scan.
        changed: the smallest box that holds every voxel that the latest action changed, or None.
        start: the answer to no clicks: the mask that the session began with.
    """

    def __init__(self, model: Model, volume: Volume, mask: NDArray[Any] | None = None) -> None:
        """Begin with an empty mask, or with an existing one to be corrected.

        Args:
            model: the network and its spec; not closed by the session.
            volume: the scan. Not modified.
            mask: (z, y, x) of the volume's shape, nonzero on the object. Copied.

        Raises:
            VolumeError: a mask of another shape than the volume's.
        """
        if mask is not None and mask.shape != volume.shape:
            raise VolumeError(
                f"the mask's shape {mask.shape} differs from the volume's {volume.shape}"
            )
        self.model = model
        self.volume = volume
        self.changed: Box | None = None
        self.start = Prediction((), volume.shape) if mask is None else from_mask(mask)
        self._current = self.start
        self._past: list[Packed] = []
        self._future: list[Packed] = []
        self._between: list[Packed] = []  # final answers that were computed on the way, never shown
        self._workspace = Workspace()

    @property
    def clicks(self) -> Clicks:
        """The clicks so far, in order."""
        return self._current.clicks

    @property
    def prediction(self) -> Prediction:
        """The latest answer: its mask as the box that it fills, patches and milliseconds."""
        return self._current

    @property
    def mask(self) -> NDArray[np.uint8]:
        """The mask (z, y, x) uint8, 0 or 1, of the volume's shape, newly made."""
        return self._current.mask

    @property
    def final(self) -> bool:
        """Whether the latest answer is all that there is; if not, `refine` goes on."""
        return self._current.final

    @property
    def can_undo(self) -> bool:
        """Whether `undo` would take something back."""
        return bool(self._past)

    @property
    def can_redo(self) -> bool:
        """Whether `redo` would repeat something."""
        return bool(self._future)

    def click(
        self, zyx: Index, positive: bool = True, *, budget_ms: float | None = None
    ) -> NDArray[np.uint8]:
        """Add a click at voxel (z, y, x) and return the mask; what was undone is forgotten.

        With a budget the mask is the best after about so many milliseconds, and `final` says
        whether there is more to it.

        Raises:
            ClickError: not a voxel, outside the volume, contradicts an earlier click, a negative
                click on an empty mask before any positive one, or a budget that is not positive.
                The session stays as it was.
            EngineError: the engine failed. The session stays as it was.
        """
        return self._go_to((*self.clicks, Click(zyx, positive)), budget_ms)

    def remove(self, number: int) -> NDArray[np.uint8]:
        """Take back the click with that number, from 0, and return the mask of the others.

        It can be undone like a click.

        Raises:
            ClickError: there is no such click, or only negative ones would be left. The session
                stays as it was.
            EngineError: the engine failed. The session stays as it was.
        """
        if not 0 <= number < len(self.clicks):
            raise ClickError(f"there is no click {number}, there are {len(self.clicks)} from 0")
        return self._go_to(self.clicks[:number] + self.clicks[number + 1 :], None)

    def set_clicks(self, clicks: Sequence[Click]) -> NDArray[np.uint8]:
        """Have these clicks instead of the present ones, and return the mask.

        It can be undone like a click.

        Raises:
            ClickError: they cannot be answered. The session stays as it was.
            EngineError: the engine failed. The session stays as it was.
        """
        return self._go_to(tuple(clicks), None)

    def refine(self, budget_ms: float | None = None) -> NDArray[np.uint8]:
        """Go on with an answer that a budget cut short, and return the mask.

        Raises:
            ClickError: a budget that is not positive.
            EngineError: the engine failed. The session stays as it was.
        """
        check_budget(budget_ms)
        self._show(self._current if self.final else self._answer(self.clicks, budget_ms))
        return self.mask

    def undo(self) -> bool:
        """Take the latest click or removal back; False if there is none."""
        if not self._past:
            self.changed = None
            return False
        self._future.append(pack(self._current))
        self._show(self._past.pop().unpack())
        return True

    def redo(self) -> bool:
        """Repeat what was undone last; False if there is nothing."""
        if not self._future:
            self.changed = None
            return False
        self._past.append(pack(self._current))
        self._show(self._future.pop().unpack())
        return True

    def reset(self) -> None:
        """Forget all clicks, and go back to the mask that the session began with."""
        self._past.clear()
        self._future.clear()
        self._between.clear()
        self._show(self.start)

    def rest(self) -> None:
        """Let go of the memory that only makes the next click faster."""
        self._workspace = Workspace()

    def each_answer(self, clicks: Sequence[Click] | None = None) -> Iterator[Prediction]:
        """The final answer after each click, computed where it is not remembered.

        The first is that to the clicks up to the first one that can be answered.

        Args:
            clicks: to answer; the session's own without them.

        Raises:
            ClickError: they cannot be answered.
            EngineError: the engine failed.
        """
        clicks = self.clicks if clicks is None else tuple(clicks)
        first = max(1, min(self._first_answer(clicks), len(clicks)))
        for count in range(first, len(clicks) + 1):
            answer = self._answer(clicks[:count], None)
            self._remember(answer)
            yield answer

    def _go_to(self, clicks: Clicks, budget_ms: float | None) -> NDArray[np.uint8]:
        check_budget(budget_ms)
        answer = self._answer(clicks, budget_ms)
        self._past.append(pack(self._current))
        self._future.clear()
        self._show(answer)
        return self.mask

    def _show(self, answer: Prediction) -> None:
        self.changed = None if answer is self._current else difference(self._current, answer)
        self._current = answer
        # What the answer builds on stays: a refinement, a removal or a recording may ask for it.
        self._between = [a for a in self._between if a.clicks == answer.clicks[: len(a.clicks)]]

    def _answer(self, clicks: Clicks, budget_ms: float | None) -> Prediction:
        """The answer to `clicks`, from the longest beginning of them that has been answered.

        Answers on the way are remembered: where a budget ends early, they are not lost.
        """
        known = self._longest_known(clicks)
        if known.clicks == clicks:
            return known
        return predict(
            self.model,
            self.volume,
            clicks,
            known,
            budget_ms=budget_ms,
            workspace=self._workspace,
            on_the_way=self._remember,
        )

    def _remember(self, answer: Prediction) -> None:
        """Keep a final answer that is not shown."""
        early = len(answer.clicks) < self._first_answer(answer.clicks)
        if not early and all(known.clicks != answer.clicks for known in self._known()):
            self._between.append(pack(answer))

    def _known(self) -> list[Prediction | Packed]:
        """All final answers that are remembered."""
        shown: list[Prediction | Packed] = [self.start, self._current]
        everything = [*shown, *self._past, *self._future, *self._between]
        return [answer for answer in everything if answer.final]

    def _longest_known(self, clicks: Clicks) -> Prediction:
        beginnings = [a for a in self._known() if a.clicks == clicks[: len(a.clicks)]]
        longest = max(beginnings, key=lambda answer: len(answer.clicks))
        return longest.unpack() if isinstance(longest, Packed) else longest

    def _first_answer(self, clicks: Clicks) -> int:
        """How many of the clicks it takes until there is something to answer."""
        if self.start.box is not None:
            return 1
        placed = enumerate(clicks, start=1)
        return next((n for n, click in placed if click.positive), len(clicks) + 1)
