"""Measurements of this processor withstand a slow first run."""

import time

import pytest
import torch

from slimfed.clients.training import calibration


@pytest.mark.parametrize("slow", [0, 1])
def test_a_slow_run_does_not_stand_for_all(monkeypatch: pytest.MonkeyPatch, slow: int) -> None:
    """As the first run of a new shape is, which alone takes longer than all runs should."""
    clock, runs = [0.0], iter(range(100))
    monkeypatch.setattr(time, "process_time", lambda: clock[0])

    def work() -> None:
        clock[0] += 0.8 if next(runs) == slow else 0.2

    assert calibration._least_seconds(work, torch.device("cpu")) == pytest.approx(0.2)
    assert next(runs) <= 6, "a few runs, not many"
