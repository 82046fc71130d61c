"""Runs for the dashboard's tests: invented figures that look like real ones, written as the platform writes them."""

import math
from pathlib import Path

import numpy as np

from slimfed.clients.structure import Block, Blueprint, Structure
from slimfed.clients.update import Assignment, Evaluation, Report, Workload
from slimfed.platform.job.job import job_to_dict, parse_job
from slimfed.platform.store.writer import FinalStatus, Store
from slimfed.strategies.protocols import Completion, DeviceRecord, DeviceStatus, Event, RoundRecord

COMPUTE_SECONDS = {"jetson-tx2": 9.0, "jetson-xavier-nx": 4.0, "jetson-agx-xavier": 2.0}
RANKS = (2, 4, 8, 16)
UNITS = 500
BLUEPRINT = Blueprint("sample", (Block("ffn", 0, "ffn", UNITS, 1, ()),))
WORDS = {
    "dropout": ("The device left during the round.", "Nothing to do: it is asked again in the next round."),
    "rejected": (
        "The update's norm of 41.2 is 12 times the median of the fleet's, 3.4.",
        "If this happens often, lower training.learning_rate or training.max_grad_norm.",
    ),
}


def profiles(devices: int) -> list[str]:
    """The class of each device, in the mix of the reference fleet: 3 TX2, 4 Xavier NX and 1 AGX Xavier in eight."""
    tx2, nx, agx = COMPUTE_SECONDS
    return [tx2 if d * 8 // devices < 3 else nx if d * 8 // devices < 7 else agx for d in range(devices)]


def structure(sparsity: float) -> Structure:
    """A structure of about this sparsity."""
    return Structure(BLUEPRINT, np.arange(UNITS) < round(UNITS * (1 - sparsity)))


class SampleRun:
    """One run that goes on for as long as it is told to: :meth:`round` records one more."""

    def __init__(
        self,
        store: Store,
        name: str = "commands-on-jetsons",
        devices: int = 24,
        rounds: int = 20,
        seed: int = 7,
        mishaps: bool = True,
        method: str = "fedspine",
        part: int | None = None,
    ) -> None:
        self.store, self.devices, self.rounds, self.seed, self.mishaps = store, devices, rounds, seed, mishaps
        self.id, self.number, self.part = f"{name}-{seed:04d}", 0, part
        self.profiles = profiles(devices)
        job = {
            "name": name,
            "seed": seed,
            "method": {"name": method},
            "fleet": {"devices": devices, "participation": part or "all"},
            "training": {"rounds": rounds},
        }
        store.create_run(self.id, job_to_dict(parse_job(job)), Path("runs") / self.id)
        store.set_devices(self.id, [(d, profile, 80 + d % 30) for d, profile in enumerate(self.profiles)])
        store.mark_running(self.id)

    def play(self, rounds: int) -> "SampleRun":
        """Record so many rounds."""
        for _ in range(rounds):
            self.round()
        return self

    def end(self, status: FinalStatus = "done", cause: str | None = None) -> "SampleRun":
        """The run ends."""
        self.store.finish(self.id, status, cause)
        return self

    def round(self) -> None:
        """The next round: most devices finish, a few drop out or send what cannot be used."""
        self.number += 1
        rng = np.random.default_rng([self.seed, self.number])
        every = range(self.devices)
        chosen = every if self.part is None else sorted(rng.choice(self.devices, self.part, replace=False).tolist())
        rows = tuple(self._device(device, rng) for device in chosen)
        reports = [row.report for row in rows if row.report is not None]
        accuracies = [report.evaluation.accuracy for report in reports if report.evaluation]
        fit = math.exp(-self.number / 5)
        self.store.record_round(
            self.id,
            RoundRecord(
                round=self.number,
                devices=rows,
                events=tuple(self._event(row) for row in rows if row.status != "done"),
                evaluation=Evaluation(0.4 + 1.9 * fit, 0.93 - 0.81 * fit + float(rng.normal(0, 0.004)), 1000),
                device_accuracy_mean=float(np.mean(accuracies)),
                sparsity=float(np.mean([report.structure.sparsity for report in reports])),
                global_sparsity=self._target(self.number),
                virtual_seconds=max(row.completion.seconds for row in rows if row.report and row.completion),
                wall_seconds=4.0,
                bytes_down=sum(row.bytes_down for row in rows),
                bytes_up=sum(row.bytes_up for row in rows),
                train_loss=0.35 + 1.9 * fit,
                available=self.devices,
            ),
        )

    def _target(self, number: int) -> float:
        """The cubic schedule, which reaches 50% at 60% of the rounds."""
        return float(0.5 * (1 - (1 - min(number / (0.6 * self.rounds), 1)) ** 3))

    def _sparsity(self, device: int, number: int) -> float:
        slow = 0.1 if self.profiles[device] == "jetson-tx2" else 0.0
        return min(0.55, self._target(number) * (0.8 + 0.3 * (device * 37 % 10) / 10 + slow))

    def _device(self, device: int, rng: np.random.Generator) -> DeviceRecord:
        profile, number = self.profiles[device], self.number
        rank = int(rng.choice(RANKS, p=(0.4, 0.3, 0.2, 0.1) if "tx2" in profile else (0.1, 0.2, 0.3, 0.4)))
        before, after = self._sparsity(device, number - 1), self._sparsity(device, number)
        download, upload, chance = float(rng.uniform(0.3, 0.5)), 0.2 + rank * 0.02, rng.random()
        compute = COMPUTE_SECONDS[profile] * (1 - after) * float(rng.uniform(1.0, 1.3)) * (1 + rank / 60)
        own = Evaluation(1.0, 0.9 - 0.78 * math.exp(-number / 4) + float(rng.normal(0, 0.01)), 1000)
        status: DeviceStatus = "done"
        if self.mishaps and device and chance < 0.008:
            status = "dropout" if chance < 0.004 else "rejected"
        assignment = Assignment(device, number, rank, after, 20, 2e-3, 2e-3, 1, True, structure(before))
        report = Report(
            device=device,
            round=number,
            rank=rank,
            effective_rank=float(rank),
            structure=structure(after),
            loss_before=0.9,
            loss_after=0.8,
            importance=1.0,
            examples=80 + device % 30,
            seconds=0.1,
            measured_memory_bytes=400_000_000,
            workload=Workload(1e9, 1e8, 5e8),
            evaluation=own if device % 3 == 0 or number == self.rounds else None,
        )
        return DeviceRecord(
            assignment=assignment,
            status=status,
            completion=None if status == "dropout" else Completion(download, compute, upload),
            report=report if status == "done" else None,
            reward=0.1 if status == "done" else None,
            bytes_down=100_000,
            bytes_up=6_000 * rank if status == "done" else 0,
        )

    def _event(self, row: DeviceRecord) -> Event:
        cause, remedy = WORDS[row.status]
        return Event(self.number, row.status, cause, remedy, row.assignment.device)


def new_store(home: Path) -> Store:
    """An empty store in ``home``, made as slimfed makes it."""
    return Store.open("sqlite", home)
