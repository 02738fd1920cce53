"""What a model file says of itself."""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any

from clickseg_infer.errors import ModelError
from clickseg_infer.file_grid import Index
from clickseg_infer.volume import Spacing

FORMAT_VERSION = 5
CLICK_CHANNELS = (
    "positive",
    "negative",
    "previous",
    "geodesic_positive",
    "geodesic_negative",
    "intensity_difference",
)
"""What a channel may be, besides one for each HU window (named `ct`, `ct_...`)."""

MOST_PATCH = 512
"""Voxels along an axis of a patch; no machine holds the activations of larger ones."""

GRAPH_PRECISIONS = ("float32", "float16", "int8")


@dataclass(frozen=True)
class Source:
    """Something that a model was trained on, and the licence that allows it."""

    name: str
    licence: str


@dataclass(frozen=True)
class PrecisionCheck:
    """How well a 16-bit or 8-bit graph follows clicks, beside the float32 graph that it came from.

    Attributes:
        objects: how many, of validation cases, a simulated user clicked.
        clicks: for each.
        float32: mean Dice after the last of them, of the float32 graph.
        dice: of this graph.
    """

    objects: int
    clicks: int
    float32: float
    dice: float

    @property
    def drop(self) -> float:
        """By how much the mean Dice fell; negative if it rose."""
        return self.float32 - self.dice


@dataclass(frozen=True)
class ModelSpec:
    """Everything the runtime must know to run a network; travels inside its `.onnx` file.

    Attributes:
        name: the model's name.
        patch_size: network voxels (z, y, x), multiples of 16.
        spacing_mm: the close look's spacing (z, y, x); a first look may be a fifth closer.
        overview_spacing_mm: the widest look's spacing (z, y, x); equal to `spacing_mm` for a
            network that knows one scale.
        hu_windows: the CT channels: name -> (low, high) HU, mapped to -1 and 1 and clipped.
        channels: the network's input channels in order.
        click_radius: radius of a click's disk in network voxels.
        threshold: the probability above which a voxel belongs to the object.
        overlap: fraction of a patch shared with the next in a sliding window.
        weights: how the file stores its weights: "float32", "float16" or "int8".
        precision: of the graph: "float32", in which the engine chooses how to compute, "float16" or
            "int8".
        structures: names of what the second graph in the file tells apart; empty for none.
        precision_check: what a graph that is not float32 cost, if that was measured.
        licence: the licence of the weights.
        trained_on: what it learnt from.
        description: one line for people.
        format_version: of this record.

    Raises:
        ModelError: a value that makes no sense.
    """

    name: str
    patch_size: Index
    spacing_mm: Spacing
    overview_spacing_mm: Spacing
    hu_windows: dict[str, tuple[float, float]]
    channels: tuple[str, ...]
    click_radius: int
    threshold: float = 0.5
    overlap: float = 0.5
    weights: str = "float32"
    precision: str = "float32"
    structures: tuple[str, ...] = ()
    precision_check: PrecisionCheck | None = None
    licence: str = ""
    trained_on: tuple[Source, ...] = ()
    description: str = ""
    format_version: int = field(default=FORMAT_VERSION)

    def __post_init__(self) -> None:
        known = {*self.hu_windows, *CLICK_CHANNELS}
        unknown = [channel for channel in self.channels if channel not in known]
        checks = {
            f"unknown channels {unknown}": not unknown,
            "channels are missing or repeated": 0 < len(set(self.channels)) == len(self.channels),
            f"the CT channels {list(self.hu_windows)} must come first": self.channels[
                : len(self.hu_windows)
            ]
            == tuple(self.hu_windows)
            and len(self.hu_windows) > 0,
            f"patch_size {self.patch_size} must be multiples of 16, up to {MOST_PATCH}": (
                len(self.patch_size) == 3
                and all(0 < n <= MOST_PATCH and n % 16 == 0 for n in self.patch_size)
            ),
            f"spacing_mm {self.spacing_mm} must be positive": _positive(self.spacing_mm),
            f"overview_spacing_mm {self.overview_spacing_mm} must not be finer than spacing_mm": (
                _positive(self.overview_spacing_mm)
                and all(
                    a >= b for a, b in zip(self.overview_spacing_mm, self.spacing_mm, strict=True)
                )
            ),
            f"hu_windows {self.hu_windows} must rise": all(
                -math.inf < low < high < math.inf for low, high in self.hu_windows.values()
            ),
            f"click_radius {self.click_radius} must not be negative": self.click_radius >= 0,
            f"threshold {self.threshold} must lie between 0 and 1": 0 < self.threshold < 1,
            f"precision {self.precision!r} must be one of {', '.join(GRAPH_PRECISIONS)}": (
                self.precision in GRAPH_PRECISIONS
            ),
            f"overlap {self.overlap} must be at least 0 and below 1": 0 <= self.overlap < 1,
        }
        for complaint, holds in checks.items():
            if not holds:
                raise ModelError(f"model spec: {complaint}")

    @property
    def threshold_logit(self) -> float:
        """The threshold as a logit."""
        return math.log(self.threshold / (1 - self.threshold))

    def to_json(self) -> str:
        """The record as one line of JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "ModelSpec":
        """Read a record that `to_json` wrote, today or when formats were older.

        Raises:
            ModelError: not such a record, or of a newer format.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            version = values["format_version"]
            if version > FORMAT_VERSION:
                raise ModelError(
                    f"model format {version} is newer than this version reads ({FORMAT_VERSION}); "
                    "upgrade clickseg"
                )
            values["format_version"] = FORMAT_VERSION
            values["hu_windows"] = {k: tuple(v) for k, v in values["hu_windows"].items()}
            values["trained_on"] = tuple(Source(**source) for source in values["trained_on"])
            if values.get("precision_check") is not None:
                values["precision_check"] = PrecisionCheck(**values["precision_check"])
            for key in ("patch_size", "spacing_mm", "overview_spacing_mm", "channels"):
                values[key] = tuple(values[key])
            values["structures"] = tuple(values.get("structures", ()))
            return cls(**values)
        except ModelError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"model spec: cannot be read: {error!r}") from error


def _positive(values: tuple[float, ...]) -> bool:
    return len(values) == 3 and all(v > 0 and math.isfinite(v) for v in values)
