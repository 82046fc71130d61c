"""A long run of a large simulated fleet with dropouts: does memory grow, do handles leak, how large does the store get?

    python benchmarks/soak.py --folder /tmp/soak                    # 1,000 devices, 500 rounds, 20% dropouts
    python benchmarks/soak.py --folder /tmp/soak --minutes 10       # as many of the rounds as ten minutes hold

It is the server's own code (session, strategy, recorder, checkpoints, store) with nodes in this process, and a model so
small that most of the time is the server's. It goes on where it stopped, so it can be run in parts. Each part ends with
the course of the whole as a table, and a line of JSON.
"""

import argparse
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import BertConfig, BertForMaskedLM

from slimfed.clients.models.loading import load_model
from slimfed.clients.spec import ModelSpec
from slimfed.platform.fleet.profiles import load_fleet
from slimfed.platform.home import run_folder
from slimfed.platform.job.job import load_job
from slimfed.platform.launch.preflight import Checked
from slimfed.platform.launch.run_creation import create_run
from slimfed.platform.launch.workers import Sizing
from slimfed.platform.server.session import serve
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.writer import Store
from slimfed.strategies.local_grid import LocalGrid

SETS = (
    "training.local_steps=1 training.batch_size=1 data.max_length=12 evaluation.every=50 evaluation.devices=0 "
    "evaluation.device_examples=10 pruning.events=1 method.target_sparsity=0.5 bandit.ranks=[2,4] engine.name=cohort "
    "engine.cohort_size=100 engine.dtype=fp32 engine.workers=1 deadlines.quorum=0.3"
)
ROWS = 12


class Measured(LocalGrid):
    """A grid that takes stock of this process before each round, and asks for a stop when the time is over."""

    def __init__(self, nodes: int, store: Store, run: str, seconds: float, course: Path) -> None:
        super().__init__(nodes)
        self.store, self.run_id, self.course = store, run, course
        self.process, self.deadline = psutil.Process(), time.monotonic() + seconds
        self.noted = -1

    def get_node_ids(self) -> Iterable[int]:
        """All nodes; asked at the beginning of a round."""
        if not self._sent:  # a round begins
            self.note()
            if time.monotonic() > self.deadline:
                self.store.request_stop(self.run_id)
        return super().get_node_ids()

    def note(self) -> None:
        """Write down what this process holds now, once a round."""
        done = Reader(self.store.engine).find_run(self.run_id).rounds_done
        if done == self.noted:
            return
        self.noted = done
        sizes = [path.stat().st_size for path in self.course.parent.glob("store.db*")]
        row = {
            "round": done,
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
    parser.add_argument("--minutes", type=float, help="stop after so many; default: go on to the end")
    given = parser.parse_args()
    home = given.folder.absolute()
    home.mkdir(parents=True, exist_ok=True)
    with Store.open("sqlite", home) as store:
        run = _run(store, home, given.devices, given.rounds, given.dropout)
        seconds = float("inf") if given.minutes is None else 60 * given.minutes
        grid = Measured(2, store, run, seconds, home / "course.jsonl")
        settings = {"run": run, "home": str(home), "nodes": 2, "real": False}
        serve(grid, {f"slimfed.{name}": value for name, value in settings.items()})
        grid.note()
        found = Reader(store.engine).find_run(run)
    course = [json.loads(line) for line in (home / "course.jsonl").read_text().splitlines()]
    print(_table(course))
    print(json.dumps({"run": run, "status": found.status, "rounds": found.rounds_done, **_growth(course)}))
    print(f"logs: {run_folder(home, run).logs}")


def _run(store: Store, home: Path, devices: int, rounds: int, dropout: float) -> str:
    """The run of this folder, made at the first call."""
    known = home / "run-id"
    if not known.exists():
        _write_model(home / "model")
        sets = [f"fleet.devices={devices}", f"training.rounds={rounds}", f"fleet.dropout={dropout}"]
        job = load_job(None, [*sets, f'model.path="{home / "model"}"', *SETS.split()])
        fleet = load_fleet(job.fleet, job.seed)
        checked = Checked(job, fleet, (1,) * devices, Sizing(2, 1, 0), ())
        known.write_text(create_run(store, home, checked)[0])
    return known.read_text()


def _write_model(folder: Path) -> None:
    """One layer of 32: with it a step costs next to nothing."""
    torch.manual_seed(1)
    tokenizer = load_model(ModelSpec(), ("a", "b"), 1).tokenizer
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    model = BertForMaskedLM(BertConfig(**sizes, vocab_size=len(tokenizer), max_position_embeddings=64))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _table(course: list[dict[str, Any]]) -> str:
    """The course of the run in Markdown: some rounds, evenly apart."""
    last = course[-1]["round"]
    wanted = sorted({max(1, round(last * part / (ROWS - 1))) for part in range(ROWS)})
    lines = ["| round | resident memory, MB | file handles | threads | store, MB | checkpoints, MB |", "|---" * 6 + "|"]
    by_round = {row["round"]: row for row in course}
    for row in (by_round[number] for number in wanted if number in by_round):
        cells = (row[name] for name in ("round", "resident_mb", "handles", "threads", "store_mb", "checkpoint_mb"))
        lines.append(f"| {' | '.join(f'{cell:,}' for cell in cells)} |")
    return "\n".join(lines)


def _growth(course: list[dict[str, Any]]) -> dict[str, float]:
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
