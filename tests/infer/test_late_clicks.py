import numpy as np
import pytest
from stand_ins import bright, make_ball, make_spec

import clickseg_infer as cs
from clickseg_infer.judging import KNOWN, Nearby, bundled_judge

EARLY = [cs.Click((20, 40, 50)), cs.Click((20, 41, 50)), cs.Click((20, 40, 49))]
BESIDE, ON = cs.Click((20, 40, 62)), cs.Click((20, 40, 57), positive=False)


def answers(
    late: cs.Click, chance: float | None, before: list[cs.Click] = EARLY
) -> tuple[np.ndarray, np.ndarray, list[Nearby]]:
    """The mask without a late click and with it, if all near it changes with `chance`."""
    model = cs.Model(make_spec(), cs.FunctionEngine(bright))
    seen: list[Nearby] = []

    def judge(nearby: Nearby) -> np.ndarray | None:
        seen.append(nearby)
        if chance is None:
            return None
        return np.full(len(nearby.known), chance, np.float32)

    known = cs.predict(model, make_ball(12.0), before)
    answer = cs.predict(model, make_ball(12.0), [*before, late], known, judge=judge)
    return known.mask, answer.mask, seen


def judged_voxels(nearby: Nearby, shape: tuple[int, ...]) -> np.ndarray:
    there = np.zeros(shape, bool)
    there[tuple(slice(*bounds) for bounds in nearby.box)] = nearby.there
    return there


@pytest.mark.parametrize("late", [BESIDE, ON])
def test_what_a_judge_is_sure_of_changes_and_nothing_else_near_the_click(late: cs.Click) -> None:
    before, after, (nearby,) = answers(late, 1.0)
    there = judged_voxels(nearby, before.shape)
    assert there[late.zyx]
    assert 100 < there.sum() == len(nearby.known)
    assert (after[there] == late.positive).all()
    assert (before[there] != late.positive).all()


@pytest.mark.parametrize("late", [BESIDE, ON])
def test_the_clicked_voxel_changes_whatever_a_judge_says(late: cs.Click) -> None:
    before, after, (nearby,) = answers(late, 0.0)
    there = judged_voxels(nearby, before.shape)
    assert np.argwhere((before != after) & there).tolist() == [list(late.zyx)]


def test_a_judge_without_an_opinion_leaves_the_answer_to_the_rules() -> None:
    _, after, _ = answers(BESIDE, None)
    _, sure, _ = answers(BESIDE, 1.0)
    assert after.sum() < sure.sum()


def test_earlier_clicks_are_no_ones_to_judge() -> None:
    beside = cs.Click((20, 40, 64), positive=False)
    _, after, _ = answers(BESIDE, 1.0, [*EARLY, beside])
    assert after[BESIDE.zyx]
    assert not after[beside.zyx]


def test_early_clicks_are_not_judged() -> None:
    assert answers(BESIDE, 1.0, EARLY[:2])[2] == []


def test_what_is_known_of_a_voxel() -> None:
    before, _, (nearby,) = answers(BESIDE, None)
    there = judged_voxels(nearby, before.shape)
    row = int(np.flatnonzero((np.argwhere(there) == BESIDE.zyx).all(1))[0])
    known = dict(zip(KNOWN, nearby.known[row].tolist(), strict=True))
    edge = int(np.flatnonzero(before[20, 40]).max())
    depth = (62 - edge) * 1.2
    assert known["depth"] == pytest.approx(depth / 3.0)  # of the longest edge
    assert known["the click's depth"] == pytest.approx(depth / 3.0)
    assert known["distance"] == known["sideways"] == known["outwards"] == 0
    assert known["facing"] == pytest.approx(1, abs=1e-3)
    assert known["depth by the click's"] == pytest.approx(1)
    assert known["HU from the click's"] == 0
    assert known["HU from the mask's"] == pytest.approx(-200 / 50)
    assert known["no structure"] == 1
    farthest = nearby.known[:, KNOWN.index("distance")]
    assert 5 < farthest.max() < 6
    outwards = nearby.known[:, KNOWN.index("outwards")]
    assert outwards.min() < 0 < outwards.max()


def test_the_bundled_judges_add_what_lies_close_and_the_network_is_sure_of() -> None:
    _, _, (nearby,) = answers(BESIDE, None)
    sure, unsure = nearby.known.copy(), nearby.known.copy()
    sure[:, KNOWN.index("logit")], unsure[:, KNOWN.index("logit")] = 6, -6
    chances = [
        bundled_judge(Nearby(BESIDE, nearby.box, nearby.there, known)) for known in (sure, unsure)
    ]
    assert all(((one >= 0) & (one <= 1)).all() for one in chances)
    assert chances[0].mean() > chances[1].mean()


def test_late_clicks_on_a_single_slice() -> None:
    model = cs.Model(make_spec(), cs.FunctionEngine(bright))
    ball = make_ball(12.0)
    slice_ = cs.Volume(ball.voxels[20:21], ball.affine)
    clicks = [cs.Click((0, y, x)) for y, x in ((40, 50), (41, 50), (40, 51))]
    late = cs.Click((0, 40, 62))
    answer = cs.predict(model, slice_, [*clicks, late])
    assert answer.holds(late.zyx)
