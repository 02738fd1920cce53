"""The search for a scale and a bias with which the network agrees with its clicks."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import clickseg_infer as cs
from clickseg_infer.engines import Engine
from clickseg_infer.refinement.fbrs import MOST_EVALUATIONS, Target, Tuned, disobeyed, tune
from clickseg_infer.refinement.heads import POINTS
from clickseg_infer.refinement.obedience import obeyed
from clickseg_infer.refinement.refiner import Refiner
from clickseg_infer.refinement.tuning import Tuning
from clickseg_infer.refinement.windows import WINDOW

PLACE = (14.3, 17.0, 12.6)
Tensors = dict[str, np.ndarray]


class Patch:
    """What a model made of a patch of noise; its logits lie on both sides of `middle`."""

    def __init__(self, model: cs.Model) -> None:
        assert model.refiner is not None
        self.refiner: Refiner = model.refiner
        spec = model.spec
        batch = np.random.default_rng(1).random((1, len(spec.channels), *spec.patch_size), "f4")
        self.tensors: Tensors = model.engine.run_graph({"input": batch})
        del self.tensors["logits"]
        # The tiny network has learnt next to nothing; its features shall matter all the same.
        name, ones = POINTS[model.refine], np.ones(self.refiner.channels, np.float32)
        self.logits = np.zeros(spec.patch_size, np.float32)
        while self.logits.std() < 2:
            self.tensors[name] = 2 * self.tensors[name]
            self.logits = self.refiner.all_logits(self.tensors, Tuning(ones, 0 * ones))
        self.middle = float(np.median(self.logits))

    def wrong_at(self, place: tuple[float, float, float] = PLACE) -> Target:
        """A click with which the network does not agree."""
        return Target(place, disobeyed(self.logits, [Target(place, True)], self.middle))

    def tune(self, *targets: Target, **options: object) -> Tuned:
        return tune(self.refiner, self.tensors, targets, self.middle, **options)

    def disobeys(self, tuning: Tuning, *targets: Target) -> bool:
        return disobeyed(self.refiner.all_logits(self.tensors, tuning), targets, self.middle)


@pytest.fixture(scope="module", params=["fbrs-a", "fbrs-b", "fbrs-c"])
def patch(request: pytest.FixtureRequest, tiny_refinable: Path) -> Iterator[Patch]:
    options = {"engine": "openvino", "precision": "float32", "refine": request.param}
    with cs.load_model(tiny_refinable, **options) as model:
        yield Patch(model)


def test_between_voxels_a_logit_is_interpolated() -> None:
    logits = np.zeros((4, 4, 4), np.float32)
    logits[1, 2, 3] = 8
    for place, expected in (
        ((1, 2, 3), 8),
        ((1, 2, 2.5), 4),
        ((0.5, 1.5, 2.5), 1),
        ((1.25, 2, 3), 6),
        ((3, 3, 3), 0),
    ):
        for threshold, positive in ((expected - 0.01, True), (expected + 0.01, False)):
            assert not disobeyed(logits, [Target(place, positive)], threshold)
            assert disobeyed(logits, [Target(place, not positive)], threshold)
    assert not disobeyed(logits, [Target((0, 0, 0), False)], 0.0)  # the mask is what lies above


@pytest.mark.parametrize(
    "place", [PLACE, (0.0, 0.4, 1.2), (31.0, 30.7, 31.0), (0.0, 31.0, 15.5)], ids=str
)
def test_a_click_that_the_network_disobeys_is_obeyed(patch: Patch, place: tuple) -> None:
    click = patch.wrong_at(place)
    found = patch.tune(click, most_evaluations=60)
    assert found.obeyed
    assert 1 < found.evaluations <= 60
    assert not patch.disobeys(found.tuning, click)
    assert found.tuning.scale.dtype == found.tuning.bias.dtype == np.float32
    again = patch.tune(click, most_evaluations=60)
    assert np.array_equal(again.tuning.scale, found.tuning.scale)
    assert np.array_equal(again.tuning.bias, found.tuning.bias)


def test_what_is_obeyed_already_costs_one_evaluation(patch: Patch) -> None:
    surest = np.unravel_index(np.argmax(patch.logits), patch.logits.shape)
    z, y, x = (float(p) for p in surest)
    middle = patch.middle
    patch.middle = float(patch.logits.max()) - 1  # whatever it takes to be sure
    try:
        found = patch.tune(Target((z, y, x), True))
    finally:
        patch.middle = middle
    assert (found.obeyed, found.evaluations) == (True, 1)
    assert np.array_equal(found.tuning.scale, np.ones(patch.refiner.channels))
    assert not found.tuning.bias.any()


def test_a_plan_is_never_given_more_windows_than_it_takes(
    patch: Patch, monkeypatch: pytest.MonkeyPatch
) -> None:
    refiner = patch.refiner
    rng = np.random.default_rng(3)
    ones = np.ones(refiner.channels, np.float32)
    starts = [(2 * n, 26 - 2 * n, 4) for n in range(6)]
    d_logits = rng.normal(size=(6, *WINDOW)).astype(np.float32)
    tuning = Tuning(ones, 0 * ones)
    apart = [refiner.windows(patch.tensors, [start]) for start in starts]
    alone = [w.gradients(tuning, d_logits[n : n + 1]) for n, w in enumerate(apart)]
    given: list[int] = []

    def counted(engine: Engine) -> Callable:
        truly = engine.run_graph

        def run_graph(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            given.append(max(map(len, (inputs[name] for name in windowed if name in inputs))))
            return truly(inputs)

        return run_graph

    windowed = refiner._shape.windowed_inputs
    for engine in (refiner._logits, refiner._gradient):
        monkeypatch.setattr(engine, "run_graph", counted(engine))
    together = refiner.windows(patch.tensors, starts)
    expected = np.concatenate([window.logits(tuning) for window in apart])
    given.clear()
    assert together.logits(tuning) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    for found, parts in zip(
        together.gradients(tuning, d_logits), zip(*alone, strict=True), strict=True
    ):
        total = np.sum(parts, axis=0)
        assert np.linalg.norm(found - total) <= 1e-5 * np.linalg.norm(total)
    assert given == [4, 2, 4, 2]


def test_the_search_is_bounded(patch: Patch) -> None:
    neighbours = patch.wrong_at(), Target((14.3, 17.0, 13.0), not patch.wrong_at().positive)
    for most in (1, 3):
        found = patch.tune(*neighbours, most_evaluations=most)
        assert not found.obeyed
        assert found.evaluations == most
    assert patch.tune(*neighbours).evaluations <= MOST_EVALUATIONS


def test_the_search_begins_where_it_is_told_to(patch: Patch) -> None:
    click = patch.wrong_at()
    found = patch.tune(click, most_evaluations=60)
    again = patch.tune(click, begin=found.tuning)
    assert (again.obeyed, again.evaluations) == (True, 1)
    assert np.allclose(again.tuning.scale, found.tuning.scale, atol=1e-6)
    assert np.array_equal(again.tuning.bias, found.tuning.bias)


def traced_losses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every loss that scipy is given, which is none where the search ends."""
    from scipy import optimize

    truly, losses = optimize.minimize, []

    def minimize(function: Callable, begin: np.ndarray, **options: object) -> object:
        def traced(change: np.ndarray) -> tuple[float, np.ndarray]:
            loss, gradient = function(change)
            losses.append(loss)
            return loss, gradient

        return truly(traced, begin, **options)

    monkeypatch.setattr(optimize, "minimize", minimize)
    return losses


def test_the_gradient_agrees_with_finite_differences(
    patch: Patch, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scipy import optimize

    compared: list[tuple[float, float]] = []

    def minimize(function: Callable, begin: np.ndarray, **_: object) -> None:
        place = begin + np.random.default_rng(2).normal(0, 0.02, begin.shape)
        _, gradient = function(place)
        direction = gradient / np.linalg.norm(gradient)
        step = 3e-3
        ahead, behind = (function(place + sign * step * direction)[0] for sign in (1, -1))
        compared.append(((ahead - behind) / (2 * step), float(np.linalg.norm(gradient))))

    monkeypatch.setattr(optimize, "minimize", minimize)
    # Both kinds, near and far, at the border, and side by side.
    right = not patch.wrong_at().positive
    patch.tune(
        patch.wrong_at(),
        Target((14.3, 17.0, 13.6), right),
        patch.wrong_at((0.0, 31.0, 5.5)),
        patch.wrong_at((25.0, 3.2, 30.9)),
        most_evaluations=4,  # the last one allowed has no gradient any more
    )
    ((slope, expected),) = compared
    assert slope == pytest.approx(expected, rel=0.03)


def test_contradictory_neighbours_are_obeyed_even_where_no_tuning_is_found(patch: Patch) -> None:
    """One voxel apart, and as the network does not have it."""
    z, y, x = 14, 17, 12
    wrong = patch.wrong_at((z, y, x))
    clicks = cs.Click((z, y, x), wrong.positive), cs.Click((z, y, x + 1), not wrong.positive)
    targets = [Target(tuple(map(float, c.zyx)), c.positive) for c in clicks]
    found = patch.tune(*targets)
    logits = patch.refiner.all_logits(patch.tensors, found.tuning)
    from clickseg_infer.prediction import from_mask

    answer, corrected = obeyed(from_mask(logits > patch.middle), clicks, (1.0, 1.0, 1.0), 3.0)
    assert found.obeyed or corrected
    assert all(answer.mask[click.zyx] == click.positive for click in clicks)


def test_the_search_stops_when_it_is_told_to(patch: Patch) -> None:
    asked: list[int] = []

    def after(count: int) -> Callable[[], bool]:
        asked.clear()
        return lambda: asked.append(1) or len(asked) >= count

    neighbours = patch.wrong_at(), Target((14.3, 17.0, 13.0), not patch.wrong_at().positive)
    assert patch.tune(*neighbours, stop=lambda: True).evaluations == 1
    found = patch.tune(*neighbours, stop=after(3), most_evaluations=9)
    assert (found.evaluations, found.obeyed) == (3, False)
    assert len(asked) == 3


def test_the_best_so_far_is_what_is_found(patch: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it ends, it has what had the least loss of all that it tried."""
    losses = traced_losses(monkeypatch)
    neighbours = patch.wrong_at(), Target((14.3, 17.0, 13.0), not patch.wrong_at().positive)
    for most in range(2, 13):
        losses.clear()
        found = patch.tune(*neighbours, most_evaluations=most)
        assert (found.evaluations, found.obeyed) == (most, False)
        on_the_way = losses.copy()
        patch.tune(*neighbours, begin=found.tuning, most_evaluations=2)
        (least,) = losses[len(on_the_way) :]
        assert least <= min(on_the_way) + 1e-6
    assert least < on_the_way[0]
