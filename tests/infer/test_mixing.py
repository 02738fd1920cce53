import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins import chances_of, meaning_of

from clickseg_infer.mixing import informed


@pytest.mark.parametrize("cells", [4, 8])
def test_the_answer_is_the_mean_over_what_may_be_meant(
    cells: int, rng: np.random.Generator
) -> None:
    """Beside a plain calculation in float64."""
    logits = rng.normal(0, 3, (16, 16, 16)).astype(np.float32)
    chances = rng.dirichlet([1.0] * 4, (cells,) * 3).transpose(3, 0, 1, 2).astype(np.float32)
    meaning = meaning_of(0.3, [0.4, 0.15, 0.01], [0.1, 0.04, 0])
    found = informed(logits, chances, meaning, 0.0)

    def along(values: np.ndarray, axis: int) -> np.ndarray:
        place = np.clip((np.arange(16) + 0.5) * cells / 16 - 0.5, 0, cells - 1)
        return np.apply_along_axis(lambda v: np.interp(place, np.arange(cells), v), axis, values)

    expected, best = 0.31 / (1 + np.exp(-logits.astype(float))), logits
    for weight, chance in zip((0.5, 0.19), chances[1:3].astype(float), strict=True):
        chance = np.clip(chance, 1e-3, 1 - 1e-3)
        shift = np.log(chance / (1 - chance))
        for axis in range(3):
            shift = along(shift, axis)
        under = np.maximum(logits, -2.0) + shift
        expected += weight / (1 + np.exp(-under))
        best = np.maximum(best, under)
    reached = best > -3
    assert np.allclose(found[reached], np.log(expected / (1 - expected))[reached], atol=1e-4)
    assert np.array_equal(found[~reached], logits[~reached])


def test_under_a_structure_the_network_that_follows_clicks_can_only_doubt_so_much() -> None:
    """Of a long organ it knows no more than what lies around the click."""
    logits = np.full((16, 16, 16), -20, np.float32)
    found = informed(logits, chances_of(0.99), meaning_of(0.1, [0.9], [0]), 0.0)
    assert (found > 1).all()
    unlikely = informed(logits, chances_of(0.8), meaning_of(0.1, [0.9], [0]), 0.0)
    assert (unlikely < 0).all()
    elsewhere = informed(logits, chances_of(0.01), meaning_of(0.1, [0.9], [0]), 0.0)
    assert np.array_equal(elsewhere, logits)


def test_without_a_likely_structure_the_logits_are_those_of_the_clicks() -> None:
    logits = np.zeros((16, 16, 16), np.float32)
    meaning = meaning_of(0.99, [0.005], [0.005])
    assert informed(logits, chances_of(1.0), meaning, 0.0) is logits


@settings(max_examples=30)
@given(st.floats(-1e30, 1e30), st.floats(0, 1), st.floats(0, 1))
def test_any_logit_stays_finite_and_goes_where_the_structure_says(
    logit: float, chance: float, weight: float
) -> None:
    logits = np.full((16, 16, 16), logit, np.float32)
    meaning = meaning_of(1 - weight, [weight / 2], [weight / 2])
    found = informed(logits, chances_of(chance), meaning, 0.0)
    assert np.isfinite(found).all()
    moved = found[8, 8, 8] - np.clip(logit, -60, 60)
    if weight > 0.02 and -2 < logit < 6:
        assert moved >= -1e-3 if chance > 0.5 else moved <= 1e-3


def test_patches_need_not_be_cubes(rng: np.random.Generator) -> None:
    """Along each axis the chances rise, and so does what is made of level logits."""
    for axis, shape in enumerate(((48, 16, 32), (16, 48, 32), (16, 32, 48))):
        cells = [n // 4 for n in shape]
        chance = np.linspace(0.01, 0.99, cells[axis], dtype=np.float32)
        one = np.moveaxis(np.broadcast_to(chance, (*np.delete(cells, axis), len(chance))), -1, axis)
        logits = np.zeros(shape, np.float32)
        found = informed(logits, np.stack([1 - one, one]), meaning_of(0, [1], [0]), 0.0)
        assert found.shape == shape
        assert (np.diff(found, axis=axis) >= 0).all()
        assert found.min() < -4 < 4 < found.max()


def test_of_a_structure_clicked_beside_the_object_only_a_part_is_meant() -> None:
    """Half of it: the weight of the whole is too little to keep the other half."""
    logits = np.zeros((16, 16, 16), np.float32)
    there = np.zeros((4, 4, 4), bool)
    there[..., 2:] = True
    meaning = meaning_of(0.1, [0.1], [0.8])
    whole, part = (
        informed(logits, chances_of(0.9), meaning, 0.0, others) for others in ({}, {0: there})
    )
    assert (whole > 1).all()
    assert (part[..., :6] > 1).all()
    assert (part[..., 10:] < -1).all()
    unlikely = informed(logits, chances_of(0.2), meaning, 0.0, {0: there})
    assert (unlikely < 0).all()  # no less outside of the structure
