"""A run in a store, as if it had finished: job file, rows and a checkpoint, without the rounds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from slimfed.clients.adapter import Adapter, Factors
from slimfed.clients.node.runtime import open_runtime
from slimfed.clients.pruning.selection import select
from slimfed.platform.home import run_folder
from slimfed.platform.job.job import job_to_dict, job_to_toml, parse_job
from slimfed.platform.server import checkpoint
from slimfed.platform.server.assembly import new_fleet
from slimfed.platform.server.base_digest import pin_base
from slimfed.platform.store.writer import Store
from slimfed.strategies.server_state import Fleet

RUN = "20260101-000000-abc"
DEVICES = 3


def finished_run(home: Path, document: dict[str, Any] | None = None, run_id: str = RUN) -> Fleet:
    """Make the run; the adapter is random, the global model half pruned, device ``d`` by 0.1 * d."""
    job = parse_job({"name": "small", "seed": 5, "fleet": {"devices": DEVICES}} | (document or {}))
    with Store.open("sqlite", home) as store:
        store.create_run(run_id, job_to_dict(job), home / run_id)
        store.finish(run_id, "done")
    (home / run_id).mkdir(exist_ok=True)
    (home / run_id / "job.toml").write_text(job_to_toml(job))
    runtime = open_runtime(job.task_spec())
    pin_base(run_folder(home, run_id), job.model, runtime.base)
    fleet = new_fleet(runtime, job)
    draw = np.random.default_rng(5)
    scores = draw.random(fleet.blueprint.units)
    for number, device in enumerate(fleet.devices):
        device.structure = select(device.structure, scores, 0.1 * number, "layer")
    factors = {
        name: Factors(f.a, draw.normal(0, 0.02, f.b.shape).astype(np.float32))
        for name, f in fleet.adapter.factors.items()
    }
    head = {name: draw.normal(0, 0.2, h.shape).astype(np.float32) for name, h in fleet.adapter.head.items()}
    done = replace(
        fleet, adapter=Adapter(factors, head), structure=select(fleet.structure, scores, 0.5, "layer"), round=2
    )
    checkpoint.save(home / run_id / "checkpoints", 2, *done.checkpoint())
    return done
