import numpy as np
import pytest
from stand_ins import chances_of, meaning_of

from clickseg_infer.clicks import Click
from clickseg_infer.meaning import Meaning, likeliest, meant, other_parts

CELL = 4
ON, BESIDE = Click((50, 60, 70)), Click((51, 60, 70), False)


def either(found: Meaning) -> list[float]:
    """None, and each structure, as a whole or in part."""
    return [found.none, *(found.whole + found.part)]


def test_the_first_click_means_what_is_around_it() -> None:
    chances = chances_of(0.7, 0.1)
    chances[:, 1, 2, 3] = 0.0, 0.0, 1.0
    for zyx, cells in (((7, 8, 15), 18), ((8, 8, 8), 27), ((0, 15, 15), 8)):
        found = meant(None, chances, zyx, ON, CELL)
        expected = np.add([0.2, 0.7, 0.1], np.array([-0.2, -0.7, 0.9]) / cells)
        assert np.allclose(either(found), expected)
        assert found.part.sum() < 0.2 * found.whole.sum()  # a part is seldom meant
    assert np.allclose(either(meant(None, chances, (15, 0, 0), ON, CELL)), [0.2, 0.7, 0.1])
    assert meant(None, chances, (7, 8, 15), BESIDE, CELL) is None
    assert meant(None, chances, (16, 8, 15), ON, CELL) is None


def test_smaller_cells_tell_what_is_around_a_click_too() -> None:
    """Of a cell of two voxels, those up to two cells away."""
    chances = np.zeros((2, 8, 8, 8), np.float32)
    chances[0] = 1
    chances[:, 2, 3, 4] = 0, 1
    for zyx, share in (((5, 7, 8), 1 / 125), ((9, 10, 12), 1 / 100), ((1, 1, 13), 0)):
        found = meant(None, chances, zyx, ON, 2)
        assert np.allclose(either(found), [1 - share, share])


def test_the_likeliest_structure_is_named_only_if_it_is_likelier_than_not() -> None:
    names = ("liver", "spleen")
    name, chance = likeliest(meaning_of(0.2, [0.2, 0.4], [0, 0.2]), names)
    assert (name, chance) == ("spleen", pytest.approx(0.6))
    assert likeliest(meaning_of(0.2, [0.4, 0.4], [0, 0]), names) is None
    assert likeliest(meaning_of(0.6, [0.3, 0], [0.1, 0]), names) is None
    assert likeliest(meaning_of(0, [0, 0, 0.9], [0, 0, 0.1]), names) is None  # of another model
    assert likeliest(None, names) is None


def test_later_clicks_tell_which_structure_was_meant() -> None:
    before = meaning_of(0.1, [0.5, 0.2], [0.1, 0.1])
    inside = meant(before, chances_of(0.1, 0.9), (0, 0, 0), ON, CELL)
    assert inside.whole[1] > 0.4 > 0.2 > inside.whole[0]
    assert inside.whole[1] / inside.part[1] == pytest.approx(2)  # it says nothing of parts
    beside = meant(before, chances_of(0.9, 0.05), (0, 0, 0), BESIDE, CELL)
    assert beside.whole[1] > beside.whole[0]
    nowhere = meant(before, chances_of(0.0, 0.0), (0, 0, 0), ON, CELL)
    again = meant(nowhere, chances_of(0.0, 0.0), (0, 0, 0), ON, CELL)
    assert again.none > 0.7 > nowhere.none > 0.4 > before.none
    for found in (inside, beside, nowhere, again):
        assert sum(either(found)) == pytest.approx(1)
        assert min(found.none, *found.whole, *found.part) > 0  # no click rules anything out
    assert meant(before, chances_of(0.1, 0.9), (0, 16, 0), ON, CELL) is before


def test_what_another_model_said_was_meant_counts_for_nothing() -> None:
    before = meaning_of(0.1, [0.5, 0.2], [0.1, 0.1])
    assert np.allclose(either(meant(before, chances_of(0.5), (0, 0, 0), ON, CELL)), [0.5, 0.5])
    assert meant(before, chances_of(0.5), (0, 16, 0), ON, CELL) is None


def test_a_click_beside_the_object_in_its_structure_makes_it_a_part() -> None:
    known = chances_of(0.95, 0.01)
    first = meant(None, known, (0, 0, 0), ON, CELL)
    assert first.whole[0] > 0.8
    assert first.rivals == ()
    one = meant(first, known, (0, 0, 0), BESIDE, CELL)
    two = meant(one, known, (0, 0, 0), BESIDE, CELL)
    assert one.part[0] > 0.5 > one.whole[0]
    assert two.part[0] > 0.6
    assert two.rivals == ((BESIDE, 0), (BESIDE, 0))
    assert meant(two, known, (0, 0, 0), ON, CELL).rivals == two.rivals
    beside = meant(first, chances_of(0.01, 0.95), (0, 0, 0), BESIDE, CELL)
    assert beside.whole[0] > 0.8
    assert beside.rivals == ((BESIDE, 1),)


def test_a_click_is_a_rival_by_its_own_cell() -> None:
    """Whatever is around it, as at the end of a lung."""
    chances = chances_of(0.01, 0.01)
    chances[:, 1, 2, 3] = 0.1, 0.9, 0.0
    before = meaning_of(0.1, [0.5, 0.2], [0.1, 0.1])
    assert meant(before, chances, (4, 8, 12), BESIDE, CELL).rivals == ((BESIDE, 0),)
    assert meant(before, chances, (4, 8, 11), BESIDE, CELL).rivals == ()
    smaller = chances.repeat(2, 1).repeat(2, 2).repeat(2, 3)  # likewise, however small cells are
    smaller[1, 2, 4, 6] = 0.0
    assert meant(before, smaller, (4, 8, 12), BESIDE, 2).rivals == ((BESIDE, 0),)
    assert meant(before, smaller, (4, 8, 11), BESIDE, 2).rivals == ()


def test_other_parts_are_nearer_to_a_click_beside_the_object(rng: np.random.Generator) -> None:
    """Beside a search through all clicks for every cell."""
    size, spacing = (16, 24, 32), (3.0, 1.0, 2.0)
    places = [tuple(rng.integers((-5, -10, -10), (25, 40, 40)).tolist()) for _ in range(6)]
    on, beside = places[:2], {3: places[2:5], 1: places[5:]}
    cells = tuple(n // CELL for n in size)
    found = other_parts(cells, CELL, spacing, on, beside)
    assert set(found) == {1, 3}
    for number, others in beside.items():
        assert found[number].shape == (4, 6, 8)
        assert 0 < found[number].sum() < found[number].size
        for cell, is_other in np.ndenumerate(found[number]):
            middle = np.multiply(cell, CELL) + 1.5
            away = [
                min(np.linalg.norm((np.array(p) - middle) * spacing) for p in clicks)
                for clicks in (others, on)
            ]
            assert is_other == (away[0] < away[1])
    assert other_parts(cells, CELL, spacing, [], beside) == {}
    assert other_parts(cells, CELL, spacing, on, {}) == {}
