import re
from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_a_training_that_diverges_is_an_error_and_keeps_no_model(workspace: Path, tapewire: Callable[..., Any]) -> None:
    kept = sorted((workspace / "runs").rglob("*.safetensors"))
    done = tapewire(workspace, "train", "--set", "train.learning_rate=1e30")
    assert done.code == 2
    assert re.search(r"[A-Z0-9]+ on \d{4}-\d\d-\d\d: expected a finite forecast", done.err)
    assert "train.learning_rate" in done.err
    assert sorted((workspace / "runs").rglob("*.safetensors")) == kept
