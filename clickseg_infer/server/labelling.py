"""A labelling: the objects that one page marks on one scan, and the label map that they make."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.boxes import Box, box_at, origin_of, overlap, shape_of, slices_of, union
from clickseg_infer.clicks import Clicks
from clickseg_infer.errors import ClickError, ServerError, VolumeError
from clickseg_infer.file_grid import Index
from clickseg_infer.model import Model
from clickseg_infer.prediction import difference
from clickseg_infer.server.refusals import NotFoundError
from clickseg_infer.session import Session
from clickseg_infer.volume import Volume

Mask = NDArray[np.uint8]

MOST_OBJECTS = 32
MOST_CLICKS = 200
_MOST_NAME = 60  # letters


@dataclass
class LabelledObject:
    """One object: the value that its voxels have in the label map, its name, and its session."""

    number: int
    name: str
    session: Session

    @property
    def untouched(self) -> bool:
        """Whether nobody has done anything with it."""
        session = self.session
        return not session.clicks and session.start.box is None and not session.can_undo


class Labelling:
    """The objects of one scan, one of which is worked on at a time.

    Where several objects claim a voxel, it belongs to the one with the lowest number, whichever was
    clicked last; so an object that is finished keeps its voxels. But a voxel that was clicked for
    one of them, and that its mask holds, is its own. Not for several threads at once: whoever calls
    holds `lock`.

    Attributes:
        model: shared with other labellings; not closed.
        volume: the scan, which other labellings may share.
        name: of the scan, for people.
        from_nifti: whether the scan's voxels lie as in a file that people have; else, as for a
            DICOM series, only positions in mm mean something elsewhere.
        objects: by rising number.
        active: the object that is worked on.
        click_ms: what clicks took, as whoever answered them noted.
        actions: how many there have been, as whoever had them done counted.
        lock: to be held while calling.
    """

    def __init__(self, model: Model, volume: Volume, name: str, *, from_nifti: bool = True) -> None:
        self.model = model
        self.volume = volume
        self.name = name
        self.from_nifti = from_nifti
        self.active = self._object(1, Session(model, volume))
        self.objects = [self.active]
        self.click_ms: list[float] = []
        self.actions = 0
        self.lock = Lock()

    @property
    def p50_ms(self) -> float | None:
        """The median of what clicks took, None before the first."""
        return median(self.click_ms) if self.click_ms else None

    @property
    def labels(self) -> NDArray[np.uint8]:
        """The label map (z, y, x) uint8 of the volume's shape, newly made: each object's number."""
        z, y, x = self.volume.shape
        return self.labels_within(((0, z), (0, y), (0, x)))

    def labels_within(self, box: Box) -> NDArray[np.uint8]:
        """The part of the label map that lies in `box`."""
        labels = np.zeros(shape_of(box), np.uint8)
        for labelled in reversed(self.objects):
            labels[labelled.session.prediction.within(box) != 0] = labelled.number
        for zyx, number in self._clicked().items():
            if overlap(box, box_at(zyx)) is not None:
                labels[tuple(np.subtract(zyx, origin_of(box)))] = number
        return labels

    @property
    def box(self) -> Box | None:
        """Where something is marked, None if nothing is."""
        box: Box | None = None
        for labelled in self.objects:
            box = union(box, labelled.session.prediction.box)
        return box

    @property
    def voxels(self) -> list[int]:
        """How many voxels of the label map each object has."""
        counts = [self._first_claims(number) for number in range(len(self.objects))]
        numbers = [labelled.number for labelled in self.objects]
        for zyx, number in self._clicked().items():
            first = next(n for n, o in enumerate(self.objects) if o.session.prediction.holds(zyx))
            counts[first] -= 1
            counts[numbers.index(number)] += 1
        return counts

    def _first_claims(self, index: int) -> int:
        """How many voxels an object claims that none before it does."""
        answer = self.objects[index].session.prediction
        if answer.box is None:
            return 0
        own = answer.crop
        for other in self.objects[:index]:
            before = other.session.prediction
            shared = None if before.box is None else overlap(before.box, answer.box)
            if shared is not None:
                own = own.copy() if own is answer.crop else own
                own[slices_of(shared, origin_of(answer.box))] &= before.within(shared) ^ 1
        return int(np.count_nonzero(own))

    def _clicked(self) -> dict[Index, int]:
        """Voxels that are an object's own since it was clicked there, and its number."""
        return {
            click.zyx: labelled.number
            for labelled in reversed(self.objects)
            for click in labelled.session.clicks
            if click.positive and labelled.session.prediction.holds(click.zyx)
        }

    def click(self, ijk: tuple[int, int, int], positive: bool) -> Box | None:
        """Click the active object at a voxel of the scan's file; the box that changed.

        Raises:
            ClickError, EngineError: as `Session.click`; also where there are too many clicks.
        """
        session = self.active.session
        if len(session.clicks) >= MOST_CLICKS:
            raise ClickError(f"an object takes at most {MOST_CLICKS} clicks")
        zyx = self.volume.zyx_of_ijk(ijk)
        return self.change(lambda session: session.click(zyx, positive))

    def change(self, act: Callable[[Session], Any]) -> Box | None:
        """Have `act` change the active object's session; the box that changed.

        Raises:
            ClickError, EngineError: as the action. Nothing has changed then.
        """
        session = self.active.session
        before = set(session.clicks)
        act(session)
        box = session.changed
        for click in before ^ set(session.clicks):  # their voxels may change hands
            box = union(box, box_at(click.zyx))
        return box

    def begin_object(self) -> None:
        """Leave the active object as it is, and begin the next one.

        Raises:
            ServerError: the active object is still empty, or there are too many.
        """
        if self.active.session.prediction.box is None:
            raise ServerError(f"object {self.active.number} is still empty")
        number = self.objects[-1].number + 1
        if len(self.objects) >= MOST_OBJECTS or number > np.iinfo(np.uint8).max:
            raise ServerError(f"a labelling holds at most {MOST_OBJECTS} objects, numbered to 255")
        self.objects.append(self._object(number, Session(self.model, self.volume)))
        self.activate(number)

    def activate(self, number: int) -> None:
        """Go on with the object of that number.

        Raises:
            NotFoundError: there is none.
        """
        self.active.session.rest()
        self.active = self.find(number)

    def find(self, number: int) -> LabelledObject:
        """The object of that number.

        Raises:
            NotFoundError: there is none.
        """
        for labelled in self.objects:
            if labelled.number == number:
                return labelled
        raise NotFoundError(f"there is no object {number}")

    def rename(self, number: int, name: str) -> None:
        """Give an object another name.

        Raises:
            NotFoundError: there is no such object.
            ServerError: the name is empty or too long.
        """
        name = _checked_name(name)
        self.find(number).name = name

    def remove_object(self, number: int) -> Box | None:
        """Forget an object; the box that changed. One is always there, if need be a new one.

        Raises:
            NotFoundError: there is no such object.
        """
        gone = self.find(number)
        self.objects.remove(gone)
        if not self.objects:
            self.objects = [self._object(1, Session(self.model, self.volume))]
        if gone is self.active:
            self.active = self.objects[-1]
        return gone.session.prediction.box

    def set_threshold(self, threshold: float) -> Box | None:
        """Answer the active object's clicks again with another threshold; the box that changed.

        Exactly what a model of that threshold would have answered; each click can be undone.

        Raises:
            ModelError: not between 0 and 1.
            EngineError: the engine failed. Nothing has changed then.
        """
        before = self.active.session
        start = None if before.start.box is None else before.start.mask
        session = self._answered(before.clicks, threshold, start)
        self.active.session = session
        return difference(before.prediction, session.prediction)

    def put_object(
        self, number: int, name: str, clicks: Clicks, threshold: float | None = None
    ) -> Box | None:
        """Have an object of that number, name and clicks, and go on with it; the box that changed.

        What has the number goes. The masks are those that the clicks led to one by one.

        Raises:
            ServerError: too many objects, or an impossible number or name.
            ClickError, ModelError, EngineError: as `click` and `set_threshold`.
        """
        others = [labelled for labelled in self.objects if labelled.number != number]
        if not 1 <= number <= np.iinfo(np.uint8).max or len(others) >= MOST_OBJECTS:
            raise ServerError(f"a labelling holds at most {MOST_OBJECTS} objects, numbered to 255")
        if len(clicks) > MOST_CLICKS:
            raise ClickError(f"an object takes at most {MOST_CLICKS} clicks")
        own = self.model.spec.threshold
        session = self._answered(clicks, own if threshold is None else threshold, None)
        put = LabelledObject(number, _checked_name(name), session)
        gone = [labelled for labelled in self.objects if labelled.number == number]
        self.active.session.rest()
        self.objects = sorted([*others, put], key=lambda labelled: labelled.number)
        self.active = put
        box = session.prediction.box
        for labelled in gone:
            box = union(box, labelled.session.prediction.box)
        return box

    def _answered(self, clicks: Clicks, threshold: float, start: Mask | None) -> Session:
        """A session whose clicks were made one by one, so that each can be undone."""
        model = self.model
        if threshold != model.spec.threshold:
            spec = dataclasses.replace(model.spec, threshold=threshold)
            model = dataclasses.replace(model, spec=spec)
        session = Session(model, self.volume, start)
        for count in range(_first_answer(clicks, start is not None), len(clicks) + 1):
            session.set_clicks(clicks[:count])
        return session

    def begin_with(self, labels: NDArray[Any]) -> Box | None:
        """Begin anew with the objects of a label map; the box that changed.

        Args:
            labels: (z, y, x) integers of the volume's shape; each value but 0 becomes an object
                with that number. Not modified.

        Raises:
            VolumeError: nothing is marked, too many objects, or a value above 255.
        """
        values = np.unique(labels)
        values = values[values != 0].tolist()
        if not values:
            raise VolumeError("the mask is empty")
        if len(values) > MOST_OBJECTS or values[-1] > np.iinfo(np.uint8).max:
            raise VolumeError(
                f"at most {MOST_OBJECTS} objects numbered 1 to 255 can be continued, "
                f"the mask holds {len(values)} up to {values[-1]}"
            )
        gone = self.box
        self.objects = [
            self._object(n, Session(self.model, self.volume, labels == n)) for n in values
        ]
        self.active = self.objects[0]
        return union(gone, self.box)

    def _object(self, number: int, session: Session) -> LabelledObject:
        return LabelledObject(number, f"object {number}", session)


def threshold_of(labelled: LabelledObject) -> float:
    """The probability above which a voxel belongs to the object."""
    return labelled.session.model.spec.threshold


def _checked_name(name: str) -> str:
    """A name on one line; raises ServerError if it is empty or too long."""
    name = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    if not 0 < len(name) <= _MOST_NAME:
        raise ServerError(f"a name has 1 to {_MOST_NAME} letters")
    return name


def _first_answer(clicks: Clicks, begun: bool) -> int:
    """How many clicks it takes until there is something to answer; one if a mask was there."""
    if begun:
        return 1
    return 1 + next((n for n, click in enumerate(clicks) if click.positive), 0)
