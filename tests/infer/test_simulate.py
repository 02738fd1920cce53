import numpy as np
import pytest

import clickseg_infer as cs
from clickseg_infer.metrics import clicks_to
from clickseg_infer.simulate import next_click


def test_the_first_click_is_the_middle_of_the_object() -> None:
    truth = np.zeros((20, 30, 40), np.uint8)
    truth[5:12, 10:21, 8:31] = 1
    assert next_click(truth, np.zeros_like(truth)).zyx[0] == 8
    thin = np.zeros((20, 20, 20), np.uint8)
    thin[4:15, 5:14, 7:10] = 1
    click = next_click(thin, np.zeros_like(thin))
    assert click.positive
    assert click.zyx[2] == 8


def test_the_largest_error_is_corrected_whichever_way_it_goes() -> None:
    truth = np.zeros((20, 20, 40), np.uint8)
    truth[5:15, 5:15, 5:15] = 1
    mask = np.zeros_like(truth)
    mask[5:15, 5:15, 8:15] = 1  # misses 300 voxels
    mask[5:12, 5:12, 15:25] = 1  # overruns by 490, touching what is right
    click = next_click(truth, mask)
    assert click.positive is False
    assert mask[click.zyx]
    assert not truth[click.zyx]
    mask[5:12, 5:12, 15:25] = 0
    click = next_click(truth, mask)
    assert click.positive is True
    assert click.zyx[2] in (5, 6, 7)


def test_depth_is_measured_in_millimetres() -> None:
    truth = np.zeros((9, 30, 30), np.uint8)
    truth[4, 5:26, 5:26] = 1  # one thick slice...
    truth[1:8, 1:4, 1:4] = 1
    in_voxels = next_click(truth, np.zeros_like(truth), (1.0, 1.0, 1.0))
    in_mm = next_click(truth, np.zeros_like(truth), (30.0, 1.0, 1.0))
    assert in_mm.zyx[1:] == (15, 15)
    assert in_voxels.zyx[0] == 4


def test_nothing_to_correct() -> None:
    truth = np.ones((4, 4, 4), np.uint8)
    assert next_click(truth, truth) is None


def test_a_random_user_clicks_errors_only(rng: np.random.Generator) -> None:
    truth = (rng.random((20, 20, 20)) > 0.7).astype(np.uint8)
    mask = (rng.random((20, 20, 20)) > 0.7).astype(np.uint8)
    places = set()
    for _ in range(50):
        click = next_click(truth, mask, rng=rng)
        assert truth[click.zyx] != mask[click.zyx]
        assert click.positive == bool(truth[click.zyx])
        places.add(click.zyx)
    assert len(places) > 10


def test_dice() -> None:
    a, b = np.zeros((4, 4)), np.zeros((4, 4))
    assert cs.dice(a, b) == 1.0
    a[:2] = 1
    assert cs.dice(a, b) == 0.0
    b[1:3] = 5
    assert cs.dice(a, b) == pytest.approx(0.5)


def test_clicks_to() -> None:
    assert clicks_to([0.3, 0.86, 0.84, 0.9], 0.85) == 2
    assert clicks_to([0.3, 0.86, 0.84, 0.9], 0.95) is None
