"""A long run of a large simulated fleet with dropouts: does memory grow, do handles leak, how large does the store get?

    python benchmarks/soak.py --devices 1000 --rounds 500 --dropout 0.2 --folder /tmp/soak     # all of it
    python benchmarks/soak.py --folder /tmp/soak --rounds-now 50                                # the next 50 rounds

It is the server's own code (session, strategy, recorder, store) with nodes in this process, and goes on where it
stopped, so that it can be run in parts; the last part prints the whole course as JSON.
"""

import argparse
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from slimfed.platform.fleet import load_fleet
from slimfed.platform.home import run_folder
from slimfed.platform.job import load_job
from slimfed.platform.preflight import Checked
from slimfed.platform.runs import create_run
from slimfed.platform.session import serve
from slimfed.platform.sizing import Sizing
from slimfed.platform.store.queries import Reader
from slimfed.platform.store.store import Store
from slimfed.strategies.local_grid import LocalGrid

SETS = (
    "training.local_steps=1 training.batch_size=1 data.max_length=12 evaluation.every=50 evaluation.devices=0 "
    "evaluation.device_examples=10 pruning.events=1 method.target_sparsity=0 bandit.ranks=[2] engine.name=cohort "
    "engine.cohort_size=50 engine.dtype=fp32 engine.workers=1 deadlines.quorum=0.3"
)


class Measured(LocalGrid):
    """A grid that takes stock of this process before each round, and asks for a stop after some."""

    def __init__(self, nodes: int, store: Store, run: str, rounds: int, course: Path) -> None:
        super().__init__(nodes)
        self.store, self.run_id, self.rounds, self.course = store, run, rounds, course
        self.process, self.begun = psutil.Process(), 0

    def get_node_ids(self) -> Iterable[int]:
        """All nodes; asked at the beginning of a round."""
        if not self._sent:  # a round begins
            self.begun += 1
            self.note()
            if self.begun > self.rounds:
                self.store.request_stop(self.run_id)
        return super().get_node_ids()

    def note(self) -> None:
        """Write down what this process holds now."""
        sizes = [path.stat().st_size for path in self.course.parent.glob("store.db*")]
        row = {
            "round": Reader(self.store.engine).find_run(self.run_id).rounds_done,
            "resident_mb": round(self.process.memory_info().rss / 1e6, 1),
            "handles": self.process.num_fds(),
            "threads": self.process.num_threads(),
            "store_mb": round(sum(sizes) / 1e6, 2),
            "checkpoint_mb": round(sum(p.stat().st_size for p in self.course.parent.rglob("round-*/*")) / 1e6, 2),
            "at": time.time(),
            "process": os.getpid(),
        }
        with self.course.open("a") as file:
            file.write(json.dumps(row) + "\n")


def main() -> None:
    """Begin, or go on with, the run in ``--folder``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--rounds-now", type=int, help="stop after so many; default: go on to the end")
    given = parser.parse_args()
    home = given.folder.absolute()
    home.mkdir(parents=True, exist_ok=True)
    known = home / "run-id"
    with Store.open("sqlite", home) as store:
        if not known.exists():
            sets = [f"fleet.devices={given.devices}", f"training.rounds={given.rounds}"]
            sets += [f"fleet.dropout={given.dropout}", *SETS.split()]
            job = load_job(None, sets)
            fleet = load_fleet(job.fleet, job.seed)
            checked = Checked(job, fleet, (1,) * given.devices, Sizing(2, 1, 0), ())
            known.write_text(create_run(store, home, checked)[0])
        run = known.read_text()
        grid = Measured(2, store, run, given.rounds_now or given.rounds, home / "course.jsonl")
        settings = {"run": run, "home": str(home), "nodes": 2, "real": False}
        serve(grid, {f"slimfed.{name}": value for name, value in settings.items()})
        grid.note()
        found = Reader(store.engine).find_run(run)
    course = [json.loads(line) for line in (home / "course.jsonl").read_text().splitlines()]
    print(json.dumps({"run": run, "status": found.status, "rounds": found.rounds_done, **_growth(course)}))
    print(f"logs: {run_folder(home, run).logs}")


def _growth(course: list[dict]) -> dict[str, float]:
    """Over the second half of this process's rounds, when everything has been loaded."""
    own = [row for row in course if row["process"] == course[-1]["process"]]
    settled = own[len(own) // 2]
    rounds = max(own[-1]["round"] - settled["round"], 1)
    return {
        "resident_mb": own[-1]["resident_mb"],
        "resident_growth_kb_a_round": round(1e3 * (own[-1]["resident_mb"] - settled["resident_mb"]) / rounds, 1),
        "handles_growth": own[-1]["handles"] - settled["handles"],
        "threads_growth": own[-1]["threads"] - settled["threads"],
        "store_kb_a_round": round(1e3 * (own[-1]["store_mb"] - settled["store_mb"]) / rounds, 1),
        "store_mb": own[-1]["store_mb"],
        "checkpoint_mb": own[-1]["checkpoint_mb"],
        "seconds_a_round": round((own[-1]["at"] - settled["at"]) / rounds, 2),
    }


if __name__ == "__main__":
    main()
