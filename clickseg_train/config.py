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
        decoder_width: channels of the low-level skip; the decoder has twice as many.
        refine_width: channels of the last convolution at stride 2, or 0 for none.
    """

    width: int = 64
    stem_size: int = 7
    pyramid_width: int = 256
    pyramid_dilations: tuple[int, ...] = (2, 4, 6)
    decoder_width: int = 48
    refine_width: int = 0


@dataclass(frozen=True)
class SamplingConfig:
    """Where objects and clicks come from.

    Attributes:
        labels: share of objects that are labels of the dataset.
        regions: share cut from any CT by intensity, a pseudo-object that needs no label.
        pasted: share of synthetic shapes pasted into any CT.
        spacing_mm: patches are read at spacings drawn between these two.
        clicks: corrections to one object before the next is drawn.
    """

    labels: float = 1.0
    regions: float = 0.0
    pasted: float = 0.0
    spacing_mm: tuple[float, float] = (1.0, 3.0)
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
        batch: objects per step.
        patch_size: training patches (z, y, x), multiples of 16.
        learning_rate: at its peak.
        warm_up: steps until the peak; a cosine follows, down to a hundredth.
        weight_decay: AdamW's.
        ema: how much of the averaged weights each step keeps; the average is what is exported.
        clip: the gradient's largest norm.
        autocast: "bfloat16" or "float32".
        checkpoint_every: steps between checkpoints.
        validate_every: steps between validations, 0 for none.
        validate_by: "clicks" of the simulated user, or a "sliding_window" over the whole volume.
        validate_clicks: clicks for each validation object.
        cache_gb: memory for cases that were read.
        network, sampling, model: see there.
    """

    seed: int = 0
    steps: int = 20000
    batch: int = 2
    patch_size: tuple[int, int, int] = (160, 160, 160)
    learning_rate: float = 1e-3
    warm_up: int = 200
    weight_decay: float = 1e-4
    ema: float = 0.998
    clip: float = 5.0
    autocast: str = "bfloat16"
    checkpoint_every: int = 500
    validate_every: int = 0
    validate_by: str = "clicks"
    validate_clicks: int = 5
    cache_gb: float = 4.0
    network: NetworkConfig = field(default_factory=NetworkConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    model: ModelConfig = field(default_factory=ModelConfig)

    def __post_init__(self) -> None:
        at_least_one = ("steps", "batch", "checkpoint_every", "validate_clicks")
        for name in at_least_one:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if any(n < 16 or n % 16 for n in self.patch_size):
            raise ConfigError(f"patch_size must be multiples of 16, not {self.patch_size}")
        if self.autocast not in ("bfloat16", "float32"):
            raise ConfigError(f"autocast must be bfloat16 or float32, not {self.autocast!r}")
        if self.validate_by not in ("clicks", "sliding_window"):
            raise ConfigError(
                f"validate_by must be clicks or sliding_window, not {self.validate_by!r}"
            )
        shares = (self.sampling.labels, self.sampling.regions, self.sampling.pasted)
        if min(shares) < 0 or sum(shares) <= 0:
            raise ConfigError(f"sampling shares must not be negative nor all 0, not {shares}")
        if not 0 < self.sampling.spacing_mm[0] <= self.sampling.spacing_mm[1]:
            raise ConfigError(f"sampling.spacing_mm must rise, not {self.sampling.spacing_mm}")
        if self.sampling.clicks < 1:
            raise ConfigError(f"sampling.clicks must be at least 1, not {self.sampling.clicks}")
        try:
            self.model.spec()
        except (ModelError, TypeError) as error:
            raise ConfigError(f"model: {error}") from error


def read_config(path: str | Path) -> TrainConfig:
    """Read a TOML file, or a configuration that ships, by its name ("light", "seed").

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
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
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
