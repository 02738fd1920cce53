from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins import make_spec

import clickseg_infer as cs
from clickseg_infer.look import Run, sweep_logits
from clickseg_infer.patches import cover
from clickseg_infer.resample import network_grid, to_network
from clickseg_infer.stitch import UNCOVERED, blend, gaussian_weights


def all_weights(patch: tuple) -> np.ndarray:
    z, y, x, least = gaussian_weights(patch)
    return np.maximum(z[:, None, None] * y[:, None] * x, least)


def naive_blend(logits: list, starts: list, shape: tuple, origin: tuple) -> np.ndarray:
    """In float64, with a volume of weights, on a block that is wide enough for every patch."""
    margin = 50
    total, weight = np.zeros((2, *np.add(shape, 2 * margin)))
    for patch, start in zip(logits, starts, strict=True):
        at = tuple(
            slice(s - o + margin, s - o + margin + n)
            for s, o, n in zip(start, origin, patch.shape, strict=True)
        )
        total[at] += all_weights(patch.shape) * patch
        weight[at] += all_weights(patch.shape)
    inside = (slice(margin, -margin),) * 3
    covered = weight[inside] > 0
    return np.divide(
        total[inside], weight[inside], where=covered, out=np.full(shape, UNCOVERED, float)
    )


triples = st.tuples(*[st.integers(1, 14)] * 3)
places = st.tuples(*[st.integers(-16, 16)] * 3)


@settings(max_examples=80, deadline=None)
@given(triples, triples, places, st.lists(places, max_size=6))
def test_patches_anywhere_blend_as_in_float64(
    shape: tuple, patch: tuple, origin: tuple, starts: list
) -> None:
    rng = np.random.default_rng(len(starts))
    logits = [rng.normal(size=patch).astype(np.float32) for _ in starts]
    blended = blend(iter(logits), starts, shape, origin)
    assert blended.dtype == np.float32
    assert np.allclose(blended, naive_blend(logits, starts, shape, origin), atol=1e-5)


def test_a_patch_alone_is_returned_as_it_is() -> None:
    patch = np.random.default_rng(0).normal(size=(6, 7, 8)).astype(np.float32)
    assert blend([patch], [(3, 4, 5)], (6, 7, 8), (3, 4, 5)) is patch
    inside = blend(iter([patch]), [(3, 4, 5)], (8, 9, 9), (2, 3, 5))
    assert np.allclose(inside[1:7, 1:8, :8], patch, atol=1e-6)
    assert (inside[0] == UNCOVERED).all()


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5])
def test_a_constant_stays_constant_borders_included(overlap: float) -> None:
    shape, patch = (25, 30, 17), (8, 10, 12)
    starts = cover(shape, patch, overlap)
    blended = blend([np.full(patch, 3.5, np.float32)] * len(starts), starts, shape, (0, 0, 0))
    assert blended == pytest.approx(np.full(shape, 3.5), abs=1e-5)


def test_what_no_patch_covers_is_outside() -> None:
    blended = blend([np.ones((4, 4, 4), np.float32)], [(10, 10, 10)], (6, 6, 6), (9, 9, 9))
    assert (blended[1:5, 1:5, 1:5] == 1).all()
    assert (blended == UNCOVERED).sum() == 6**3 - 4**3


@pytest.mark.parametrize("patch", [(8, 8, 8), (16, 12, 20), (7, 9, 96)])
def test_weights_are_monais(patch: tuple) -> None:
    data = pytest.importorskip("monai.data.utils")
    expected = data.compute_importance_map(patch, mode="gaussian", sigma_scale=0.125)
    assert all_weights(patch) == pytest.approx(expected.numpy(), abs=1e-6)


def convolution(channels: int) -> Callable[[object], object]:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv3d(channels, 6, 5, padding=2), torch.nn.ReLU(), torch.nn.Conv3d(6, 1, 3)
    )
    pad = torch.nn.ConstantPad3d(1, 0.3)  # what a patch's border sees differs from its middle

    def run(batch: object) -> object:
        with torch.no_grad():
            return pad(network(batch))

    return run


@pytest.mark.parametrize("shape", [(70, 81, 64), (40, 100, 20), (30, 20, 25)])
@pytest.mark.parametrize("overlap", [0.25, 0.5])
def test_whole_volume_equals_monai(shape: tuple, overlap: float, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    inferers = pytest.importorskip("monai.inferers")
    spec = make_spec(
        overlap=overlap,
        spacing_mm=(2.0, 2.0, 2.0),
        channels=("ct", "positive", "negative", "previous"),
    )
    run = convolution(4)

    def engine(batch: np.ndarray) -> np.ndarray:
        return run(torch.from_numpy(batch)).numpy()

    voxels = rng.integers(-300, 300, shape).astype(np.int16)
    volume = cs.Volume(voxels, np.diag([1.5, 1.7, 2.5, 1.0]))
    # Away from the border: where a disk reaches beyond the volume, MONAI's padding has none of it.
    third = np.array(shape) // 3
    clicks = tuple(
        cs.Click(tuple(int(p) for p in rng.integers(third, 2 * third)), positive)
        for positive in (True, True, False)
    )
    model = cs.Model(spec, cs.FunctionEngine(engine))
    grid = network_grid(shape, volume.spacing_mm, spec.spacing_mm)
    ours = sweep_logits(Run(model, volume), grid, clicks, cs.Prediction((), shape))

    channels = np.zeros((4, *grid.shape), np.float32)
    to_network(voxels, grid, (0, 0, 0), [(-200, 200)], channels[:1])
    at = np.indices(grid.shape)
    for click in clicks:
        centre = [int(np.floor(p + 0.5)) for p in grid.of_volume(click.zyx)]
        near = ((at - np.reshape(centre, (3, 1, 1, 1))) ** 2).sum(0) <= spec.click_radius**2
        channels[1 if click.positive else 2][near] = 1
    # Beyond the volume lies air for the CT and nothing for the other channels.
    shift = torch.tensor([-1.0, 0, 0, 0]).reshape(1, 4, 1, 1, 1)
    theirs = inferers.sliding_window_inference(
        torch.from_numpy(channels)[None] - shift,
        spec.patch_size,
        1,
        lambda patch: run(patch + shift),
        overlap=overlap,
        mode="gaussian",
        sigma_scale=0.125,
        padding_mode="constant",
        cval=0.0,
    )
    assert ours.shape == grid.shape
    assert np.abs(ours - theirs[0, 0].numpy()).max() <= 1e-4
    assert ours.std() > 0.05
