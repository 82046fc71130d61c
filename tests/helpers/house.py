"""A home in which runs of a tiny job are computed in processes of their own, to be damaged and looked at.

A run here is the server's own code (session, strategy, recorder, checkpoints, store) with nodes in its process. It is
forked from this one, so that it has the model already.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from slimfed.clients.inputs import inputs_digest
from slimfed.clients.node.runtime import open_runtime
from slimfed.platform.fleet.profiles import load_fleet
from slimfed.platform.home import run_folder
from slimfed.platform.job.job import Job, load_job
from slimfed.platform.launch.preflight import Checked
from slimfed.platform.launch.run_creation import create_run
from slimfed.platform.launch.workers import Sizing
from slimfed.platform.server import assembly, checkpoint
from slimfed.platform.server.session import serve
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.writer import Store
from slimfed.strategies.local_grid import LocalGrid

DEVICES, ROUNDS = 4, 3
PATIENCE = 240.0
FORK = multiprocessing.get_context("fork")


def tiny_job(*more: str) -> Job:
    """A tiny job; its runtime is opened here, and inherited by every run."""
    sets = [f"fleet.devices={DEVICES}", f"training.rounds={ROUNDS}", "training.local_steps=2", "training.batch_size=2"]
    sets += ["data.max_length=16", "evaluation.every=3", "evaluation.device_examples=20", "evaluation.devices=1"]
    sets += ["engine.name=cohort", "engine.cohort_size=2", "engine.dtype=fp32", "engine.workers=1"]
    job = load_job(None, [*sets, *more])
    task = job.task_spec()
    open_runtime(task.model_copy(update={"inputs": inputs_digest(task)}))
    return job


class House:
    """A home with a store, in which runs of one job are made, computed and looked at."""

    def __init__(self, home: Path, job: Job, url: str = "sqlite") -> None:
        self.home, self.url = home, url
        self.job = job.model_copy(update={"store": job.store.model_copy(update={"url": url})})

    def new_run(self) -> str:
        fleet = load_fleet(self.job.fleet, self.job.seed)
        checked = Checked(self.job, fleet, (1,) * DEVICES, Sizing(2, 1, 0), ())
        with Store.open(self.url, self.home) as store:
            return create_run(store, self.home, checked)[0]

    def compute(self, run: str, damage: Callable[[], None] = lambda: None, take_over: bool = True) -> int:
        """Compute the run in a process of its own; returns its exit code, negative for the signal that killed it.

        ``take_over``: an ended run is taken over before, as ``slimfed resume`` does.
        """
        if take_over:
            self._take_over_if_ended(run)

        def work() -> None:
            use_one_thread()
            damage()
            serve(
                LocalGrid(2),
                {"slimfed.run": run, "slimfed.home": str(self.home), "slimfed.nodes": 2, "slimfed.real": 0},
            )

        process = FORK.Process(target=work)
        process.start()
        process.join(PATIENCE)
        if process.is_alive():
            process.kill()
            pytest.fail("the run hangs")
        assert process.exitcode is not None
        return process.exitcode

    def _take_over_if_ended(self, run: str) -> None:
        with Store.open(self.url, self.home) as store:
            row = Reader(store.engine).find_run(run)
            if row.status in ("failed", "stopped"):
                assert store.take_over(row)

    def row(self, run: str) -> Any:
        with Store.open(self.url, self.home) as store:
            return Reader(store.engine).find_run(run)

    def rounds(self, run: str) -> list[Any]:
        with Store.open(self.url, self.home) as store:
            return list(Reader(store.engine).rounds(run))

    def devices(self, run: str, number: int) -> list[Any]:
        with Store.open(self.url, self.home) as store:
            return list(Reader(store.engine).device_rows(run, number))

    def end(self, run: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return checkpoint.load(checkpoint.path_of(run_folder(self.home, run).checkpoints, ROUNDS))


def use_one_thread() -> None:
    """OpenMP's threads are not there after a fork, and a process that computes with several would wait for them."""
    torch.set_num_threads(1)
    assembly.processor_count = lambda: 1  # type: ignore[attr-defined]


def die() -> None:
    """By SIGKILL: nothing is tidied up."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_mid_round() -> None:
    """While the second round's nodes are at work: one has answered, the other has not."""
    pulled, pull = iter(range(100)), LocalGrid.pull_messages

    def pull_and_die(self: LocalGrid, ids: Any) -> Any:
        if next(pulled) == 3:  # a reply a pull: the second node of the second round is asked for its own
            die()
        return pull(self, ids)

    LocalGrid.pull_messages = pull_and_die  # type: ignore[method-assign]
