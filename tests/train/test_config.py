from dataclasses import replace
from pathlib import Path

import pytest
from stand_ins import TINY_TOML

import clickseg_infer as cs
from clickseg_train.config import config_of, read_config, values_of

SHIPPED = ("light", "finetune", "structures", "spleen", "liver", "lung")


def test_finetune_is_light_taught_further() -> None:
    light, finetune = read_config("light"), read_config("finetune")
    structures = read_config("structures").network
    assert finetune.network == structures
    assert replace(structures, structures=(), lesions=(), structure_windows=1) == light.network
    assert finetune.model.click_channels == light.model.click_channels
    assert finetune.learning_rate < light.learning_rate


def test_configurations_survive_the_way_through_plain_values(tiny_config: Path) -> None:
    for name in (*SHIPPED, tiny_config):
        config = read_config(name)
        assert config_of(values_of(config)) == config


@pytest.mark.parametrize("name", ["spleen", "liver", "lung"])
def test_the_networks_the_project_began_with(name: str) -> None:
    config = read_config(name)
    assert config.network.width == 64
    assert config.patch_size == config.model.patch_size == (160, 160, 160)
    assert config.validate_by == "sliding_window"
    assert config.model.spec().channels == ("ct", "positive", "negative", "previous")


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("steps = 4", "step = 4", r"unknown keys \['step'\]"),
        ("width = 4", "with = 4", r"unknown keys \['with'\]"),
        ("steps = 4", "steps = 0", "steps must be from 1"),
        ("steps = 4", 'steps = "many"', "steps must be int"),
        ("steps = 4", "steps = true", "steps must be int"),
        ("steps = 4", "steps = 4.5", "steps must be int"),
        ("patch_size = [32, 32, 32]", "patch_size = [33, 33, 33]", "multiple of 16"),
        ("patch_size = [32, 32, 32]", "patch_size = [32, 32, 48]", "must be a cube"),
        ("width = 4", "width = 0", "width must be from 1"),
        ("stem_size = 3", "stem_size = 4", "must be odd"),
        ("warm_up = 1", "learning_rate = nan", "learning_rate must be from"),
        ("warm_up = 1", "seed = -1", "seed must be from 0"),
        ("warm_up = 1", "ema = 2.0", "ema must be from"),
        (
            'autocast = "float32"',
            'autocast = "float8"',
            "must be bfloat16 or float16 or float32",
        ),
        ("warm_up = 1", 'validate_by = "eye"', "validate_by must be clicks or sliding_window"),
        ("spacing_mm = [3.0, 5.0]", "spacing_mm = [3.0, inf]", "spacing_mm must be from"),
        ("patch_size = [32, 32, 32]", "patch_size = [32, 32]", "must have 3 values"),
        ("labels = 0.6", "labels = -1.0", "labels must be from 0"),
        ("labels = 0.6", "labels = nan", "labels must be from 0"),
        ("spacing_mm = [3.0, 5.0]", "spacing_mm = [5.0, 3.0]", "must rise"),
        ('"positive"', '"sound"', "unknown channels"),
        ("ct = [-160, 240]", "ct = [240, -160]", "must rise"),
        ("pasted = 0.2", "weights = { Small = true }", "must be float"),
        ("pasted = 0.2", "weights = { Small = -1.0 }", "weights must be from"),
        ("pasted = 0.2", "weights = { Small = nan }", "weights must be from"),
        ("pasted = 0.2", "wide = 1.5", "wide must be from 0 to 1"),
        ("[network]", "network = 3\n[other]", "unknown keys"),
    ],
)
def test_what_makes_no_sense_is_refused(old: str, new: str, complaint: str, tmp_path: Path) -> None:
    assert old in TINY_TOML
    path = tmp_path / "bad.toml"
    path.write_text(TINY_TOML.replace(old, new, 1))
    with pytest.raises(cs.ConfigError, match=complaint) as caught:
        read_config(path)
    assert "bad.toml" in str(caught.value)


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(cs.FileError, match=r"nowhere\.toml"):
        read_config(tmp_path / "nowhere.toml")
    (tmp_path / "text.toml").write_text("this is { not toml")
    with pytest.raises(cs.FileError, match="not TOML"):
        read_config(tmp_path / "text.toml")
