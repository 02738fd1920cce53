import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins import bright, make_ball, make_spec, touchy

import clickseg_infer as cs
from clickseg_infer.look import Run, look
from clickseg_infer.workspace import Workspace

CENTRE = (20, 40, 50)


def test_click_undo_redo_reset(bright_model: cs.Model, ball_volume: cs.Volume) -> None:
    session = cs.Session(bright_model, ball_volume)
    assert session.clicks == ()
    assert session.mask.shape == ball_volume.shape
    assert not session.mask.any()
    assert session.undo() is False

    first = session.click(CENTRE)
    second = session.click((20, 40, 60), positive=False)
    assert not np.array_equal(first, second)
    assert session.changed is not None
    assert session.undo() is True
    assert np.array_equal(session.mask, first)
    assert session.redo() is True
    assert np.array_equal(session.mask, second)
    assert session.redo() is False
    session.undo()
    session.click((20, 45, 50))
    assert session.redo() is False  # a new click forgets what was undone
    session.reset()
    assert session.clicks == ()
    assert not session.mask.any()


@pytest.mark.parametrize("zyx", [(-1, 0, 0), (40, 0, 0), (0.5, 1, 1), (True, 1, 1)])
def test_a_refused_click_leaves_the_session_as_it_was(
    zyx: tuple, bright_model: cs.Model, ball_volume: cs.Volume
) -> None:
    session = cs.Session(bright_model, ball_volume)
    mask = session.click(CENTRE)
    with pytest.raises(cs.ClickError):
        session.click(zyx)
    with pytest.raises(cs.ClickError, match="contradict"):
        session.click(CENTRE, positive=False)
    assert session.clicks == (cs.Click(CENTRE),)
    assert np.array_equal(session.mask, mask)


def test_a_failing_engine_leaves_the_session_as_it_was(ball_volume: cs.Volume) -> None:
    left = [100]

    def failing(batch: np.ndarray) -> np.ndarray:
        left[0] -= 1
        if left[0] < 0:
            raise cs.EngineError("no power")
        return touchy(batch)

    session = cs.Session(cs.Model(make_spec(), cs.FunctionEngine(failing)), ball_volume)
    session.click(CENTRE)
    session.click((20, 40, 60))
    mask, changed = session.mask, session.changed
    for runs in (0, 1):
        left[0] = runs
        with pytest.raises(cs.EngineError, match="power"):
            session.remove(0)
        assert [click.zyx for click in session.clicks] == [CENTRE, (20, 40, 60)]
        assert np.array_equal(session.mask, mask)
        assert session.changed == changed
    left[0] = 100
    assert session.undo()
    assert session.redo()
    after = session.click((20, 45, 50))
    fresh = cs.predict(session.model, ball_volume, session.clicks)
    assert np.array_equal(after, fresh.mask)


places = st.tuples(st.integers(12, 28), st.integers(30, 50), st.integers(40, 60))
budgets = st.sampled_from([None, 1e-6, 1e6])
several = st.lists(st.builds(cs.Click, places, st.booleans()), max_size=3)
actions = st.one_of(
    st.tuples(st.just("click"), places, st.booleans(), budgets),
    st.tuples(st.just("remove"), st.integers(0, 5)),
    st.tuples(st.just("refine"), budgets),
    st.tuples(
        st.just("set_clicks"), st.lists(st.builds(cs.Click, places, st.booleans()), max_size=3)
    ),
    st.sampled_from([("undo",), ("redo",), ("reset",)]),
)


def act(session: cs.Session, action: str, *arguments: object) -> None:
    if action == "click":
        zyx, positive, budget = arguments
        session.click(zyx, positive, budget_ms=budget)
    else:
        getattr(session, action)(*arguments)


@settings(max_examples=30, deadline=None)
@given(steps=st.lists(actions, max_size=10), begun=st.booleans())
def test_every_state_equals_a_recomputation(steps: list, begun: bool) -> None:
    model = cs.Model(make_spec(), cs.FunctionEngine(touchy))
    volume = make_ball(60.0, (60, 90, 110))
    mask = (make_ball(15.0, volume.shape).voxels > 0) if begun else None
    session = cs.Session(model, volume, mask)
    for action, *arguments in steps:
        before = session.mask
        try:
            act(session, action, *arguments)
        except cs.ClickError:
            assert np.array_equal(session.mask, before)
            continue
        assert session.changed == box_of(session.mask != before)
    session.refine()
    assert session.final
    if session.clicks:
        fresh = cs.predict(model, volume, session.clicks, session.start)
        assert np.array_equal(session.mask, fresh.mask)
        assert session.prediction.box == fresh.box == box_of(fresh.mask)
    else:
        assert np.array_equal(session.mask, np.zeros(volume.shape) if mask is None else mask)


def box_of(array: np.ndarray) -> tuple | None:
    places = np.nonzero(array)
    return tuple((int(p.min()), int(p.max()) + 1) for p in places) if len(places[0]) else None


def counting(network: Callable[[np.ndarray], np.ndarray]) -> tuple[cs.Model, list[int]]:
    runs: list[int] = []

    def run(batch: np.ndarray) -> np.ndarray:
        runs.append(1)
        return network(batch)

    return cs.Model(make_spec(), cs.FunctionEngine(run)), runs


def test_a_budget_stops_the_patches_and_refine_goes_on_where_they_stopped() -> None:
    volume = make_ball(70.0, (80, 160, 200))  # larger than the widest patch
    whole, _ = counting(bright)
    expected = cs.predict(whole, volume, [cs.Click((40, 80, 100))])
    model, runs = counting(bright)
    session = cs.Session(model, volume)
    first = session.click((40, 80, 100), budget_ms=1e-6)
    assert not session.final
    assert len(runs) == 1
    assert 0 < first.sum() < expected.voxels
    while not session.final:
        before = len(runs)
        session.refine(budget_ms=1e-6)
        assert len(runs) <= before + 1
    assert len(runs) == expected.patches  # none ran twice
    assert np.array_equal(session.mask, expected.mask)
    assert np.array_equal(session.refine(), expected.mask)
    with pytest.raises(cs.ClickError, match="budget"):
        session.click((40, 80, 101), budget_ms=float("nan"))


def test_refining_goes_on_however_many_clicks_were_cut_short() -> None:
    volume = make_ball(70.0, (80, 160, 200))
    model, runs = counting(touchy)
    session = cs.Session(model, volume)
    for place in ((40, 80, 100), (40, 80, 60), (45, 90, 90)):
        session.click(place, budget_ms=1e-6)
        assert not session.final
    runs.clear()
    while not session.final:
        before = len(runs)
        session.refine(budget_ms=1e-6)
        assert len(runs) == before + 1
    assert np.array_equal(session.mask, cs.predict(model, volume, session.clicks).mask)


def test_an_answer_on_the_way_is_computed_once() -> None:
    volume, clicks = make_ball(25.0), [cs.Click((20, 40, x)) for x in (45, 50, 55, 60)]
    model, runs = counting(touchy)
    session = cs.Session(model, volume)
    session.set_clicks(clicks)
    before = len(runs)
    answers = list(session.each_answer())
    assert [len(answer.clicks) for answer in answers] == [1, 2, 3, 4]
    assert len(runs) == before


@pytest.mark.parametrize("what", ["spacing", "start", "on", "beside", "before"])
def test_a_patch_is_known_again_by_everything_that_its_input_has(what: str) -> None:
    volume, workspace = make_ball(25.0, (80, 160, 200)), Workspace()
    model, runs = counting(touchy)
    run = Run(model, volume, workspace)
    mask = cs.predict(model, volume, [cs.Click((40, 80, 100))])
    nothing = cs.Prediction((), volume.shape)
    usual: dict = {
        "clicks": (cs.Click((40, 80, 100)), cs.Click((40, 80, 120), False)),
        "known": mask,
        "spacing_mm": (4.0, 4.0, 4.0),
        "centre": (40.0, 80.0, 100.0),
    }
    on, beside = usual["clicks"]
    changes: dict = {
        "spacing": {"spacing_mm": (4.0, 4.0, 3.9)},
        "start": {"centre": (40.0, 90.0, 100.0)},
        "on": {"clicks": (cs.Click((40, 80, 105)), beside)},
        "beside": {"clicks": (on, cs.Click((40, 84, 120), False))},
        "before": {"known": nothing},
    }
    look(run, **usual)
    before = len(runs)
    look(run, **usual)
    assert len(runs) == before
    changed = look(run, **{**usual, **changes[what]})
    assert len(runs) > before
    fresh = look(Run(model, volume), **{**usual, **changes[what]})
    assert np.array_equal(changed.found.mask, fresh.found.mask)


def test_an_engine_may_reuse_its_array() -> None:
    volume, kept = make_ball(70.0, (80, 160, 200)), np.empty((1, 1, 32, 32, 32), np.float32)

    def reusing(batch: np.ndarray) -> np.ndarray:
        kept[:] = bright(batch)
        return kept

    click = [cs.Click((40, 80, 100))]
    ours, theirs = (
        cs.predict(cs.Model(make_spec(), cs.FunctionEngine(f)), volume, click)
        for f in (bright, reusing)
    )
    assert ours.patches > 1
    assert np.array_equal(ours.mask, theirs.mask)


def test_the_clock_decides_nothing_without_a_budget_and_nothing_final_is_cut_short(
    ball_volume: cs.Volume,
) -> None:
    model, _ = counting(bright)
    session = cs.Session(model, ball_volume)
    session.click(CENTRE, budget_ms=1e-6)
    assert not session.final
    after = session.click((20, 40, 60))  # what the first click left open is completed before
    assert np.array_equal(after, cs.predict(model, ball_volume, session.clicks).mask)
    cut = session.prediction
    with pytest.raises(cs.ClickError, match="budget"):
        cs.predict(model, ball_volume, session.clicks, budget_ms=0)
    early = cs.predict(model, ball_volume, session.clicks[:1], budget_ms=1e-6)
    with pytest.raises(cs.ClickError, match="not final"):
        cs.predict(model, ball_volume, session.clicks, early)
    assert session.prediction is cut


def test_patches_whose_input_did_not_change_are_not_run_again() -> None:
    voxels = np.full((60, 200, 30), -100, np.int16)
    voxels[20:40, 5:195, 10:20] = 100
    volume = cs.Volume(voxels, np.diag([2.0, 2.0, 2.0, 1.0]))
    model, runs = counting(bright)
    session = cs.Session(model, volume)
    session.click((30, 100, 15))
    session.click((30, 20, 15))
    before = len(runs)
    session.remove(1)
    session.click((30, 20, 15))  # as before
    assert len(runs) == before


def test_any_click_can_be_removed_and_the_removal_undone(
    bright_model: cs.Model, ball_volume: cs.Volume
) -> None:
    session = cs.Session(bright_model, ball_volume)
    session.click(CENTRE)
    session.click((25, 40, 50), positive=False)
    session.click((14, 45, 50))
    three = session.mask
    without = session.remove(1)
    assert [click.zyx for click in session.clicks] == [CENTRE, (14, 45, 50)]
    assert np.array_equal(without, cs.predict(bright_model, ball_volume, session.clicks).mask)
    session.undo()
    assert np.array_equal(session.mask, three)
    for number in (-1, 3):
        with pytest.raises(cs.ClickError, match="no click"):
            session.remove(number)
    session.undo()
    with pytest.raises(cs.ClickError, match="positive"):
        session.remove(0)  # only the negative click would be left
    assert len(session.clicks) == 2


def test_a_session_can_begin_with_a_mask(bright_model: cs.Model, ball_volume: cs.Volume) -> None:
    mask = np.zeros(ball_volume.shape, bool)
    mask[10:15, 20:30, 20:30] = True
    session = cs.Session(bright_model, ball_volume, mask)
    assert np.array_equal(session.mask, mask)
    cut = session.click((12, 25, 25), positive=False)  # no positive click is needed
    assert (cut <= mask).all()
    assert cut.sum() < mask.sum()
    session.click(CENTRE)
    assert session.mask[CENTRE]
    session.reset()
    assert np.array_equal(session.mask, mask)
    assert session.undo() is False
    with pytest.raises(cs.VolumeError, match="shape"):
        cs.Session(bright_model, ball_volume, mask[1:])


def test_two_hundred_clicks_and_their_undoing_keep_memory_level() -> None:
    volume = make_ball(60.0, (100, 160, 200))
    session = cs.Session(cs.Model(make_spec(), cs.FunctionEngine(bright)), volume)
    session.click((50, 80, 100))
    rng = np.random.default_rng(0)
    tracemalloc.start()
    sizes = []
    for count in range(200):
        z, y, x = (int(p) for p in rng.integers((35, 50, 60), (65, 110, 140)))
        session.click((z, y, x), positive=bool(count % 3))
        if count % 50 == 49:
            sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert session.prediction.crop.nbytes > 2e5
    # The history of 150 clicks takes a small part of the masks that it brings back.
    assert sizes[-1] - sizes[0] < 0.1 * 150 * session.prediction.crop.nbytes
    masks = {len(session.clicks): session.mask}
    while session.undo():
        pass
    assert session.clicks == ()
    while session.redo():
        pass
    assert np.array_equal(session.mask, masks[len(session.clicks)])
