import numpy as np
import pytest
from stand_ins import chances_of

from clickseg_infer.meaning import likeliest, meant, other_parts, rivals
from clickseg_infer.structures import CELL


def of_either(weights: np.ndarray) -> np.ndarray:
    """None, and each structure, as a whole or in part."""
    return np.concatenate([weights[:1], weights[1:].reshape(2, -1).sum(0)])


def test_the_first_click_means_what_is_around_it() -> None:
    chances = chances_of(0.7, 0.1)
    chances[:, 1, 2, 3] = 0.0, 0.0, 1.0
    for zyx, cells in (((7, 8, 15), 18), ((8, 8, 8), 27), ((0, 15, 15), 8)):
        found = meant(None, chances, zyx, positive=True)
        expected = np.add([0.2, 0.7, 0.1], np.array([-0.2, -0.7, 0.9]) / cells)
        assert np.allclose(of_either(found), expected)
        assert found[3:].sum() < 0.2 * found[1:3].sum()  # a part is seldom meant
    elsewhere = meant(None, chances, (15, 0, 0), positive=True)
    assert np.allclose(of_either(elsewhere), [0.2, 0.7, 0.1])
    assert meant(None, chances, (7, 8, 15), positive=False) is None


def test_the_likeliest_structure_is_named_only_if_it_is_likelier_than_not() -> None:
    names = ("liver", "spleen")
    name, chance = likeliest(np.array([0.2, 0.2, 0.4, 0, 0.2], np.float32), names)
    assert (name, chance) == ("spleen", pytest.approx(0.6))
    assert likeliest(np.array([0.2, 0.4, 0.4, 0, 0], np.float32), names) is None
    assert likeliest(np.array([0.6, 0.3, 0, 0.1, 0], np.float32), names) is None
    assert likeliest(None, names) is None


def test_later_clicks_tell_which_structure_was_meant() -> None:
    before = np.array([0.1, 0.5, 0.2, 0.1, 0.1], np.float32)
    inside = meant(before, chances_of(0.1, 0.9), (0, 0, 0), positive=True)
    assert inside[2] > 0.4 > 0.2 > inside[1]
    assert inside[2] / inside[4] == pytest.approx(2)  # it says nothing of parts
    beside = meant(before, chances_of(0.9, 0.05), (0, 0, 0), positive=False)
    assert beside[2] > beside[1]
    nowhere = meant(before, chances_of(0.0, 0.0), (0, 0, 0), positive=True)
    assert nowhere[0] > 0.7 > before[0]
    for found in (inside, beside, nowhere):
        assert found.sum() == pytest.approx(1)
        assert found.min() > 0  # no click rules anything out
    assert meant(before, chances_of(0.1, 0.9), (0, 16, 0), positive=True) is before
    other = meant(before, chances_of(0.5), (0, 0, 0), positive=True)  # of another model
    assert np.allclose(of_either(other), [0.5, 0.5])


def test_a_click_beside_the_object_in_its_structure_makes_it_a_part() -> None:
    first = meant(None, chances_of(0.95, 0.01), (0, 0, 0), positive=True)
    assert first[1] > 0.8
    one = meant(first, chances_of(0.95, 0.01), (0, 0, 0), positive=False)
    two = meant(one, chances_of(0.95, 0.01), (0, 0, 0), positive=False)
    assert one[3] > 0.5 > one[1] > one[0]
    assert two[3] > 0.6
    beside = meant(first, chances_of(0.01, 0.95), (0, 0, 0), positive=False)
    assert beside[1] > 0.8


def test_rivals_are_clicks_that_surely_lie_in_a_structure() -> None:
    chances = chances_of(0.1, 0.1, cells=8)
    chances[:, :, :, 5:] = np.array([0.1, 0.1, 0.8], np.float32)[:, None, None, None]
    start = (-4, 8, 100)
    inside, away, outside = (3, 30, 131), (3, 30, 104), (3, 30, 132)
    assert rivals(chances, start, [away, inside, outside, inside]) == {1: [inside, inside]}
    assert rivals(chances, start, []) == {}


def test_other_parts_are_nearer_to_a_click_beside_the_object(rng: np.random.Generator) -> None:
    """Beside a search through all clicks for every cell."""
    start, size, spacing = (5, -9, 30), (16, 24, 32), (3.0, 1.0, 2.0)
    places = [tuple(rng.integers((0, -20, 20), (30, 30, 70)).tolist()) for _ in range(6)]
    on, beside = places[:2], {3: places[2:5], 1: places[5:]}
    found = other_parts(start, size, spacing, on, beside)
    assert set(found) == {1, 3}
    for number, others in beside.items():
        assert found[number].shape == (4, 6, 8)
        assert 0 < found[number].sum() < found[number].size
        for cell, is_other in np.ndenumerate(found[number]):
            middle = np.multiply(cell, CELL) + 1.5 + start
            away = [
                min(np.linalg.norm((np.array(p) - middle) * spacing) for p in clicks)
                for clicks in (others, on)
            ]
            assert is_other == (away[0] < away[1])
    assert other_parts(start, size, spacing, [], beside) == {}
    assert other_parts(start, size, spacing, on, {}) == {}
