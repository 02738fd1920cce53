"""A graph's inputs by name: the shapes that it takes, -1 where a size is open, and what fits."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.errors import EngineError

Shapes = Mapping[str, tuple[int, ...]]


def narrowed(graph: Shapes, wanted: Shapes) -> dict[str, tuple[int, ...]]:
    """The wanted shapes, which may fix sizes that are open in the graph.

    Raises:
        EngineError: other names, ranks or sizes than the graph's, or an open size that is not the
            first.
    """
    first_only = all(-1 not in shape[1:] for shape in wanted.values())
    if not (first_only and _fits(graph, wanted)):
        raise EngineError(f"the model takes {_told(graph)} and is asked to take {_told(wanted)}")
    return {name: tuple(wanted[name]) for name in graph}


def checked(
    takes: Shapes, inputs: Mapping[str, NDArray[np.float32]]
) -> dict[str, NDArray[np.float32]]:
    """The inputs in C order, copied only where they are not.

    Raises:
        EngineError: other names or shapes than those that are taken.
    """
    given = {name: np.shape(array) for name, array in inputs.items()}
    if not _fits(takes, given):
        raise EngineError(f"the model takes {_told(takes)}, not {_told(given)}")
    return {name: np.asarray(inputs[name], np.float32, order="C") for name in takes}


def only_input(takes: Shapes) -> str:
    """The name of the one input.

    Raises:
        EngineError: there are others.
    """
    if len(takes) != 1:
        raise EngineError(f"the model takes {_told(takes)}, not one input")
    return next(iter(takes))


def _fits(takes: Shapes, given: Shapes) -> bool:
    return takes.keys() == given.keys() and all(
        len(sizes) == len(given[name])
        and all(size in (-1, have) for size, have in zip(sizes, given[name], strict=True))
        for name, sizes in takes.items()
    )


def _told(shapes: Mapping[str, Sequence[int]]) -> str:
    return ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items()) or "nothing"
