"""A session on file: what was clicked on which image, and the mask after each click.

The file is a click file (`clicks.SCHEMA`) with more in it: what reads clicks reads recordings.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.atomic_write import write_whole
from clickseg_infer.clicks import Clicks, click_content, read_clicks
from clickseg_infer.errors import ClickError, ReplayError
from clickseg_infer.files import PathLike
from clickseg_infer.model import Model
from clickseg_infer.prediction import Prediction
from clickseg_infer.session import Session
from clickseg_infer.volume import Volume


@dataclass(frozen=True)
class Recording:
    """The clicks of a session, and what they must lead to. Hashes are sha256 in hexadecimal.

    Attributes:
        clicks: in order.
        image: `image_hash` of the volume. This and what follows is empty where nothing was said.
        model: hash of the model file.
        engine: its name.
        precision: in which it computed.
        refine: how answers were refined.
        start: `mask_hash` of the mask that the session began with.
        masks: click count -> `mask_hash` of the answer to so many clicks.
    """

    clicks: Clicks
    image: str
    model: str
    engine: str
    precision: str
    refine: str
    start: str
    masks: dict[int, str]


@dataclass(frozen=True, eq=False)
class Step:
    """One click of a replay: the answer, its `mask_hash`, and the recorded one ("" if none is)."""

    answer: Prediction
    mask: str
    recorded: str

    @property
    def differs(self) -> bool:
        """Whether another mask was recorded."""
        return bool(self.recorded) and self.mask != self.recorded


def record(session: Session) -> Recording:
    """What a session has done, with the hash of the mask after each of its clicks.

    Raises:
        EngineError: an answer that the session no longer had could not be computed again.
    """
    model = session.model
    masks = {len(answer.clicks): mask_hash(answer) for answer in session.each_answer()}
    return Recording(
        session.clicks,
        image_hash(session.volume),
        model.sha256,
        model.engine.name,
        model.engine.precision,
        model.refine,
        mask_hash(session.start),
        masks,
    )


def replay(
    model: Model,
    volume: Volume,
    recording: Recording,
    mask: NDArray[Any] | None = None,
    *,
    expect: bool = False,
) -> Iterator[Step]:
    """Answer the recorded clicks one after the other.

    Args:
        model: to replay with; need not be the one that was recorded.
        volume: the scan.
        recording: from `read_recording` or `record`.
        mask: (z, y, x), what the recorded session began with, if it did not begin with nothing.
        expect: whether every mask must be the recorded one.

    Raises:
        ClickError: there are no clicks, or they cannot be answered.
        EngineError: the engine failed.
        ReplayError: `expect`, and something differs from what was recorded; the first is named.
    """
    if not recording.clicks:
        raise ClickError("there are no clicks to replay")
    if expect:
        check_same(recording, model, volume, mask)
    replayed = set()
    for answer in Session(model, volume, mask).each_answer(recording.clicks):
        count = len(answer.clicks)
        step = Step(answer, mask_hash(answer), recording.masks.get(count, ""))
        if expect and step.mask != step.recorded:
            raise ReplayError(
                f"the mask after click {count} differs: "
                f"recorded was {step.recorded or 'none'}, this is {step.mask}"
            )
        replayed.add(count)
        yield step
    if expect and set(recording.masks) != replayed:
        raise ReplayError(f"masks were recorded after clicks {sorted(recording.masks)}")


def check_same(
    recording: Recording, model: Model, volume: Volume, mask: NDArray[Any] | None = None
) -> None:
    """Raise ReplayError if a replay cannot be expected to lead to the recorded masks.

    In bfloat16 another kind of CPU, or another version of the engine, may differ all the same.

    Raises:
        ReplayError: nothing was recorded, or of another image, model, engine, precision,
            refinement or first mask. It names the first that differs.
    """
    if not recording.masks:
        raise ReplayError("the file holds clicks but no recorded masks")
    start = mask_hash(Session(model, volume, mask).start)
    pairs = {
        "image": (recording.image, image_hash(volume)),
        "first mask": (recording.start, start),
        "model": (recording.model, model.sha256),
        "engine": (recording.engine, model.engine.name),
        "precision": (recording.precision, model.engine.precision),
        "refinement": (recording.refine, model.refine),
    }
    for what, (recorded, ours) in pairs.items():
        if recorded != ours:
            raise ReplayError(f"another {what}: recorded was {recorded or 'none'}, this is {ours}")


def write_recording(path: PathLike, recording: Recording, volume: Volume) -> None:
    """Write a recording as a click file.

    Raises:
        FileError: the file cannot be written; nothing is left behind.
    """
    content = recording_content(recording, volume)
    write_whole(Path(path), (json.dumps(content, indent=1) + "\n").encode())


def recording_content(recording: Recording, volume: Volume) -> dict[str, Any]:
    """What a recording's file says, as plain values."""
    return {
        **click_content(recording.clicks, volume),
        "image": {"sha256": recording.image},
        "model": {"sha256": recording.model},
        "engine": {"name": recording.engine, "precision": recording.precision},
        "refine": recording.refine,
        "start": {"mask_sha256": recording.start},
        "expect": [
            {"after": count, "mask_sha256": mask} for count, mask in recording.masks.items()
        ],
    }


def read_recording(path: PathLike, volume: Volume) -> Recording:
    """Read a click file, and what else it recorded, if anything.

    Raises:
        FileError, ClickError: as `read_clicks`; also where what was recorded has not the form that
            `write_recording` gives it.
    """
    clicks = read_clicks(path, volume)
    content = json.loads(Path(path).read_text("utf-8-sig"))
    try:
        image, model, engine, start = (
            content.get(key, {}) for key in ("image", "model", "engine", "start")
        )
        masks = {int(e["after"]): str(e["mask_sha256"]) for e in content.get("expect", [])}
        return Recording(
            clicks,
            str(image.get("sha256", "")),
            str(model.get("sha256", "")),
            str(engine.get("name", "")),
            str(engine.get("precision", "")),
            str(content.get("refine", "none" if masks else "")),
            str(start.get("mask_sha256", "")),
            masks,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ClickError(f"{path}: what was recorded is damaged: {error!r}") from error


def image_hash(volume: Volume) -> str:
    """The hash of a scan's voxels (as HU, towards superior, anterior and right) and affine."""
    digest = hashlib.sha256(f"{volume.shape} {volume.voxels.dtype}".encode())
    digest.update(np.round(volume.affine, 4).tobytes())
    for plane in volume.voxels:
        digest.update(np.ascontiguousarray(plane).data)
    return digest.hexdigest()


def mask_hash(answer: Prediction) -> str:
    """The hash of a mask: its shape, the box that it fills, and its bits within."""
    digest = hashlib.sha256(f"{answer.shape} {answer.box}".encode())
    digest.update(np.packbits(answer.crop).tobytes())
    return digest.hexdigest()
