"""The training configuration: a frozen value read from TOML, where unknown keys fail."""

import dataclasses
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clickseg_infer.errors import ConfigError, FileError, ModelError
from clickseg_infer.model_spec import ModelSpec, Source

SHIPPED = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the DeepLabV3+.

    Attributes:
        width: channels of the stem and of stage 1; stages 2 to 4 have 2, 4 and 8 times as many.
        stem_size: the stem's kernel, 3 or 7.
        pyramid_width: channels of each branch of the pyramid and of its output.
        pyramid_dilations: of its 3^3 branches.
        middle_width: channels of a skip at stride 8 that refines the context, or 0 for none.
        decoder_width: channels of the low-level skip; the decoder has twice as many.
        refine_width: channels of the last convolution at stride 2, or 0 for none.
        detail_width: channels of the convolution that joins the features at stride 2 with single
            voxels of the input, or 0 for logits interpolated from stride 2 or 4; needs a
            `refine_width`.
        structures: what a branch tells apart from the image alone, each the words that occur in
            names of labels, separated by "|"; none for no branch.
        lesions: likewise, what it tells apart from those too, but what a click is never taken to
            mean: no two are alike.
        structure_width: channels of that branch at stride 4.
        structure_detail: channels at stride 2, where it then answers; 0: it answers at stride 4.
        structure_windows: how many HU windows the branch sees, all that the model has.
    """

    width: int = 64
    stem_size: int = 7
    pyramid_width: int = 256
    pyramid_dilations: tuple[int, ...] = (2, 4, 6)
    middle_width: int = 0
    decoder_width: int = 48
    refine_width: int = 0
    detail_width: int = 0
    structures: tuple[str, ...] = ()
    lesions: tuple[str, ...] = ()
    structure_width: int = 24
    structure_detail: int = 0
    structure_windows: int = 1

    @property
    def classes(self) -> tuple[str, ...]:
        """What the branch tells apart: structures, then lesions."""
        return (*self.structures, *self.lesions)

    @property
    def structure_cell(self) -> int:
        """Voxels along an axis for which the branch gives one answer."""
        return 2 if self.structure_detail else 4

    @property
    def labels(self) -> tuple[str, ...]:
        """The structures' names, each the first that it has."""
        return self.class_labels[: len(self.structures)]

    @property
    def class_labels(self) -> tuple[str, ...]:
        """Likewise, of all that the branch tells apart."""
        return tuple(names.split("|")[0] for names in self.classes)


@dataclass(frozen=True)
class SamplingConfig:
    """Where objects and clicks come from.

    Attributes:
        labels: share of objects that are labels of the datasets.
        regions: share cut from any CT by intensity, a pseudo-object that needs no label.
        supervoxels: share cut from any CT by a watershed, likewise.
        pasted: share of synthetic shapes pasted into any CT.
        weights: how much more often than by itself a dataset of that name is drawn from for
            labels; by itself, one with four times the objects is drawn from twice as often.
        held_out: names of labels that are never drawn, to judge the model by.
        spacing_mm: patches are read at spacings between these two; those of labels now and then
            up to a fifth finer or half as coarse again.
        wide: share of labels read at about the larger spacing; the others are read at one at which
            the object about fits.
        clicks: looks at one object before the next is drawn.
    """

    labels: float = 1.0
    regions: float = 0.0
    supervoxels: float = 0.0
    pasted: float = 0.0
    weights: dict[str, float] = field(default_factory=dict)
    held_out: tuple[str, ...] = ()
    spacing_mm: tuple[float, float] = (1.0, 3.0)
    wide: float = 0.3
    clicks: int = 6


@dataclass(frozen=True)
class ModelConfig:
    """What the exported model's spec says; see `ModelSpec`."""

    name: str = "clickseg"
    patch_size: tuple[int, int, int] = (160, 160, 160)
    spacing_mm: tuple[float, float, float] = (1.5, 1.5, 1.5)
    overview_spacing_mm: tuple[float, float, float] = (1.5, 1.5, 1.5)
    hu_windows: dict[str, tuple[float, float]] = field(default_factory=lambda: {"ct": (-175, 250)})
    click_channels: tuple[str, ...] = ("positive", "negative", "previous")
    click_radius: int = 3
    threshold: float = 0.5
    licence: str = ""
    description: str = ""

    def spec(self, trained_on: tuple[Source, ...] = ()) -> ModelSpec:
        """The spec of a model with this configuration."""
        return ModelSpec(
            name=self.name,
            patch_size=self.patch_size,
            spacing_mm=self.spacing_mm,
            overview_spacing_mm=self.overview_spacing_mm,
            hu_windows=self.hu_windows,
            channels=(*self.hu_windows, *self.click_channels),
            click_radius=self.click_radius,
            threshold=self.threshold,
            licence=self.licence,
            description=self.description,
            trained_on=trained_on,
        )


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Attributes:
        seed: of weights, objects and clicks.
        steps: optimiser steps in all.
        epochs: instead of steps, if not 0: in an epoch as many objects are drawn as the training
            cases hold.
        batch: objects per step, in each process.
        patch_size: training patches (z, y, x), cubes of a multiple of 16.
        learning_rate: at its peak.
        warm_up: steps until the peak; a cosine follows, down to a hundredth.
        weight_decay: AdamW's.
        ema: how much of the averaged weights each step keeps; the average is what is exported.
        clip: the gradient's largest norm.
        learns: "clicks", all but the structure branch; or "structures", only that branch.
        balance: weight of each class's mean loss beside the mean over all cells, where
            structures are learnt.
        settle: share of the steps, the last ones, in which normalisation no longer uses its batch's
            statistics but the averages that it will use at run time.
        obedience: weight of the loss at the clicked voxels.
        autocast: "bfloat16", "float16" or "float32".
        checkpoint_every: steps between checkpoints.
        picture_every: steps between TensorBoard's pictures, 0 for none.
        validate_every: steps between validations, 0 for none.
        validate_by: "clicks" of the simulated user, or a "sliding_window" over the whole volume.
        validate_clicks: clicks for each validation object.
        network, sampling, model: see there.
    """

    seed: int = 0
    steps: int = 20000
    epochs: int = 0
    batch: int = 2
    patch_size: tuple[int, int, int] = (160, 160, 160)
    learning_rate: float = 1e-3
    warm_up: int = 200
    weight_decay: float = 1e-4
    ema: float = 0.998
    clip: float = 5.0
    learns: str = "clicks"
    balance: float = 1.0
    settle: float = 0.0
    obedience: float = 0.0
    autocast: str = "bfloat16"
    checkpoint_every: int = 500
    picture_every: int = 500
    validate_every: int = 0
    validate_by: str = "clicks"
    validate_clicks: int = 5
    network: NetworkConfig = field(default_factory=NetworkConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    model: ModelConfig = field(default_factory=ModelConfig)

    def __post_init__(self) -> None:
        for name, (part, low, high) in _RANGES.items():
            value = getattr(getattr(self, part) if part else self, name)
            values = value if isinstance(value, tuple) else (value,)
            if not all(low <= v <= high for v in values):  # also refuses NaN
                raise ConfigError(f"{name} must be from {low} to {high}, not {value}")
        if len(set(self.patch_size)) != 1 or self.patch_size[0] % 16:
            raise ConfigError(f"patch_size must be a cube of a multiple of 16: {self.patch_size}")
        if self.network.stem_size % 2 == 0:
            raise ConfigError(f"stem_size must be odd, not {self.network.stem_size}")
        if self.network.detail_width and not self.network.refine_width:
            raise ConfigError("a detail_width needs a refine_width")
        choices = {
            "learns": ("clicks", "structures"),
            "autocast": ("bfloat16", "float16", "float32"),
            "validate_by": ("clicks", "sliding_window"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"{name} must be {' or '.join(allowed)}, not {getattr(self, name)!r}"
                )
        sampling = self.sampling
        shares = (sampling.labels, sampling.regions, sampling.supervoxels, sampling.pasted)
        if sum(shares) <= 0:
            raise ConfigError(
                "the shares of labels, regions, supervoxels and pasted must not all be 0"
            )
        if not all(1e-6 <= weight <= 1e6 for weight in sampling.weights.values()):
            raise ConfigError(f"sampling.weights must be from 1e-6 to 1e6, not {sampling.weights}")
        if sampling.spacing_mm[0] > sampling.spacing_mm[1]:
            raise ConfigError(f"sampling.spacing_mm must rise, not {sampling.spacing_mm}")
        try:
            self.model.spec()
        except (ModelError, TypeError) as error:
            raise ConfigError(f"model: {error}") from error
        if self.network.structures:
            names = [name for part in self.network.classes for name in part.split("|")]
            if len(self.network.classes) > 254 or not all(names) or len({*names}) < len(names):
                raise ConfigError("network.structures and lesions must be at most 254, all named")
            if self.network.structure_windows != len(self.model.hu_windows):
                raise ConfigError("network.structure_windows must be how many hu_windows there are")
        elif self.learns == "structures":
            raise ConfigError("learns = 'structures' needs a network with structures")


_RANGES: dict[str, tuple[str, float, float]] = {
    # name: (table, lowest, highest)
    "seed": ("", 0, 2**32),
    "steps": ("", 1, 10**9),
    "epochs": ("", 0, 10**6),
    "batch": ("", 1, 4096),
    "patch_size": ("", 16, 1024),
    "learning_rate": ("", 1e-9, 10),
    "warm_up": ("", 0, 10**9),
    "weight_decay": ("", 0, 10),
    "ema": ("", 0, 0.999999),
    "clip": ("", 1e-6, 1e6),
    "settle": ("", 0, 1),
    "obedience": ("", 0, 1e3),
    "balance": ("", 0, 1e3),
    "checkpoint_every": ("", 1, 10**9),
    "picture_every": ("", 0, 10**9),
    "validate_every": ("", 0, 10**9),
    "validate_clicks": ("", 1, 1000),
    "width": ("network", 1, 4096),
    "stem_size": ("network", 1, 15),
    "pyramid_width": ("network", 1, 4096),
    "pyramid_dilations": ("network", 1, 64),
    "middle_width": ("network", 0, 4096),
    "decoder_width": ("network", 1, 4096),
    "refine_width": ("network", 0, 4096),
    "detail_width": ("network", 0, 4096),
    "structure_width": ("network", 3, 4096),
    "structure_detail": ("network", 0, 4096),
    "structure_windows": ("network", 1, 64),
    "labels": ("sampling", 0, 1e6),
    "regions": ("sampling", 0, 1e6),
    "supervoxels": ("sampling", 0, 1e6),
    "pasted": ("sampling", 0, 1e6),
    "wide": ("sampling", 0, 1),
    "clicks": ("sampling", 1, 1000),
    "spacing_mm": ("sampling", 0.01, 50),
}


def read_config(path: str | Path) -> TrainConfig:
    """Read a TOML file, or a configuration that ships, by its name ("light").

    Raises:
        FileError: no such file, or not TOML.
        ConfigError: an unknown key, a value of the wrong type, or an impossible one.
    """
    shipped = SHIPPED / f"{path}.toml"
    path = shipped if shipped.is_file() and not Path(path).suffix else Path(path)
    try:
        with path.open("rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FileError(f"{path}: not TOML: {error}") from error
    try:
        return config_of(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def config_of(values: dict[str, Any]) -> TrainConfig:
    """The configuration of plain values, as TOML or a checkpoint holds them.

    Raises:
        ConfigError: as `read_config`.
    """
    return typing.cast(TrainConfig, _convert(TrainConfig, values, "configuration"))


def values_of(config: TrainConfig) -> dict[str, Any]:
    """Plain values that `config_of` reads back."""
    return dataclasses.asdict(config)


def _convert(kind: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, dict):
            raise ConfigError(f"{name} must be a table, not {value!r}")
        hints = typing.get_type_hints(kind)
        unknown = sorted(set(value) - set(hints))
        if unknown:
            raise ConfigError(f"{name}: unknown keys {unknown}; known are {sorted(hints)}")
        return kind(**{key: _convert(hints[key], part, key) for key, part in value.items()})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{name} must be a list, not {value!r}")
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) != len(value):
            raise ConfigError(f"{name} must have {len(kinds)} values, not {len(value)}")
        return tuple(_convert(k, part, name) for k, part in zip(kinds, value, strict=True))
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{name} must be a table, not {value!r}")
        return {key: _convert(arguments[1], part, f"{name}.{key}") for key, part in value.items()}
    allowed: type | types.UnionType = int | float if kind is float else kind
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{name} must be {kind.__name__}, not {value!r}")
    return kind(value)
