"""Clicks: points that a person put on the object, or beside it, and the files that hold them."""

import json
import operator
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clickseg_infer.atomic_write import write_whole
from clickseg_infer.errors import ClickError, FileError
from clickseg_infer.file_grid import Index
from clickseg_infer.files import PathLike
from clickseg_infer.volume import Volume

SCHEMA = "clickseg.clicks/1"
SPACES = ("ijk", "ras", "lps")
# A single letter must stand alone: "N-1" says negative, "N1 node" says lymph node.
_POSITIVE = re.compile(r"(p(?![a-z0-9])|(pos|positive|fg|foreground)(?![a-z])|\+)", re.IGNORECASE)
_NEGATIVE = re.compile(r"(n(?![a-z0-9])|(neg|negative|bg|background)(?![a-z])|-)", re.IGNORECASE)
_SLICER_SUFFIX = ".mrk.json"


@dataclass(frozen=True)
class Click:
    """One click in a volume's own grid.

    Attributes:
        zyx: the voxel (z, y, x).
        positive: True on the object, False beside it.

    Raises:
        ClickError: a position that is not three whole numbers.
    """

    zyx: Index
    positive: bool = True

    def __post_init__(self) -> None:
        try:
            z, y, x = (operator.index(p) for p in self.zyx if not isinstance(p, bool))
        except (TypeError, ValueError) as error:
            raise ClickError(
                f"a click needs three whole voxel indices (z, y, x), not {self.zyx!r}"
            ) from error
        object.__setattr__(self, "zyx", (z, y, x))
        object.__setattr__(self, "positive", bool(self.positive))


Clicks = tuple[Click, ...]


def check_clicks(clicks: Sequence[Click], volume: Volume) -> None:
    """Raise ClickError unless the clicks can be answered on the volume.

    Raises:
        ClickError: no positive click, a click outside, or both polarities on one voxel.
    """
    check_places(clicks, volume)
    if not any(click.positive for click in clicks):
        raise ClickError(f"at least one positive click is needed, there are 0 of {len(clicks)}")


def check_places(clicks: Sequence[Click], volume: Volume) -> None:
    """Raise ClickError if a click lies outside the volume, or two contradict each other."""
    polarity: dict[Index, bool] = {}
    for number, click in enumerate(clicks, start=1):
        at = f"(i, j, k) = {volume.ijk_of_zyx(click.zyx)}, which is (z, y, x) = {click.zyx}"
        if not volume.contains(click.zyx):
            grid = volume.file_grid
            size = grid.shape if grid else volume.shape[::-1]
            raise ClickError(
                f"click {number} lies outside the volume of (i, j, k) {size} voxels: {at}"
            )
        if polarity.setdefault(click.zyx, click.positive) != click.positive:
            raise ClickError(f"clicks of both polarities contradict each other at {at}")


def read_clicks(path: PathLike, volume: Volume) -> Clicks:
    """Read a click file: clickseg's own JSON, MONAI Label's, or 3D Slicer's `.mrk.json`.

    Positions in mm become the nearest voxel of `volume`. The order of the file is kept; files
    without an order (MONAI Label's) give the positive clicks first.

    Raises:
        FileError: missing, unreadable, or not JSON.
        ClickError: an unknown schema, or clicks that `check_places` refuses; whether any is
            positive is not asked yet, since more clicks may come from elsewhere.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text("utf-8-sig"), object_pairs_hook=_unique)
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ClickError as error:
        raise ClickError(f"{path}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path}: not JSON: {error}") from error
    try:
        clicks = tuple(_parse(content, path, volume))
        check_places(clicks, volume)
    except ClickError as error:
        raise ClickError(f"{path}: {error}") from None
    return clicks


def parse_voxel(text: str, positive: bool, volume: Volume) -> Click:
    """A click from "I,J,K", the voxel indices that NIfTI tools show.

    Raises:
        ClickError: not three whole numbers.
    """
    try:
        i, j, k = (int(part) for part in text.split(","))
    except ValueError as error:
        raise ClickError(f"a click must be three whole numbers I,J,K, not {text!r}") from error
    return Click(volume.zyx_of_ijk((i, j, k)), positive)


def write_clicks(path: PathLike, clicks: Sequence[Click], volume: Volume) -> None:
    """Write clicks as clickseg's own JSON, in the voxel indices (i, j, k) of the volume's file.

    Raises:
        FileError: the file cannot be written; nothing is left behind.
    """
    write_whole(Path(path), (json.dumps(click_content(clicks, volume), indent=1) + "\n").encode())


def click_content(clicks: Sequence[Click], volume: Volume) -> dict[str, Any]:
    """What a click file says of the clicks, as plain values."""
    return {
        "schema": SCHEMA,
        "space": "ijk",
        "clicks": [
            {"position": list(volume.ijk_of_zyx(click.zyx)), "positive": click.positive}
            for click in clicks
        ],
    }


def _parse(content: Any, path: Path, volume: Volume) -> Iterable[Click]:
    if isinstance(content, dict):
        if "schema" in content:
            return _parse_own(content, volume)
        if isinstance(content.get("markups"), list):
            return _parse_markups(content["markups"], path, volume)
        if "foreground" in content or "background" in content:
            return _parse_monai(content, volume)
    raise ClickError(
        f"unknown click file: expected a schema {SCHEMA!r}, MONAI Label's foreground and "
        "background lists, or 3D Slicer's markups"
    )


def _parse_own(content: dict[str, Any], volume: Volume) -> Iterable[Click]:
    if content["schema"] != SCHEMA:
        raise ClickError(f"unknown schema {content['schema']!r}, this version reads {SCHEMA!r}")
    space = content.get("space")
    if space not in SPACES:
        raise ClickError(f"unknown space {space!r}, allowed are {', '.join(SPACES)}")
    clicks = content.get("clicks")
    if not isinstance(clicks, list):
        raise ClickError("'clicks' must be a list")
    objects = {str(click.get("object")) for click in clicks if isinstance(click, dict)}
    if len(objects) > 1:
        raise ClickError(f"one object at a time: the clicks are on objects {sorted(objects)}")
    for number, click in enumerate(clicks, start=1):
        if not isinstance(click, dict) or not isinstance(click.get("positive"), bool):
            raise ClickError(f"click {number} needs a 'position' and a 'positive' of true or false")
        yield Click(_voxel(click.get("position"), space, volume), click["positive"])


def _parse_monai(content: dict[str, Any], volume: Volume) -> Iterable[Click]:
    labels = [label for label in content if label != "background"]
    if len(labels) != 1:
        raise ClickError(f"one object at a time: the file names {len(labels)} labels {labels}")
    for label, positive in ((labels[0], True), ("background", False)):
        points = content.get(label, [])
        if not isinstance(points, list):
            raise ClickError(f"{label!r} must be a list of voxels, not {_shown(points)}")
        for point in points:
            yield Click(_voxel(point, "ijk", volume), positive)


def _parse_markups(markups: list[Any], path: Path, volume: Volume) -> Iterable[Click]:
    """3D Slicer's markups, schema 1.0: LPS unless a list says RAS."""
    for markup in markups:
        if not isinstance(markup, dict) or not isinstance(markup.get("controlPoints"), list):
            raise ClickError("a markups list without control points")
        if markup.get("type", "Fiducial") != "Fiducial":
            continue
        space = str(markup.get("coordinateSystem") or "LPS").lower()
        if space not in ("lps", "ras"):
            raise ClickError(f"unknown coordinateSystem {space!r}, allowed are LPS and RAS")
        units = markup.get("coordinateUnits") or "mm"
        if "mm" not in (units if isinstance(units, list) else [units]):
            raise ClickError(f"coordinateUnits must be mm, not {_shown(units)}")
        # A file takes its list's name; only one that is a polarity and nothing else says anything.
        stem = path.name.removesuffix(_SLICER_SUFFIX)
        whole = _POSITIVE.fullmatch(stem) or _NEGATIVE.fullmatch(stem)
        names = (str(markup.get("name", "")), stem if whole else "")
        for point in markup["controlPoints"]:
            if not isinstance(point, dict):
                raise ClickError("a control point that is not an object")
            if point.get("positionStatus", "defined") == "defined":
                zyx = _voxel(point.get("position"), space, volume)
                yield Click(zyx, _polarity(str(point.get("label", "")), *names))


def _polarity(*labels: str) -> bool:
    """The first label that names a polarity decides; where none does, the click is positive."""
    for label in labels:
        if _NEGATIVE.match(label):
            return False
        if _POSITIVE.match(label):
            return True
    return True


def _voxel(position: Any, space: str, volume: Volume) -> Index:
    numbers = isinstance(position, list) and len(position) == 3
    if not numbers or not all(type(p) in (int, float) and abs(p) < 1e9 for p in position):
        raise ClickError(f"a position must be three finite numbers, not {_shown(position)}")
    a, b, c = position
    if space == "ijk":
        if any(float(p) != int(p) for p in position):
            raise ClickError(f"voxel indices must be whole numbers, not {position}")
        return volume.zyx_of_ijk((int(a), int(b), int(c)))
    return volume.zyx_of_ras((-a, -b, c) if space == "lps" else (a, b, c))


def _shown(value: Any) -> str:
    """A value from a file, short enough for one line."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, refused if a key occurs twice: the first would be lost without a word."""
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ClickError(f"a key occurs twice among {_shown([key for key, _ in pairs])}")
    return content
