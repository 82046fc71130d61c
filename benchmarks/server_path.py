"""Seconds that the server itself takes for a round: what remains when training costs nothing.

    python benchmarks/server_path.py [--model FOLDER --task causal-lm] [--devices 40] [--rounds 3] [--profile]

The server's own code: plans, messages, checks, sums, aggregation, its error, structures, server optimiser. The nodes
train nothing: they read their orders as nodes do, and answer with the adapter that they were sent plus noise of the
size of a round's training, with random importance and a structure pruned by it. Nothing is evaluated or stored.
Without --model: a random Llama of the shape of SmolLM2-135M (30 layers x 576).

Prints milliseconds a round and phase, medians over the rounds after the first; "answers" is what the nodes took.
"""

import argparse
import cProfile
import json
import pstats
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from flwr.app import Message, RecordDict
from local_run import PrintingRecorder

from slimfed.clients.adapter import Adapter, Factors
from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.messages.records import Orders, decode_orders, encode_results, encode_work
from slimfed.clients.node.runtime import NodeRuntime, open_runtime
from slimfed.clients.pruning.adapter_slicing import narrow
from slimfed.clients.pruning.selection import select
from slimfed.clients.update import Assignment, Evaluation, Report, Update, Workload
from slimfed.platform.job.job import load_job
from slimfed.platform.launch.preflight import check
from slimfed.platform.server.assembly import assemble, new_fleet
from slimfed.strategies.local_grid import LocalGrid
from slimfed.strategies.protocols import RoundRecord

_NOISE = 1e-3
"""Root mean square change of an adapter's entries by a device's round."""


class AnsweringGrid(LocalGrid):
    """One node that answers without training."""

    def __init__(self, runtime: NodeRuntime) -> None:
        super().__init__(1)
        self._runtime = runtime
        self.seconds = 0.0

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The reply to one message, in the records of a real node."""
        wanted = set(message_ids)
        message_id = next((each for each in self._sent if each in wanted), None)
        if message_id is None:
            return []
        began = time.perf_counter()
        message, _ = self._sent.pop(message_id)
        reply = Message(self._answer(message.content), reply_to=message)
        self.seconds += time.perf_counter() - began
        return [reply]

    def _answer(self, content: RecordDict) -> RecordDict:
        orders = decode_orders(content, self._runtime.blueprint)
        precision = orders.task.messages.precision
        upload = ADAPTERS[orders.task.adapter.name].upload
        updates = [_update(orders, each) for each in orders.assignments]
        reply = encode_results([replace(u, adapter=upload(u.adapter)) for u in updates], precision)
        encode_work(reply, 1.0)
        return RecordDict(dict(reply))


def _update(orders: Orders, assignment: Assignment) -> Update:
    draw = np.random.default_rng(assignment.seed)
    scores = draw.random(assignment.structure.blueprint.units, dtype=np.float32) * assignment.structure.keep
    structure = assignment.structure
    if assignment.sparsity > structure.sparsity:
        structure = select(structure, scores, assignment.sparsity, orders.task.pruning.scope)
    adapter = narrow(orders.adapter, orders.envelope, structure, assignment.rank)
    report = Report(
        assignment.device, assignment.round, assignment.rank, float(assignment.rank), structure, 2.0, 1.9, 1.0,
        100 + assignment.device, 1.0, 0, Workload(1e12, 1e9, 1e9), None,
    )  # fmt: skip
    return Update(report, _moved(adapter, draw), scores)


def _moved(adapter: Adapter, draw: np.random.Generator) -> Adapter:
    def near(tensor: np.ndarray) -> np.ndarray:
        return tensor + _NOISE * draw.standard_normal(tensor.shape, dtype=np.float32)

    factors = {name: Factors(near(f.a), near(f.b)) for name, f in adapter.factors.items()}
    return Adapter(factors, {name: near(tensor) for name, tensor in adapter.head.items()})


class NoEvaluator:
    """Says the same of every model."""

    def evaluate(self, *_: Any, **_options: Any) -> Evaluation:
        """Nothing is measured."""
        return Evaluation(1.0, 0.5, 1)

    def majority(self, *_: Any) -> None:
        """Nothing is measured."""

    def held_out(self, *_: Any) -> None:
        """Nothing is measured."""


class Rounds(PrintingRecorder):
    """Keeps phases, and the error of the aggregation."""

    def record(self, record: RoundRecord, tensors: dict[str, Any], state: dict[str, Any]) -> None:
        """One more round."""
        self.rounds.append(replace(record, devices=()))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--task", default="causal-lm", choices=("causal-lm", "classification"))
    parser.add_argument("--devices", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], dest="sets")
    parser.add_argument("--profile", action="store_true", help="also print the functions that took longest")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = given.model or _random_llama(Path(folder))
        _write_texts(Path(folder) / "data", given.devices, given.task)
        sets = [f"model.path={model}", f"model.task={given.task}", f"data.path={folder}/data", "data.max_length=16",
                f"fleet.devices={given.devices}", f"training.rounds={given.rounds}", "data.partition.kind=iid",
                "training.batch_size=1", "evaluation.every=1000", "evaluation.devices=0", "engine.name=cohort",
                "engine.cohort_size=20", "engine.dtype=fp32", "engine.workers=1", *given.sets]  # fmt: skip
        job = check(load_job(None, sets)).job
        runtime = open_runtime(job.task_spec())
    recorder, grid = Rounds(), AnsweringGrid(runtime)
    strategy = assemble(job, runtime, new_fleet(runtime, job), 1, recorder)
    strategy.context = replace(strategy.context, evaluator=NoEvaluator(), examples=None)
    profile = cProfile.Profile()
    if given.profile:
        profile.enable()
    strategy.start(grid)
    profile.disable()
    if given.profile:
        pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(35)
    rounds = recorder.rounds[1:] or recorder.rounds
    phases = {
        name: 1e3 * median(r.phases["server"].get(name, 0.0) for r in rounds) for name in rounds[-1].phases["server"]
    }
    phases["answers"] = 1e3 * grid.seconds / given.rounds
    print(json.dumps({name: round(milliseconds, 1) for name, milliseconds in phases.items()}))
    errors = [(r.aggregation_error, r.aggregation_error_deviation) for r in recorder.rounds]
    print("aggregation error and its deviation:", ", ".join(f"{e:.3f} ({d:.3f})" for e, d in errors if e is not None))


def _random_llama(folder: Path) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    from slimfed.clients.models.loading import load_model
    from slimfed.clients.spec import ModelSpec

    tokenizer = load_model(ModelSpec(path="builtin:tiny-decoder", task="causal-lm"), (), 0).tokenizer
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
        num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder / "model"


def _write_texts(folder: Path, devices: int, task: str) -> None:
    folder.mkdir()
    for split in ("train", "test"):
        label = {} if task == "causal-lm" else {"label": "0"}
        rows = [{"text": f"turn the lamp {row} on", **label} for row in range(4 * devices)]
        if task != "causal-lm":
            rows = [{**row, "label": str(at % 2)} for at, row in enumerate(rows)]
        (folder / f"{split}.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
