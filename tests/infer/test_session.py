import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import clickseg_infer as cs

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
    assert session.prediction.changed is not None
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


def test_a_failing_engine_leaves_the_session_as_it_was(
    bright_model: cs.Model, ball_volume: cs.Volume
) -> None:
    def fail(_: np.ndarray) -> np.ndarray:
        raise cs.EngineError("no power")

    session = cs.Session(cs.Model(bright_model.spec, cs.FunctionEngine(fail)), ball_volume)
    with pytest.raises(cs.EngineError, match="power"):
        session.click(CENTRE)
    assert session.clicks == ()


actions = st.one_of(
    st.tuples(
        st.just("click"),
        st.tuples(st.integers(12, 28), st.integers(30, 50), st.integers(40, 60)),
        st.booleans(),
    ),
    st.sampled_from([("undo",), ("redo",)]),
)


@settings(max_examples=15, deadline=None)
@given(steps=st.lists(actions, max_size=7))
def test_every_state_equals_a_recomputation(steps: list) -> None:
    from stand_ins import bright, make_ball, make_spec

    model, volume = cs.Model(make_spec(), cs.FunctionEngine(bright)), make_ball(25.0)
    session = cs.Session(model, volume)
    for action, *arguments in steps:
        try:
            getattr(session, action)(*arguments)
        except cs.ClickError:
            continue
    if session.clicks:
        assert np.array_equal(session.mask, cs.predict(model, volume, session.clicks).mask)
    else:
        assert not session.mask.any()
