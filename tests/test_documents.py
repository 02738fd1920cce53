"""What the documents say is what the results say."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from clickseg_infer.model import DEFAULT_MODEL

ROOT = Path(__file__).resolve().parents[1]


def test_tables_come_from_the_results() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "tables.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_accuracy_is_that_of_the_bundled_model() -> None:
    result = json.loads((ROOT / "benchmarks" / "results" / "accuracy.json").read_text())
    assert result["model_sha256"] == hashlib.sha256(DEFAULT_MODEL.read_bytes()).hexdigest()


def test_16_bits_cost_next_to_nothing() -> None:
    result = json.loads((ROOT / "benchmarks" / "results" / "precision.json").read_text())
    assert result["precisions"]["float16"]["drop"] <= 0.002


@pytest.mark.parametrize(
    "document",
    [
        "README.md",
        "docs/architecture.md",
        "docs/training.md",
        "docs/performance.md",
        "docs/engines.md",
        "CONTRIBUTING.md",
    ],
)
def test_every_path_in_a_document_exists(document: str) -> None:
    import re

    text = (ROOT / document).read_text()
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)\)", text):
        assert (ROOT / document).parent.joinpath(target).exists(), target
