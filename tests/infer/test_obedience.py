"""Every clicked voxel carries its click's label, and little else changes."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import clickseg_infer as cs
from clickseg_infer.prediction import from_mask
from clickseg_infer.refinement.obedience import FAR_MM, carries, far_voxels, obeyed

SHAPE = (6, 7, 8)
SPACINGS = st.sampled_from([(1.0, 1.0, 1.0), (3.0, 1.5, 1.2), (0.7, 5.0, 2.0)])
PLACES = st.tuples(*(st.integers(0, n - 1) for n in SHAPE))
MASKS = st.one_of(
    arrays.arrays(np.uint8, SHAPE, elements=st.integers(0, 1), fill=st.just(0)),
    arrays.arrays(np.uint8, SHAPE, elements=st.integers(0, 1), fill=st.just(1)),
)


@st.composite
def some_clicks(draw: st.DrawFn) -> tuple[cs.Click, ...]:
    """Clicks on different voxels; often two of opposite kinds side by side."""
    places = draw(st.lists(PLACES, min_size=1, max_size=6, unique=True))
    clicks = [cs.Click(place, draw(st.booleans())) for place in places]
    if draw(st.booleans()):
        z, y, x = places[0]
        beside = (z, y, x + 1 if x + 1 < SHAPE[2] else x - 1)
        if beside not in places:
            clicks.append(cs.Click(beside, not clicks[0].positive))
    return tuple(clicks)


def squared_mm(click: cs.Click, spacing_mm: tuple, shape: tuple = SHAPE) -> np.ndarray:
    places = np.moveaxis(np.indices(shape), 0, -1) - np.array(click.zyx)
    return ((places * np.array(spacing_mm)) ** 2).sum(axis=-1)


@settings(max_examples=200, deadline=None)
@given(
    mask=MASKS, clicks=some_clicks(), spacing_mm=SPACINGS, radius_mm=st.sampled_from([0, 1.5, 3, 6])
)
def test_every_click_is_obeyed_and_none_undone(
    mask: np.ndarray, clicks: tuple, spacing_mm: tuple, radius_mm: float
) -> None:
    before = from_mask(mask)
    after, corrected = obeyed(before, clicks, spacing_mm, radius_mm)
    wrong = [click for click in clicks if bool(mask[click.zyx]) != click.positive]
    assert corrected == len(wrong)
    assert np.array_equal(before.mask, mask)  # not modified
    expected = mask.copy()
    for click in wrong:
        ball = squared_mm(click, spacing_mm) <= radius_mm**2
        for other in clicks:
            if other.positive != click.positive:
                ball &= squared_mm(click, spacing_mm) < squared_mm(other, spacing_mm)
        assert ball[click.zyx]
        expected[ball] = click.positive
    assert np.array_equal(after.mask, expected)
    for click in clicks:
        assert carries(after, click)
        assert after.mask[click.zyx] == click.positive
    again, none = obeyed(after, clicks, spacing_mm, radius_mm)
    assert none == 0
    assert np.array_equal(again.mask, after.mask)


@settings(max_examples=60, deadline=None)
@given(mask=MASKS, clicks=some_clicks(), spacing_mm=SPACINGS)
def test_beyond_the_radius_of_what_was_wrong_nothing_changes(
    mask: np.ndarray, clicks: tuple, spacing_mm: tuple
) -> None:
    after, _ = obeyed(from_mask(mask), clicks, spacing_mm, 3.0)
    beyond = np.ones(SHAPE, bool)
    for click in clicks:
        if bool(mask[click.zyx]) != click.positive:
            beyond &= squared_mm(click, spacing_mm) > 9
    assert np.array_equal(after.mask[beyond], mask[beyond])


def test_a_ball_is_a_ball_in_mm_and_ends_at_the_volumes_border() -> None:
    after, corrected = obeyed(
        cs.Prediction((), (9, 40, 40)), (cs.Click((0, 20, 20)),), (5.0, 1.0, 2.0), 6.0
    )
    assert corrected == 1
    assert after.box == ((0, 2), (14, 27), (17, 24))
    assert np.array_equal(
        after.mask == 1,
        squared_mm(cs.Click((0, 20, 20)), (5.0, 1.0, 2.0), (9, 40, 40)) <= 36,
    )


def test_the_last_voxel_can_be_taken_away() -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[2, 3, 4] = 1
    after, _ = obeyed(from_mask(mask), (cs.Click((2, 3, 4), False),), (1.0, 1.0, 1.0), 2.0)
    assert after.box is None
    assert after.voxels == 0


@settings(max_examples=60, deadline=None)
@given(before=MASKS, after=MASKS, clicks=some_clicks())
def test_far_is_farther_than_it_from_every_click(
    before: np.ndarray, after: np.ndarray, clicks: tuple
) -> None:
    spacing_mm = (4.0, 7.0, 5.0)
    nearest = np.min([squared_mm(click, spacing_mm) for click in clicks], axis=0)
    expected = int(((before != after) & (nearest > FAR_MM**2)).sum())
    assert far_voxels(from_mask(before), from_mask(after), clicks, spacing_mm) == expected


def test_nothing_changed_is_nothing_far() -> None:
    nothing = cs.Prediction((), SHAPE)
    full = from_mask(np.ones(SHAPE, np.uint8))
    click = (cs.Click((0, 0, 0)),)
    assert far_voxels(nothing, nothing, click, (9.0, 9.0, 9.0)) == 0
    assert far_voxels(full, full, click, (9.0, 9.0, 9.0)) == 0
    assert far_voxels(nothing, full, click, (1.0, 1.0, 1.0)) == 0
    assert far_voxels(nothing, full, click, (9.0, 9.0, 9.0)) > 0
