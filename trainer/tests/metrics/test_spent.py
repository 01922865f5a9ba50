"""Energy adds up over restarts, its carbon is the paper's; copies of the metrics go on as the run does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import settings, write_config
from olmo_trainer.config.schema import EnergyConfig
from olmo_trainer.metrics.measure import EnergyMeter, footprint
from olmo_trainer.metrics.record import MetricsFile
from olmo_trainer.parallel import SINGLE_PROCESS
from test_run import olmo


def test_carbon_of_the_olmo_paper() -> None:
    """OLMo-7B on A100s: 104 MWh of machines in Australia (arXiv 2402.00838, table of power use and carbon)."""
    spent = footprint(104e3 * 3.6e6, 1.1, 0.610)
    assert spent["energy/kWh_machines"] == pytest.approx(104e3)
    assert spent["energy/kWh_data_center"] == pytest.approx(114.4e3)
    assert round(spent["energy/kgCO2e"] / 1000, 2) == 69.78
    assert "energy/kgCO2e" not in footprint(1.0, 1.1, None)


def test_energy_counts_what_was_lost_with_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": n, "energy/declared_joules": 10.0 * n}) + "\n" for n in range(5)))
    metrics = MetricsFile(path, 2)  # steps 3 and 4 will be done again
    assert metrics.last["step"] == 2
    meter = EnergyMeter(
        EnergyConfig(declared_watts=1e-6), gpu_index=None, carried=metrics.reached, ranks=SINGLE_PROCESS
    )
    values = meter.values(tokens=4)
    metrics.close()
    if "energy/declared_joules" in values:  # a machine with counters needs no declaration
        assert values["energy/declared_joules"] == pytest.approx(40, abs=1e-3)
        assert values["energy/joules_per_token"] == pytest.approx(10, abs=1e-3)


def test_lost_rows_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    MetricsFile(tmp_path / "metrics.jsonl", None).close()
    assert not caplog.records
    MetricsFile(tmp_path / "metrics.jsonl", 2).close()
    assert "has no row of the 2 steps before" in caplog.text


@pytest.mark.processes
def test_copies_continue_with_the_run(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setenv("WANDB_SILENT", "true")
    changes = {"validation": {}, "checkpoint": {}, "train__steps": 4, "wandb__enabled": True}
    for stop in ("2 steps", "4 steps"):  # what may change does not begin another curve
        config = settings(made, tmp_path / "run", **changes, logging__tensorboard=True, train__stop_at=stop)
        config["energy"] = {"declared_watts": 100.0, "pue": 1.5, "grid_kg_per_kwh": 0.5}
        assert olmo("train", write_config(tmp_path / "c.yaml", config)) == 0
    parts = list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert len({part.stem.removeprefix("run-") for part in parts}) == 1
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    spent = [row["energy/kWh_machines"] for row in rows[1:]]
    assert spent == sorted(spent)
    assert rows[-1]["energy/kgCO2e"] == pytest.approx(spent[-1] * 1.5 * 0.5)
    told = events.EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload().Scalars("train/CrossEntropyLoss")
    assert [event.step for event in told] == [1, 2, 3, 4]
    assert [event.value for event in told] == pytest.approx([row["train/CrossEntropyLoss"] for row in rows[1:]])
