"""Round records as the strategy would hand them over, over a small made-up model."""

import numpy as np

from slimfed.clients.structure import Block, Blueprint, Cut, Structure
from slimfed.clients.update import Assignment, Evaluation, Report, Workload
from slimfed.strategies.protocols import Completion, DeviceRecord, DeviceStatus, Event, RoundRecord

BLUEPRINT = Blueprint("made-up", (Block("ffn", 0, "ffn", 8, 10, (Cut("fc", "out", 1),)),))


def structure(kept: int) -> Structure:
    """The first ``kept`` of 8 units."""
    return Structure(BLUEPRINT, np.arange(8) < kept)


def report(device: int, round: int = 1, kept: int = 4, workload: Workload | None = None, loss: float = 0.5) -> Report:
    return Report(
        device=device,
        round=round,
        rank=4,
        effective_rank=4.0,
        structure=structure(kept),
        loss_before=1.0,
        loss_after=loss,
        importance=0.1,
        examples=10 + device,
        seconds=0.25,
        measured_memory_bytes=0,
        workload=workload or Workload(1e9, 1e8, 5e9),
        evaluation=Evaluation(0.4, 0.75, 100),
    )


def device_record(device: int, round: int = 1, seconds: float = 2.0, status: DeviceStatus = "done") -> DeviceRecord:
    """Remove half of what is left of 8 units; the accepted update keeps 4."""
    assignment = Assignment(
        device=device,
        round=round,
        rank=4,
        sparsity=0.5,
        local_steps=1,
        learning_rate=1e-3,
        learning_rate_end=1e-4,
        seed=1,
        evaluate=True,
        structure=structure(8),
    )
    done = status == "done"
    completion = Completion(0.5, seconds - 0.75, 0.25) if status != "failed" else None
    return DeviceRecord(
        assignment, status, completion, report(device, round) if done else None, 0.5 if done else None, 1000, 900
    )


def round_record(round: int, devices: tuple[DeviceRecord, ...], **changes: object) -> RoundRecord:
    values: dict[str, object] = {
        "round": round,
        "devices": devices,
        "events": (Event(round, "rejected", "NaN in fc", "lower the learning rate", 1),),
        "evaluation": Evaluation(0.6, 0.5 + round / 100, 200),
        "device_accuracy_mean": 0.75,
        "sparsity": 0.1 * round,
        "global_sparsity": 0.1 * round,
        "virtual_seconds": 10.0,
        "wall_seconds": float(round),
        "bytes_down": 3_000_000_000,
        "bytes_up": 2_000_000_000,
        "train_loss": 0.5,
    }
    return RoundRecord(**{**values, **changes})  # type: ignore[arg-type]
