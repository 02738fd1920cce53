"""The commands, through the same `main` that the installed script calls."""

from pathlib import Path

import pytest
from clickseg_cli.main import main
from running import Run

import clickseg_infer as cs


@pytest.fixture
def run(capfd: pytest.CaptureFixture) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return end.value.code or 0, out, err

    return call


@pytest.fixture
def image(tmp_path: Path, ball_volume: cs.Volume) -> Path:
    cs.write_volume(tmp_path / "ball.nii.gz", ball_volume)
    return tmp_path / "ball.nii.gz"
