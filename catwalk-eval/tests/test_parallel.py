"""Several processes of torchrun: the same bytes as one, and an end when something fails."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Build = Callable[[str], Path]


def _run(processes: int, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)] if processes > 1 else []
    command = [sys.executable, *launch, "-m", "catwalk", "run", *arguments]
    return subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.slow
def test_results_are_the_same_bytes_with_any_number_of_processes(
    build_checkpoint: Build, data_directory: Path, documents_directory: Path, tmp_path: Path
) -> None:
    written = []
    for processes in (1, 2, 3):
        output = tmp_path / str(processes)
        arguments = [
            "--model",
            str(build_checkpoint("olmo2")),
            "--tasks",
            "sciq",
            "copa",
            "--data",
            str(data_directory),
        ]
        arguments += ["--documents", str(documents_directory), "--name", "m", "--output-dir", str(output)]
        finished = _run(processes, arguments)
        assert finished.returncode == 0, finished.stderr
        files = ("results.json", "predictions.jsonl.gz", "perplexity.jsonl.gz", "manifest.json")
        written.append([(output / name).read_bytes() for name in files])
    assert written[0] == written[1]


@pytest.mark.slow
def test_a_failure_ends_every_process(build_checkpoint: Build, data_directory: Path, tmp_path: Path) -> None:
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(build_checkpoint("olmo2"))
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    broken = tmp_path / "broken"
    model.save_pretrained(broken)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (broken / name).write_bytes((build_checkpoint("olmo2") / name).read_bytes())
    arguments = ["--model", str(broken), "--tasks", "copa", "--data", str(data_directory)]
    finished = _run(2, [*arguments, "--output-dir", str(tmp_path / "out")])
    assert finished.returncode == 1
    assert "the model's log-probability is nan" in finished.stderr
