import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import clickseg_infer as cs
from clickseg_infer.prediction import Prediction, from_mask
from clickseg_infer.resample import network_grid
from clickseg_infer.weighing import weighed

SHAPE, ORIGIN = (9, 10, 11), (2, 1, 3)
SPACING = (3.0, 1.5, 2.0)


def after(
    click: cs.Click,
    known: Prediction,
    logits: np.ndarray,
    threshold: float = 0.0,
    late: bool = False,
) -> np.ndarray:
    """Logits of a block at ORIGIN in a volume that has the network's own spacing."""
    grid = network_grid(known.shape, SPACING, SPACING)
    return weighed(logits, ORIGIN, grid, SPACING, click, known, threshold, late=late)


def in_volume(mask: np.ndarray) -> Prediction:
    return from_mask(np.pad(mask, [(low, 2) for low in ORIGIN]))


def distances(to: np.ndarray) -> np.ndarray:
    places = np.indices(SHAPE).reshape(3, -1).T * SPACING
    away = np.linalg.norm(places[:, None] - np.argwhere(to) * SPACING, axis=-1)
    return away.min(axis=1).reshape(SHAPE)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.booleans(), st.floats(0.005, 0.9))
def test_logits_move_by_their_distances_beside_the_clicks(
    seed: int, positive: bool, late: bool, filled: float
) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random(SHAPE) < filled
    mask.flat[rng.choice(mask.size, 2, replace=False)] = True, False
    place = rng.choice(np.argwhere(mask != positive))
    click = cs.Click(tuple(int(p + o) for p, o in zip(place, ORIGIN, strict=True)), positive)
    logits = rng.normal(0, 2, SHAPE).astype(np.float32)
    found = after(click, in_volume(mask), logits, late=late)
    away = distances(mask == positive)
    own = max(away[tuple(place)], 2 * min(SPACING))
    only = np.zeros(SHAPE, bool)
    only[tuple(place)] = True
    from_click = np.clip(distances(only) / own - 2, 0, 6)
    deeper = away / own - np.clip(away / own, 0.75 if positive else 0, 1)
    if positive:
        shift = 1.5 * deeper + 0.2 * from_click
    else:
        shift = 6 * deeper + 0.5 * from_click if late else 1.5 * deeper
    shift = np.where(mask != positive, shift, 0)
    wanted = logits - shift if positive else logits + shift
    # What would stay below the threshold anyway need not be moved.
    decided = (logits <= -1.5 * 0.75) & ~mask
    assert np.allclose(found[~decided], wanted[~decided], atol=1e-4)
    assert not np.any(found[decided] > 0)


@given(st.integers(0, 2**32 - 1), st.booleans(), st.floats(0.005, 0.9))
@settings(max_examples=50, deadline=None)
def test_the_clicked_voxel_is_as_the_network_says(seed: int, positive: bool, filled: float) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random(SHAPE) < filled
    place = tuple(int(rng.integers(n)) for n in SHAPE)
    click = cs.Click(tuple(int(p + o) for p, o in zip(place, ORIGIN, strict=True)), positive)
    logits = np.full(SHAPE, 3.0 if positive else -3.0, np.float32)
    found = after(click, in_volume(mask), logits)
    assert (found[place] > 0) == positive


@pytest.mark.parametrize("positive", [True, False])
def test_nothing_moves_without_a_mask_or_where_it_obeys_already(positive: bool) -> None:
    logits = np.zeros(SHAPE, np.float32)
    click = cs.Click((5, 5, 7), positive)
    nothing, obeying = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    obeying[5 - ORIGIN[0], 5 - ORIGIN[1], 7 - ORIGIN[2]] = positive
    obeying[0, 0, 0] = True
    for mask in (nothing, obeying, np.full(SHAPE, not positive)):
        assert after(click, in_volume(mask), logits) is logits


def test_a_click_beyond_the_block_moves_nothing() -> None:
    logits, mask = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, bool)
    mask[4] = True
    assert after(cs.Click((1, 5, 7)), in_volume(mask), logits) is logits


def test_the_threshold_decides_what_can_still_be_in() -> None:
    mask = np.zeros(SHAPE, bool)
    mask[:, :, 0] = True
    logits = np.full(SHAPE, -3.0, np.float32)
    click = cs.Click((5, 5, ORIGIN[2] + 4))
    found = after(click, in_volume(mask), logits, threshold=-3.5)
    assert (found[:, :, 1:3] > -3.0).all()
    assert (found[5 - ORIGIN[0], 5 - ORIGIN[1], 3:5] == -3.0).all()
    assert (found[:, :, 5:] < -3.0).all()
