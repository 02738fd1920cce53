"""Several objects on one scan, without any HTTP."""

import dataclasses

import numpy as np
import pytest
from stand_ins import make_ball, make_spec

import clickseg_infer as cs
from clickseg_infer.boxes import slices_of
from clickseg_infer.errors import ClickError, ServerError, VolumeError
from clickseg_infer.server.labelling import MOST_OBJECTS, Labelling
from clickseg_infer.server.refusals import NotFoundError

CENTRE = (50, 40, 20)  # of the ball, (i, j, k)


def two_balls() -> cs.Volume:
    """Two balls of 100 HU side by side along x, which do not touch."""
    one = make_ball(12.0).voxels
    voxels = np.maximum(np.roll(one, -25, axis=2), np.roll(one, 25, axis=2))
    return cs.Volume(voxels, np.diag([1.2, 1.5, 3.0, 1.0]))


LEFT, RIGHT = (25, 40, 20), (75, 40, 20)


@pytest.fixture
def labelling(bright_model: cs.Model) -> Labelling:
    return Labelling(bright_model, two_balls(), "balls")


def test_one_object_is_a_session(bright_model: cs.Model, labelling: Labelling) -> None:
    labelling.click(LEFT, True)
    alone = cs.Session(bright_model, labelling.volume)
    expected = alone.click(labelling.volume.zyx_of_ijk(LEFT))
    assert expected.any()
    np.testing.assert_array_equal(labelling.labels, expected)


def test_each_object_has_its_number_and_keeps_it(labelling: Labelling) -> None:
    labelling.click(LEFT, True)
    first = labelling.labels
    labelling.begin_object()
    labelling.click(RIGHT, True)
    labels = labelling.labels
    assert set(np.unique(labels)) == {0, 1, 2}
    np.testing.assert_array_equal(labels == 1, first == 1)
    assert labels[labelling.volume.zyx_of_ijk(RIGHT)] == 2


def test_a_voxel_belongs_to_the_object_with_the_lowest_number(labelling: Labelling) -> None:
    labelling.click(LEFT, True)
    own = labelling.labels
    labelling.begin_object()
    labelling.click(LEFT, True)  # the same ball again
    np.testing.assert_array_equal(labelling.labels, own)
    assert labelling.voxels == [np.count_nonzero(own), 0]
    box = labelling.remove_object(1)
    assert box is not None
    assert labelling.labels_within(box).max() == 2  # what was hidden comes out
    assert labelling.voxels == [np.count_nonzero(own)]


def test_a_clicked_voxel_belongs_to_the_object_that_it_was_clicked_for(
    labelling: Labelling,
) -> None:
    labelling.click(LEFT, True)
    before = labelling.labels
    labelling.begin_object()
    other = (28, 42, 21)  # of the same ball
    zyx = labelling.volume.zyx_of_ijk(other)
    box = labelling.click(other, True)
    expected = before.copy()
    expected[zyx] = 2
    np.testing.assert_array_equal(labelling.labels, expected)
    assert labelling.voxels == [np.count_nonzero(before) - 1, 1]
    assert box is not None
    patched = before.copy()
    patched[slices_of(box)] = labelling.labels_within(box)
    np.testing.assert_array_equal(patched, expected)
    again = (24, 41, 20)
    labelling.click(again, True)
    labels = labelling.labels
    assert [labels[labelling.volume.zyx_of_ijk(ijk)] for ijk in (LEFT, other, again)] == [1, 2, 2]
    assert labelling.voxels == [np.count_nonzero(labels == number) for number in (1, 2)]
    labelling.change(cs.Session.undo)
    np.testing.assert_array_equal(labelling.labels, expected)


def test_the_changed_box_holds_every_change(labelling: Labelling, rng: np.random.Generator) -> None:
    before = labelling.labels
    actions = [
        lambda: labelling.click(LEFT, True),
        lambda: labelling.click((27, 41, 20), False),
        lambda: labelling.change(cs.Session.undo),
        lambda: labelling.begin_object(),
        lambda: labelling.click(RIGHT, True),
        lambda: labelling.begin_object(),
        lambda: labelling.click((77, 41, 20), True),
        lambda: labelling.click((73, 39, 20), True),
        lambda: labelling.change(cs.Session.undo),
        lambda: labelling.change(lambda session: session.remove(0)),
        lambda: labelling.change(cs.Session.undo),
        lambda: labelling.set_threshold(0.3),
        lambda: labelling.change(cs.Session.reset),
        lambda: labelling.begin_with(np.roll(before + 3, 1) % 7),
        lambda: labelling.remove_object(labelling.objects[-1].number),
    ]
    for number, action in enumerate(actions):
        box, after = action(), labelling.labels
        patched = before.copy()
        if box is not None:
            patched[slices_of(box)] = labelling.labels_within(box)
        np.testing.assert_array_equal(patched, after, err_msg=f"action {number}")
        before = after


def test_a_threshold_is_answered_as_by_a_model_of_that_threshold(ball_volume: cs.Volume) -> None:
    def soft(batch: np.ndarray) -> np.ndarray:
        """Surer in the middle of what was clicked than at its edge."""
        return (3 * batch[:, :1] + 20 * batch[:, 1:2] - 2).astype(np.float32)

    spec = make_spec()
    engine = cs.FunctionEngine(soft)
    labelling = Labelling(cs.Model(spec, engine), ball_volume, "ball")
    clicks = [(CENTRE, True), ((60, 40, 20), True), ((10, 10, 5), False)]
    for ijk, positive in clicks:
        labelling.click(ijk, positive)
    usual = labelling.labels
    labelling.set_threshold(0.9)
    strict = dataclasses.replace(spec, threshold=0.9)
    placed = [cs.Click(ball_volume.zyx_of_ijk(ijk), positive) for ijk, positive in clicks]
    expected = cs.predict(cs.Model(strict, engine), ball_volume, placed).mask
    np.testing.assert_array_equal(labelling.labels, expected)
    assert (labelling.labels != usual).any()
    for left in (2, 1, 0):  # each click can still be taken back
        labelling.change(cs.Session.undo)
        assert len(labelling.active.session.clicks) == left


def test_continuing_a_label_map_keeps_its_numbers(labelling: Labelling) -> None:
    labels = np.zeros(labelling.volume.shape, np.int32)
    labels[5:9, 5:9, 5:9], labels[20:25, 20:25, 20:25] = 7, 3
    labelling.begin_with(labels)
    assert [o.number for o in labelling.objects] == [3, 7]
    np.testing.assert_array_equal(labelling.labels, labels)
    labelling.begin_object()
    assert labelling.active.number == 8


def test_what_is_refused_changes_nothing(labelling: Labelling) -> None:
    labelling.click(LEFT, True)
    before = labelling.labels
    too_many = np.arange(before.size).reshape(before.shape) % (MOST_OBJECTS + 2)
    for error, action in (
        (ClickError, lambda: labelling.click((1000, 0, 0), True)),
        (ClickError, lambda: labelling.click(LEFT, False)),
        (NotFoundError, lambda: labelling.activate(9)),
        (NotFoundError, lambda: labelling.remove_object(9)),
        (ServerError, lambda: labelling.rename(1, " \n ")),
        (VolumeError, lambda: labelling.begin_with(np.zeros_like(before))),
        (VolumeError, lambda: labelling.begin_with(too_many)),
        (VolumeError, lambda: labelling.begin_with(before.astype(int) * 300)),
    ):
        with pytest.raises(error):
            action()
        np.testing.assert_array_equal(labelling.labels, before)
        assert [o.number for o in labelling.objects] == [1]
    labelling.begin_object()
    with pytest.raises(ServerError, match="object 2 is still empty"):
        labelling.begin_object()
