from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stand_ins import bright, make_ball, make_spec

import clickseg_infer as cs
from clickseg_infer.engines.shared import SharedEngine
from clickseg_infer.meaning import Meaning, other_parts
from clickseg_infer.model import read_model_file, with_spec
from clickseg_infer.structures import CHANCES, IMAGE, Structures

CELL = 4
CENTRE = (20, 40, 50)
HALVES = np.s_[:, :, :50], np.s_[:, :, 50:]


def halves(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Where it is bright, structure 1 below the patch's middle along x, structure 2 above."""
    ct = inputs[IMAGE][0, 0]
    z, y, x = (n // CELL for n in ct.shape)
    cells = ct.reshape(z, CELL, y, CELL, x, CELL).mean((1, 3, 5)) > 0
    lower = np.arange(x) < x // 2
    one, two = (np.where(cells & there, 0.98, 0.01) for there in (lower, ~lower))
    return {CHANCES: np.stack([1 - one - two, one, two])[None].astype(np.float32)}


def everything(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Where it is bright, structure 1."""
    chances = halves(inputs)[CHANCES]
    chances[:, 1] += chances[:, 2] - 0.01
    chances[:, 2] = 0.01
    return {CHANCES: chances}


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
    assert half.meant.whole[0] + half.meant.part[0] > 0.8
    assert half.ms["structures"] > 0
    assert 0.3 < half.voxels / whole.voxels < 0.8
    assert not half.mask[:, :, 60:].any()


def same(one: Meaning, other: Meaning) -> bool:
    shares = [[[m.none], m.whole, m.part] for m in (one, other)]
    return all(map(np.array_equal, *shares)) and one.rivals == other.rivals


@pytest.fixture
def one_structure(knowing: cs.Model) -> cs.Model:
    engine = cs.FunctionEngine(bright, graph=everything)
    return replace(knowing, structures=Structures(engine))


def make_bar(length: int) -> cs.Volume:
    """A bar along x, longer than it is wide, of voxels that are no cubes."""
    voxels = np.full((40, 80, length), -100, np.int16)
    voxels[6:34, 15:65, 10 : length - 10] = 100
    return cs.Volume(voxels, np.diag([1.2, 1.5, 3.0, 1.0]))


def test_a_click_in_the_other_lung_leaves_one(one_structure: cs.Model) -> None:
    """Of one long structure; the click network alone takes away little."""
    volume = make_bar(100)
    clicks = [cs.Click((20, 40, 30)), cs.Click((20, 40, 70), False)]
    plain = replace(one_structure, structures=None)
    for model, least, most in ((plain, 0.5, 1), (one_structure, 0, 0.2)):
        mask = cs.predict(model, volume, clicks).mask > 0
        left, right = (mask[half].sum() / (volume.voxels[half] > 0).sum() for half in HALVES)
        assert left > 0.85
        assert least <= right <= most


def test_parts_are_told_apart_by_all_clicks_in_mm(
    one_structure: cs.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their distances in voxels of each patch, in mm, are those in the volume."""
    volume = make_bar(300)
    on = [(20, 40, 40), (22, 45, 60)]
    beside = (16, 30, 110)
    seen = []

    def noted(size: object, cell: object, spacing: object, ours: list, theirs: dict) -> dict:
        seen.append((spacing, ours, theirs))
        return other_parts(size, cell, spacing, ours, theirs)

    monkeypatch.setattr("clickseg_infer.look.other_parts", noted)
    clicks = [*(cs.Click(zyx) for zyx in on), cs.Click(beside, False)]
    cs.predict(one_structure, volume, clicks)
    with_rival = [(spacing, ours, theirs[0][0]) for spacing, ours, theirs in seen if theirs]
    assert len(with_rival) > 1
    for spacing, ours, theirs in with_rival:
        assert len(ours) == len(on)
        for ours_zyx, zyx in zip(ours, on, strict=True):
            away = np.subtract(zyx, beside) * volume.spacing_mm
            assert np.allclose(np.subtract(ours_zyx, theirs) * spacing, away, atol=max(spacing))


@pytest.mark.parametrize("budget_ms", [None, 1e-6])
def test_what_a_click_took_away_of_a_structure_later_clicks_leave_away(
    one_structure: cs.Model, budget_ms: float | None
) -> None:
    """Over several patches, the click beside the object in none of those that look later."""
    volume = make_bar(300)
    session = cs.Session(one_structure, volume)
    voxels = []
    for zyx, positive in (((20, 40, 40), True), ((20, 40, 110), False), ((12, 20, 20), True)):
        session.click(zyx, positive, budget_ms=budget_ms)
        if not session.final:
            session.refine()
        fresh = cs.predict(one_structure, volume, session.clicks)
        assert np.array_equal(session.mask, fresh.mask)
        assert same(session.prediction.meant, fresh.meant)
        voxels.append(fresh.voxels)
    assert voxels[1] < 0.8 * voxels[0]
    assert voxels[2] < 1.1 * voxels[1]
    assert not session.mask[:, :, 90:155].any()


def test_with_structures_an_incremental_answer_equals_a_recomputation(knowing: cs.Model) -> None:
    volume = make_ball(25.0)
    session = cs.Session(knowing, volume)
    places = [(CENTRE, True), ((20, 40, 62), True), ((20, 52, 50), False), ((26, 40, 44), True)]
    for zyx, positive in places:
        session.click(zyx, positive)
        fresh = cs.predict(knowing, volume, session.clicks)
        assert np.array_equal(session.mask, fresh.mask)
        assert same(session.prediction.meant, fresh.meant)
    with pytest.raises(ValueError, match="read-only"):
        session.prediction.meant.whole[0] = 1
    latest = session.mask
    session.undo()
    session.redo()
    assert np.array_equal(session.mask, latest)


def test_every_click_asks_and_a_sweep_does_not(
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
    assert asks == [True] * 5
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
    assert same(session.prediction.meant, fresh.meant)


def test_a_mask_to_begin_with_means_nothing_until_a_click_adds(knowing: cs.Model) -> None:
    volume = make_ball(25.0)
    session = cs.Session(knowing, volume, volume.voxels > 0)
    session.click((20, 40, 66), False)
    assert session.prediction.meant is None
    session.click((20, 40, 46))
    assert session.prediction.meant is not None
    again = cs.predict(knowing, volume, session.clicks, session.start)
    assert np.array_equal(session.mask, again.mask)


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
