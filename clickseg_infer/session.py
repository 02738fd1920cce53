"""A session: the clicks on one object, and the way back. It remembers; it never computes."""

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.clicks import Click, Clicks
from clickseg_infer.file_grid import Index
from clickseg_infer.model import Model
from clickseg_infer.predicting import predict
from clickseg_infer.prediction import Prediction
from clickseg_infer.volume import Volume


class Session:
    """Clicks on one object of one volume.

    Every answer equals `predict(model, volume, session.clicks)`; answers are kept as the boxes that
    their masks fill, so undo and redo compute nothing.
    """

    def __init__(self, model: Model, volume: Volume) -> None:
        self.model = model
        self.volume = volume
        self._answers = [Prediction((), volume.shape)]
        self._undone: list[Prediction] = []

    @property
    def clicks(self) -> Clicks:
        """The clicks so far, in order."""
        return self.prediction.clicks

    @property
    def prediction(self) -> Prediction:
        """The latest answer: mask, the box that changed, patches and milliseconds."""
        return self._answers[-1]

    @property
    def mask(self) -> NDArray[np.uint8]:
        """The mask (z, y, x) uint8, 0 or 1, of the volume's shape; empty before the first click."""
        return self.prediction.mask

    def click(self, zyx: Index, positive: bool = True) -> NDArray[np.uint8]:
        """Add a click at voxel (z, y, x) and return the mask; what was undone is forgotten.

        Raises:
            ClickError: not a voxel, outside the volume, contradicts an earlier click, or a
                negative click before any positive one. The session stays as it was.
            EngineError: the engine failed. The session stays as it was.
        """
        clicks = (*self.clicks, Click(zyx, positive))
        self._answers.append(predict(self.model, self.volume, clicks, self.prediction))
        self._undone.clear()
        return self.mask

    def undo(self) -> bool:
        """Take the latest click back; False if there is none."""
        if len(self._answers) == 1:
            return False
        self._undone.append(self._answers.pop())
        return True

    def redo(self) -> bool:
        """Repeat the click that was undone last; False if there is none."""
        if not self._undone:
            return False
        self._answers.append(self._undone.pop())
        return True

    def reset(self) -> None:
        """Forget all clicks."""
        del self._answers[1:]
        self._undone.clear()
