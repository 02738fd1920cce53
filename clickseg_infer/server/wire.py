"""What goes over the wire: requests, replies, and a changed box in as few bytes as it takes.

Positions are voxel indices (i, j, k) of the scan's file, as in click files. Labels of a box are
one byte a voxel with i running fastest, in the file's own order whatever it is; compressed by zlib
(RFC 1950) and written in base64, so that a reply is plain JSON.
"""

from base64 import b64encode
from time import perf_counter
from typing import Annotated

import numpy as np
from isal import isal_zlib
from pydantic import BaseModel, ConfigDict, Field

from clickseg_infer.boxes import Box, origin_of
from clickseg_infer.refinement.tuning import Refinement
from clickseg_infer.server.labelling import (
    MOST_CLICKS,
    LabelledObject,
    Labelling,
    threshold_of,
)

_LEVEL = 1  # of ISA-L; labels are runs, and a higher level costs more than it saves

_FAR = 1 << 31  # no scan has an index beyond this

Voxel = tuple[int, int, int]


class Strict(BaseModel):
    """A request: unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", strict=True)


class OpenRequest(Strict):
    """Which of the scans that the server has is to be opened; the first without a name."""

    scan: str | None = Field(None, max_length=1000)


class ClickRequest(Strict):
    """A click at voxel (i, j, k) of the scan's file."""

    ijk: list[Annotated[int, Field(ge=-_FAR, le=_FAR)]] = Field(min_length=3, max_length=3)
    positive: bool = True


class ObjectRequest(Strict):
    """What is to be different about an object: its name, or that it is the one worked on."""

    name: str | None = Field(None, max_length=1000)
    active: bool | None = None


class PutRequest(Strict):
    """An object as a page remembers it: its name, clicks and threshold, the model's own if none."""

    name: str = Field(max_length=1000)
    clicks: list[ClickRequest] = Field(max_length=MOST_CLICKS)
    threshold: float | None = Field(None, gt=0, lt=1)


class ThresholdRequest(Strict):
    """The probability above which a voxel belongs to the active object."""

    threshold: float = Field(gt=0, lt=1)


class About(BaseModel):
    """What the server offers."""

    version: str
    model: str
    threshold: float
    engine: str
    precision: str
    scans: list[str]
    most_upload_bytes: int


class Clicked(BaseModel):
    """A click that has been made."""

    ijk: Voxel
    positive: bool


class ObjectState(BaseModel):
    """One object of a labelling."""

    number: int
    name: str
    voxels: int
    ml: float
    threshold: float
    began_with_mask: bool
    clicks: list[Clicked]


class State(BaseModel):
    """A labelling: everything about it but its voxels.

    Attributes:
        affine: from the file's (i, j, k) to mm towards right, anterior and superior, row by row;
            the page shows the scan by it, whatever the viewer makes of the header.
        actions: how many there have been; a page that misses one asks for all labels anew.
        refinement: how the active object came to obey its clicks; null where nothing refines.
    """

    session: str
    scan: str
    shape: Voxel
    affine: list[list[float]]
    actions: int
    active: int
    objects: list[ObjectState]
    can_undo: bool
    can_redo: bool
    refinement: Refinement | None
    p50_ms: float | None


class ChangedBox(BaseModel):
    """The labels within a box: half-open bounds along i, j and k, and the labels in base64."""

    box: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    labels: str


class Change(BaseModel):
    """A reply to an action: where labels changed, how it stands now, and what it took."""

    changed: ChangedBox | None
    state: State
    ms: dict[str, float]


def change(key: str, labelling: Labelling, box: Box | None, began: float) -> Change:
    """The reply to an action that changed `box`.

    Args:
        key: under which the labelling is known.
        labelling: as it is after the action.
        box: (z, y, x) bounds, or None where nothing changed.
        began: `perf_counter` when the request came in.
    """
    acted = perf_counter()
    changed = None if box is None else changed_box(labelling, box)
    state = state_of(key, labelling)
    ms = {"act": (acted - began) * 1e3, "total": (perf_counter() - began) * 1e3}
    return Change(changed=changed, state=state, ms=ms)


def changed_box(labelling: Labelling, box: Box) -> ChangedBox:
    """The labels within a box of the volume, in the order of the scan's file."""
    labels, grid = labelling.labels_within(box), labelling.volume.file_grid
    stored = labels.transpose(2, 1, 0) if grid is None else grid.from_zyx(labels)
    corners = [origin_of(box), tuple(high - 1 for _, high in box)]
    first, last = (labelling.volume.ijk_of_zyx(corner) for corner in corners)  # type: ignore[arg-type]
    bounds = tuple((min(a, b), max(a, b) + 1) for a, b in zip(first, last, strict=True))
    packed = isal_zlib.compress(np.ascontiguousarray(stored.T), level=_LEVEL)
    return ChangedBox(box=bounds, labels=b64encode(packed).decode("ascii"))  # type: ignore[arg-type]


def state_of(key: str, labelling: Labelling) -> State:
    """Everything about a labelling but its voxels."""
    session, grid = labelling.active.session, labelling.volume.file_grid
    return State(
        session=key,
        scan=labelling.name,
        shape=labelling.volume.shape[::-1] if grid is None else grid.shape,
        affine=(labelling.volume.affine if grid is None else grid.affine).tolist(),
        actions=labelling.actions,
        active=labelling.active.number,
        objects=[
            _object_state(labelling, labelled, voxels)
            for labelled, voxels in zip(labelling.objects, labelling.voxels, strict=True)
        ],
        can_undo=session.can_undo,
        can_redo=session.can_redo,
        refinement=session.prediction.refinement,
        p50_ms=labelling.p50_ms,
    )


def _object_state(labelling: Labelling, labelled: LabelledObject, voxels: int) -> ObjectState:
    volume, session = labelling.volume, labelled.session
    return ObjectState(
        number=labelled.number,
        name=labelled.name,
        voxels=voxels,
        ml=voxels * volume.voxel_ml,
        threshold=threshold_of(labelled),
        began_with_mask=session.start.box is not None,
        clicks=[
            Clicked(ijk=volume.ijk_of_zyx(click.zyx), positive=click.positive)
            for click in session.clicks
        ],
    )
