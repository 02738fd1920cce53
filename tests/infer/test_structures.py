from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins import bright, make_ball, make_spec

import clickseg_infer as cs
from clickseg_infer.engines.shared import SharedEngine
from clickseg_infer.model import read_model_file, with_spec
from clickseg_infer.structures import CELL, CHANCES, IMAGE, Structures, informed, likeliest, meant

CENTRE = (20, 40, 50)


def chances_of(*named: float, cells: int = 4) -> np.ndarray:
    """The same chances everywhere; what is left has no name."""
    everywhere = np.array([1 - sum(named), *named], np.float32)
    return np.tile(everywhere[:, None, None, None], (1, cells, cells, cells))


def test_the_first_click_means_what_is_around_it() -> None:
    chances = chances_of(0.7, 0.1)
    chances[:, 1, 2, 3] = 0.0, 0.0, 1.0
    for zyx, cells in (((7, 8, 15), 18), ((8, 8, 8), 27), ((0, 15, 15), 8)):
        found = meant(None, chances, zyx, positive=True)
        assert np.allclose(found, np.add([0.2, 0.7, 0.1], np.array([-0.2, -0.7, 0.9]) / cells))
    assert np.allclose(meant(None, chances, (15, 0, 0), positive=True), [0.2, 0.7, 0.1])
    assert meant(None, chances, (7, 8, 15), positive=False) is None


def test_the_likeliest_structure_is_named_only_if_it_is_likelier_than_not() -> None:
    names = ("liver", "spleen")
    name, chance = likeliest(np.array([0.2, 0.2, 0.6], np.float32), names)
    assert (name, chance) == ("spleen", pytest.approx(0.6))
    assert likeliest(np.array([0.2, 0.4, 0.4], np.float32), names) is None
    assert likeliest(np.array([0.6, 0.4, 0.0], np.float32), names) is None
    assert likeliest(None, names) is None


def test_later_clicks_tell_which_structure_was_meant() -> None:
    before = np.array([0.1, 0.6, 0.3], np.float32)
    inside = meant(before, chances_of(0.1, 0.9), (0, 0, 0), positive=True)
    assert inside[2] > 0.6 > 0.2 > inside[1]
    beside = meant(before, chances_of(0.9, 0.05), (0, 0, 0), positive=False)
    assert beside[2] > beside[1]
    nowhere = meant(before, chances_of(0.0, 0.0), (0, 0, 0), positive=True)
    assert nowhere[0] > 0.7 > before[0]
    for found in (inside, beside, nowhere):
        assert found.sum() == pytest.approx(1)
        assert found.min() > 0  # no click rules anything out
    assert meant(before, chances_of(0.1, 0.9), (0, 16, 0), positive=True) is before
    other = meant(before, chances_of(0.5), (0, 0, 0), positive=True)  # of another model
    assert np.allclose(other, [0.5, 0.5])


def test_the_answer_is_the_mean_over_what_may_be_meant(rng: np.random.Generator) -> None:
    """Beside a plain calculation in float64."""
    logits = rng.normal(0, 3, (16, 16, 16)).astype(np.float32)
    chances = rng.dirichlet([1.0] * 4, (4, 4, 4)).transpose(3, 0, 1, 2).astype(np.float32)
    weights = np.array([0.3, 0.5, 0.19, 0.01], np.float32)
    found = informed(logits, chances, weights, 0.0)

    def along(values: np.ndarray, axis: int) -> np.ndarray:
        place = np.clip((np.arange(16) + 0.5) / CELL - 0.5, 0, 3)
        return np.apply_along_axis(lambda v: np.interp(place, np.arange(4), v), axis, values)

    expected = 0.31 / (1 + np.exp(-logits.astype(float)))
    for weight, chance in zip((0.5, 0.19), chances[1:3].astype(float), strict=True):
        chance = np.clip(chance, 1e-3, 1 - 1e-3)
        shift = np.log(chance / (1 - chance))
        for axis in range(3):
            shift = along(shift, axis)
        expected += weight / (1 + np.exp(-logits - shift))
    reached = logits > np.log(1e-3)
    assert np.allclose(found[reached], np.log(expected / (1 - expected))[reached], atol=1e-4)
    assert np.array_equal(found[~reached], logits[~reached])


def test_without_a_likely_structure_the_logits_are_those_of_the_clicks() -> None:
    logits = np.zeros((16, 16, 16), np.float32)
    weights = np.array([0.99, 0.01], np.float32)
    assert informed(logits, chances_of(1.0), weights, 0.0) is logits


@settings(max_examples=30)
@given(st.floats(-1e30, 1e30), st.floats(0, 1), st.floats(0, 1))
def test_any_logit_stays_finite_and_goes_where_the_structure_says(
    logit: float, chance: float, weight: float
) -> None:
    logits = np.full((16, 16, 16), logit, np.float32)
    weights = np.array([1 - weight, weight], np.float32)
    found = informed(logits, chances_of(chance), weights, 0.0)
    assert np.isfinite(found).all()
    moved = found[8, 8, 8] - np.clip(logit, -60, 60)
    if weight > 0.02 and -6 < logit < 6:
        assert moved >= -1e-3 if chance > 0.5 else moved <= 1e-3


def halves(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Where it is bright, structure 1 below the patch's middle along x, structure 2 above."""
    ct = inputs[IMAGE][0, 0]
    z, y, x = (n // CELL for n in ct.shape)
    cells = ct.reshape(z, CELL, y, CELL, x, CELL).mean((1, 3, 5)) > 0
    lower = np.arange(x) < x // 2
    one, two = (np.where(cells & there, 0.98, 0.01) for there in (lower, ~lower))
    return {CHANCES: np.stack([1 - one - two, one, two])[None].astype(np.float32)}


@pytest.fixture
def knowing() -> cs.Model:
    engine = cs.FunctionEngine(bright, graph=halves)
    return cs.Model(make_spec(structures=("one", "two")), engine, structures=Structures(engine))


def test_a_structure_decides_where_the_clicks_do_not(knowing: cs.Model) -> None:
    """The click network answers with the whole ball; its structure is one half of it."""
    volume = make_ball(25.0)
    plain = replace(knowing, structures=None)
    click = [cs.Click((20, 40, 38))]
    whole, half = (cs.predict(model, volume, click) for model in (plain, knowing))
    assert whole.meant is None
    assert "structures" not in whole.ms
    assert half.meant[1] > 0.8
    assert half.ms["structures"] > 0
    assert 0.3 < half.voxels / whole.voxels < 0.8
    assert not half.mask[:, :, 60:].any()


def test_with_structures_an_incremental_answer_equals_a_recomputation(knowing: cs.Model) -> None:
    volume = make_ball(25.0)
    session = cs.Session(knowing, volume)
    places = [(CENTRE, True), ((20, 40, 62), True), ((20, 52, 50), False), ((26, 40, 44), True)]
    for zyx, positive in places:
        session.click(zyx, positive)
        fresh = cs.predict(knowing, volume, session.clicks)
        assert np.array_equal(session.mask, fresh.mask)
        assert np.array_equal(session.prediction.meant, fresh.meant)
    with pytest.raises(ValueError, match="read-only"):
        session.prediction.meant[0] = 1
    latest = session.mask
    session.undo()
    session.redo()
    assert np.array_equal(session.mask, latest)


def test_late_clicks_and_sweeps_do_not_ask(
    knowing: cs.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, ...]] = []
    chances = Structures.chances

    def counted(structures: Structures, ct: np.ndarray) -> np.ndarray:
        asked.append(ct.shape)
        return chances(structures, ct)

    monkeypatch.setattr(Structures, "chances", counted)
    session, asks = cs.Session(knowing, make_ball(25.0)), []
    for x in (50, 62, 54, 46, 58):
        asked.clear()
        session.click((20, 40, x), x != 62)
        asks.append(len(asked) > 0)
    assert asks == [True, True, True, False, False]
    asked.clear()
    cs.predict(knowing, session.volume, session.clicks, session.prediction, whole_volume=True)
    assert not asked


def test_an_answer_that_a_budget_cut_short_becomes_the_whole_one(knowing: cs.Model) -> None:
    session = cs.Session(knowing, make_ball(25.0))
    session.click(CENTRE, budget_ms=1e-6)
    assert not session.final
    session.refine()
    assert session.final
    fresh = cs.predict(knowing, session.volume, session.clicks)
    assert np.array_equal(session.mask, fresh.mask)
    assert np.array_equal(session.prediction.meant, fresh.meant)


def test_a_mask_to_begin_with_means_nothing_until_a_click_adds(knowing: cs.Model) -> None:
    volume = make_ball(25.0)
    session = cs.Session(knowing, volume, volume.voxels > 0)
    session.click((20, 40, 66), False)
    assert session.prediction.meant is None
    session.click((20, 40, 46))
    assert session.prediction.meant is not None
    again = cs.predict(knowing, volume, session.clicks, session.start)
    assert np.array_equal(session.mask, again.mask)


def test_patches_need_not_be_cubes(rng: np.random.Generator) -> None:
    """Along each axis the chances rise, and so does what is made of level logits."""
    for axis, shape in enumerate(((48, 16, 32), (16, 48, 32), (16, 32, 48))):
        cells = [n // CELL for n in shape]
        chance = np.linspace(0.01, 0.99, cells[axis], dtype=np.float32)
        one = np.moveaxis(np.broadcast_to(chance, (*np.delete(cells, axis), len(chance))), -1, axis)
        logits = np.zeros(shape, np.float32)
        found = informed(logits, np.stack([1 - one, one]), np.array([0, 1], np.float32), 0.0)
        assert found.shape == shape
        assert (np.diff(found, axis=axis) >= 0).all()
        assert found.min() < -4 < 4 < found.max()


def test_structures_are_shared_by_threads(knowing: cs.Model) -> None:
    volume, click = make_ball(12.0), [cs.Click((20, 40, 46))]
    expected = cs.predict(knowing, volume, click).mask
    with knowing.shared() as shared, ThreadPoolExecutor(4) as pool:
        assert isinstance(shared.structures.engine, SharedEngine)
        for answer in pool.map(lambda _: cs.predict(shared, volume, click), range(4)):
            assert np.array_equal(answer.mask, expected)


def test_what_cannot_tell_structures_apart_closes_the_network(
    tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, content = read_model_file(tiny_onnx)
    (tmp_path / "bad.onnx").write_bytes(with_spec(content, spec, structures=b"no graph"))
    closed: list[cs.Model] = []
    monkeypatch.setattr(cs.Model, "close", lambda model: closed.append(model))
    with pytest.raises(cs.EngineError):
        cs.load_model(tmp_path / "bad.onnx")
    assert len(closed) == 1
