"""RGB-BRS and DistMap-BRS: gradients by the input, what they change, and the promise."""

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from stand_ins import make_ball, make_spec
from torch import nn

import clickseg_infer as cs
from clickseg_infer.refinement.fbrs import MOST_EVALUATIONS, Target, disobeyed, tune
from clickseg_infer.refinement.tuning import Tuning
from clickseg_infer.refinement.windows import WINDOW
from clickseg_train.config import read_config
from clickseg_train.input_brs import METHODS, InputRefiner, changed_channels, with_input_brs

SPEC = make_spec()
CHANGED = {"rgb-brs": ["ct"], "distmap-brs": ["positive", "negative", "geodesic_positive"]}
PLACES = [(14.3, 17.0, 12.6), (0.0, 0.4, 1.2), (31.0, 30.7, 31.0)]
STARTS = [(12, 16, 10), (-2, -2, 4), (28, 30, 28)]  # the last two reach beyond the patch
CENTRE, BESIDE = (20, 40, 50), (20, 40, 51)


class Patch:
    """A patch of noise, and a model that refines by its input; half of the patch is the object."""

    def __init__(self, method: str, network: nn.Module) -> None:
        self.method, self.network = method, network
        self.batches: list[np.ndarray] = []
        self.closed: list[bool] = []
        engine = cs.FunctionEngine(self.run)
        engine.close = lambda: self.closed.append(True)
        batch = np.random.default_rng(1).random((1, len(SPEC.channels), *SPEC.patch_size), "f4")
        middle = float(np.median(engine.run(batch)))
        spec = replace(SPEC, threshold=1 / (1 + np.exp(-middle)))
        self.model = with_input_brs(cs.Model(spec, engine), network, method)
        self.threshold = spec.threshold_logit
        assert isinstance(self.model.refiner, InputRefiner)
        self.refiner: InputRefiner = self.model.refiner
        self.tensors = self.model.engine.run_graph({"input": batch})
        self.logits = self.tensors.pop("logits")[0, 0]

    @torch.no_grad()
    def run(self, batch: np.ndarray) -> np.ndarray:
        self.batches.append(batch.copy())
        return self.network(torch.from_numpy(batch)).numpy()

    def wrong_at(self, place: tuple[float, float, float]) -> Target:
        return Target(place, disobeyed(self.logits, [Target(place, True)], self.threshold))

    def some_tuning(self) -> Tuning:
        change = np.random.default_rng(2).normal(0, 0.1, self.refiner.change(None).shape)
        return self.refiner.tuning(change)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """Small and smooth; what it makes of noise lies far apart."""
    torch.manual_seed(3)
    first, last = nn.Conv3d(len(SPEC.channels), 8, 3, padding=1), nn.Conv3d(8, 1, 3, padding=1)
    network = nn.Sequential(first, nn.Tanh(), last).eval()
    with torch.no_grad():
        last.weight *= 3 / network(torch.rand(1, len(SPEC.channels), *SPEC.patch_size)).std()
    return network


@pytest.fixture(scope="module", params=METHODS)
def patch(request: pytest.FixtureRequest, network: nn.Module) -> Patch:
    return Patch(request.param, network)


@pytest.fixture(scope="module")
def volume() -> cs.Volume:
    ball = make_ball(25.0)
    noise = np.random.default_rng(0).normal(0, 30, ball.shape)
    return cs.Volume((ball.voxels + noise).astype(np.int16), ball.affine)


def window_of(logits: np.ndarray, start: tuple[int, int, int]) -> np.ndarray:
    """Voxel by voxel; zero beyond the patch."""
    window = np.zeros(WINDOW, logits.dtype)
    for own in np.ndindex(WINDOW):
        there = tuple(np.add(start, own))
        if all(0 <= p < n for p, n in zip(there, logits.shape, strict=True)):
            window[own] = logits[there]
    return window


def test_without_a_change_logits_are_the_engines(patch: Patch) -> None:
    nothing = patch.refiner.tuning(patch.refiner.change(None))
    assert np.array_equal(patch.refiner.all_logits(patch.tensors, nothing), patch.logits)
    windows = patch.refiner.windows(patch.tensors, STARTS).logits(nothing)
    expected = [window_of(patch.logits, start) for start in STARTS]
    assert np.abs(windows - expected).max() <= 1e-5


def test_with_a_change_windows_agree_with_the_whole_patch(patch: Patch) -> None:
    tuning = patch.some_tuning()
    logits = patch.refiner.all_logits(patch.tensors, tuning)
    assert np.abs(logits - patch.logits).max() > 1e-2
    windows = patch.refiner.windows(patch.tensors, STARTS).logits(tuning)
    expected = [window_of(logits, start) for start in STARTS]
    assert np.abs(windows - expected).max() <= 1e-5


def test_gradients_agree_with_finite_differences(patch: Patch) -> None:
    d_logits = np.random.default_rng(3).normal(size=(len(STARTS), *WINDOW)).astype(np.float32)
    tuning = patch.some_tuning()
    windows = patch.refiner.windows(patch.tensors, STARTS)
    windows.logits(patch.refiner.tuning(patch.refiner.change(None)))  # of another tuning
    by_scale, gradient = windows.gradients(tuning, d_logits)
    assert by_scale.shape == (0,)
    again = windows.logits(tuning), *windows.gradients(tuning, d_logits)
    assert np.array_equal(again[2], gradient)
    precise = copy.deepcopy(patch.network).double()
    direction = gradient.astype(np.float64) / np.linalg.norm(gradient)
    channels = [SPEC.channels.index(name) for name in CHANGED[patch.method]]

    def weighted(step: float) -> float:
        batch = patch.tensors["input"].astype(np.float64)
        moved = (tuning.bias + step * direction).reshape(-1, *SPEC.patch_size)
        for channel, change in zip(channels, moved, strict=True):
            batch[0, channel] += change
        with torch.no_grad():
            logits = precise(torch.from_numpy(batch))[0, 0].numpy()
        parts = (window_of(logits, start) for start in STARTS)
        return sum(float((part * d).sum()) for part, d in zip(parts, d_logits, strict=True))

    slope = (weighted(1e-6) - weighted(-1e-6)) / 2e-6
    assert np.linalg.norm(gradient) == pytest.approx(slope, rel=1e-4)


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_click_that_the_network_disobeys_is_obeyed(
    patch: Patch, place: tuple[float, float, float]
) -> None:
    click = patch.wrong_at(place)
    found = tune(patch.refiner, patch.tensors, [click], patch.threshold, most_evaluations=60)
    assert found.obeyed
    assert 1 < found.evaluations <= 60
    better = patch.refiner.all_logits(patch.tensors, found.tuning)
    assert disobeyed(patch.logits, [click], patch.threshold)
    assert not disobeyed(better, [click], patch.threshold)


def test_only_the_methods_channels_change(patch: Patch) -> None:
    given = patch.tensors["input"].copy()
    click = patch.wrong_at(PLACES[0])
    found = tune(patch.refiner, patch.tensors, [click], patch.threshold)
    patch.refiner.all_logits(patch.tensors, found.tuning)
    moved = (patch.batches[-1] != given).any(axis=(0, 2, 3, 4))
    assert [SPEC.channels[n] for n in np.flatnonzero(moved)] == CHANGED[patch.method]
    assert np.array_equal(patch.tensors["input"], given)


def test_the_bundled_models_channels() -> None:
    spec = read_config("light").model.spec()
    named = {m: [spec.channels[n] for n in changed_channels(spec, m)] for m in METHODS}
    cues = ["geodesic_positive", "geodesic_negative", "intensity_difference"]
    assert named == {"rgb-brs": ["ct", "ct_wide"], "distmap-brs": ["positive", "negative", *cues]}


def test_the_input_is_given_as_it_was(patch: Patch) -> None:
    """Whatever becomes of the buffer."""
    batch = patch.tensors["input"].copy()
    given = patch.model.engine.run_graph({"input": batch})["input"]
    batch[:] = 0
    assert np.array_equal(given, patch.tensors["input"])


def test_no_search_begins_where_the_last_one_ended(
    patch: Patch, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scipy import optimize

    begun: list[np.ndarray] = []

    def minimize(function: Callable, begin: np.ndarray, **_: object) -> None:
        begun.append(begin)
        function(begin)

    monkeypatch.setattr(optimize, "minimize", minimize)
    click = patch.wrong_at(PLACES[0])
    found = tune(patch.refiner, patch.tensors, [click], patch.threshold, patch.some_tuning())
    assert not begun[0].any()
    assert begun[0].shape == found.tuning.bias.shape


def test_every_click_of_a_session_is_obeyed(patch: Patch, volume: cs.Volume) -> None:
    clicks = [cs.Click(CENTRE), cs.Click(BESIDE, False), cs.Click((20, 41, 50))]
    plain = cs.Model(patch.model.spec, cs.FunctionEngine(patch.run))
    before = cs.predict(plain, volume, clicks)
    assert any(before.mask[click.zyx] != click.positive for click in clicks)
    session = cs.Session(patch.model, volume)
    tuned = 0
    for click in clicks:
        session.click(click.zyx, click.positive)
        assert all(session.mask[c.zyx] == c.positive for c in session.clicks)
        told = session.prediction.refinement
        tuned += told.patches
        assert told.evaluations <= MOST_EVALUATIONS * told.patches
    assert tuned > 0
    assert np.array_equal(session.mask, cs.predict(patch.model, volume, clicks).mask)
    assert patch.model.refine == patch.method


def test_a_model_that_is_shared_answers_the_same(patch: Patch, volume: cs.Volume) -> None:
    clicks = [cs.Click(CENTRE), cs.Click(BESIDE, False)]
    shared = patch.model.shared()
    ours, theirs = (cs.predict(m, volume, clicks) for m in (shared, patch.model))
    assert np.array_equal(ours.mask, theirs.mask)
    shared.close()
    assert patch.closed == [True]


def test_an_unknown_method_is_refused(network: nn.Module) -> None:
    model = cs.Model(SPEC, cs.FunctionEngine(lambda batch: batch[:, :1]))
    with pytest.raises(cs.EngineError, match="'brs', allowed are rgb-brs, distmap-brs"):
        with_input_brs(model, network, "brs")
