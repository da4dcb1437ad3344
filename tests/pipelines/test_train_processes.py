"""`accelerate launch`: several processes train one model, each on its share of every batch."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

LAUNCH = "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no"
WITHOUT_ONE = "--dynamo_backend no --no_python"  # a Python script: the command is the console's


@pytest.mark.slow
def test_two_processes_train_one_model_and_one_of_them_writes(
    trained: Path, tmp_path: Path, tapewire: Callable[..., Any]
) -> None:
    one, two = (Path(shutil.copytree(trained, tmp_path / name)) for name in ("one", "two"))
    options = ["train", "--json", "--set", "train.epochs=3"]
    alone = tapewire(one, *options).json
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, *LAUNCH.split(), *WITHOUT_ONE.split(), "--main_process_port", str(port)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(Path(sys.executable).with_name("tapewire")), *options],
        cwd=two, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    together = json.loads(done.stdout)  # one line: the other process says nothing
    assert together["model"] != alone["model"], "nothing was shared: each process trained a model by itself"
    assert together["valid_nll"] == pytest.approx(alone["valid_nll"], abs=0.05)
    for folder, model in ((one, alone["model"]), (two, together["model"])):
        events = json.loads((folder / "runs" / "promotions.json").read_text())
        assert [event["model_id"] for event in events][1:] == [model]
    before = {path.name for path in (trained / "runs").iterdir()}
    assert {path.name for path in (two / "runs").iterdir()} - before == {together["model"]}
