"""What f-BRS changes of the network, and what came of it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Tuning:
    """What features are multiplied by, and what is added to them: (C,) float32 each."""

    scale: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True)
class Refinement:
    """How an answer came to obey its clicks.

    Attributes:
        patches: in which the network disagreed with a click and was tuned.
        evaluations: of the loss, in all of them.
        corrected: clicks that still had to be obeyed by a small ball around them.
        far_voxels: of the mask, which all this changed farther than 20 mm from every click.
    """

    patches: int = 0
    evaluations: int = 0
    corrected: int = 0
    far_voxels: int = 0
