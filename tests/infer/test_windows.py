"""Cutting a head's inputs out of the network's tensors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickseg_infer.refinement.heads import Level, Shape
from clickseg_infer.refinement.windows import (
    WINDOW,
    cells_of,
    input_shapes,
    voxels_of,
    window_inputs,
)

PATCH = (64, 32, 48)
DECODER = Level("decoder", 4, 16, 2, "low_level", 3)
SHAPES = {
    "coarse": Shape("context", 5, 16, (DECODER, Level("voxels", 1, 4, 0, "", 0))),
    "middle": Shape(
        "context",
        5,
        16,
        (
            Level("middle", 8, 16, 0, "middle_skip", 2, whole=True),
            Level("decoder", 4, 8, 2, "low_level", 3),
            Level("refine", 2, 4, 1, "stem", 4),
            Level("detail", 2, 2, 1, "cells", 6),
        ),
    ),
    "decoded": Shape("decoded", 5, 2, (Level("detail", 2, 2, 1, "cells", 6),)),
}


def tensors_for(shape: Shape, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        name: rng.normal(size=size).astype(np.float32)
        for name, size in shape.tensor_shapes(PATCH).items()
    }


@given(
    count=st.integers(1, 3),
    sizes=st.tuples(*[st.integers(1, 3)] * 3),
    cell=st.sampled_from([1, 2, 4]),
)
def test_cells_and_voxels_are_ways_to_say_the_same(count: int, sizes: tuple, cell: int) -> None:
    shape = (count, *(n * cell for n in sizes))
    voxels = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    cells = cells_of(voxels, cell)
    assert cells.shape == (count, cell**3, *sizes)
    assert np.array_equal(voxels_of(cells, cell), voxels)
    assert np.array_equal(cells[0, :, 0, 0, 0], voxels[0, :cell, :cell, :cell].ravel())


@pytest.mark.parametrize("size", [WINDOW, PATCH], ids=["window", "patch"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_shapes_are_those_of_the_inputs(
    shape: Shape, size: tuple[int, int, int], rng: np.random.Generator
) -> None:
    starts = [(0, 0, 0), (-2, 8, 40), (58, 26, 42)]
    inputs = window_inputs(shape, PATCH, tensors_for(shape, rng), starts, size)
    assert set(inputs) | {"scale", "bias"} == set(shape.inputs)
    d_cells = cells_of(np.zeros((3, *size), np.float32), shape.cell)
    everything = {name: array.shape for name, array in {**inputs, "d_logits": d_cells}.items()}
    everything |= {"scale": (5,), "bias": (5,)}
    assert input_shapes(shape, PATCH, size, 3) == everything
    left_open = input_shapes(shape, PATCH, size, -1)
    assert {name for name, sizes in left_open.items() if sizes[0] == -1} == shape.windowed_inputs
    assert all(array.dtype == np.float32 for array in inputs.values())


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_windows_are_cut_for_themselves(shape: Shape, rng: np.random.Generator) -> None:
    """What one window gets does not depend on which others are asked for."""
    tensors = tensors_for(shape, rng)
    starts = [(0, 0, 0), (-2, 8, 40), (58, 26, 42)]
    together = window_inputs(shape, PATCH, tensors, starts, WINDOW)
    for number, start in enumerate(starts):
        alone = window_inputs(shape, PATCH, tensors, [start], WINDOW)
        for name, array in alone.items():
            mine = slice(number, number + 1) if name in shape.windowed_inputs else slice(None)
            assert np.array_equal(array, together[name][mine]), name


def test_beyond_the_patch_is_nothing(rng: np.random.Generator) -> None:
    shape = SHAPES["decoded"]
    tensors = tensors_for(shape, rng)
    inputs = window_inputs(shape, PATCH, tensors, [(-2, 0, 42)], WINDOW)
    # Cells of stride 2: a window of three, and one more to each side for the convolution.
    assert inputs["features"].shape == (1, 5, 5, 5, 5)
    inside = np.zeros((5, 5, 5), bool)
    inside[2:, 1:, :4] = True
    assert np.array_equal(inputs["features_inside"][0, 0] == 1, inside)
    assert not inputs["features"][0][:, ~inside].any()
    kept = inputs["features"][0][:, 2:, 1:, :4]
    assert np.array_equal(kept, tensors["decoded"][0, :, :3, :4, 20:24])


def test_matrices_interpolate_as_torch_does(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    shape = SHAPES["coarse"]
    tensors = tensors_for(shape, rng)
    inputs = window_inputs(shape, PATCH, tensors, [(0, 0, 0)], PATCH)
    matrices = [inputs[f"decoder_{axis}"][0] for axis in "zyx"]
    ours = np.einsum("ai,bj,ck,nijk->nabc", *matrices, tensors["context"][0])
    grid = tuple(n // 4 for n in PATCH)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(tensors["context"]), size=grid, mode="trilinear", align_corners=False
    )
    assert ours[:, 3:-3, 3:-3, 3:-3] == pytest.approx(theirs[0].numpy(), abs=1e-5)
    border = ours.copy()
    border[:, 3:-3, 3:-3, 3:-3] = 0
    assert not border.any()
