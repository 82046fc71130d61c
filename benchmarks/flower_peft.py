"""The peer of cpu_round.py: federated LoRA as one writes it with stock Flower and PEFT, on the same work.

    python benchmarks/flower_peft.py SETTINGS.json

Every device is a Flower node that loads the model, wraps it with PEFT, trains it and sends its adapter back; FedAvg
averages. Tokens are cached in the worker, which is more than Flower's own examples do. Prints one JSON object.
"""

import json
import os
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

_SETTINGS = json.loads(Path(os.environ.get("PEER_SETTINGS") or sys.argv[1]).read_text(encoding="utf-8"))
_LINEARS = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]

client, server = ClientApp(), ServerApp()


@cache
def text() -> tuple[list[str], np.ndarray]:
    """Texts and labels of the training split."""
    lines = Path(_SETTINGS["data"], "train.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [row["text"] for row in rows], np.array([row["label"] for row in rows])


@cache
def tokens() -> dict[str, torch.Tensor]:
    """The training split, padded to the longest length that is allowed."""
    tokenizer = AutoTokenizer.from_pretrained(_SETTINGS["model"])
    length = _SETTINGS["length"]
    return dict(tokenizer(text()[0], truncation=True, max_length=length, padding="max_length", return_tensors="pt"))


@cache
def parts() -> list[np.ndarray]:
    """Rows of each device, dealt evenly."""
    rows = np.random.default_rng(0).permutation(len(text()[1]))
    return np.array_split(rows, _SETTINGS["devices"])


def adapted() -> PeftModel:
    """The base with a fresh adapter on every linear module of its layers."""
    torch.manual_seed(0)
    labels = int(text()[1].max()) + 1
    model = AutoModelForSequenceClassification.from_pretrained(
        _SETTINGS["model"], num_labels=labels, dtype=torch.float32
    )
    rank = _SETTINGS["rank"]
    return get_peft_model(model, LoraConfig("SEQ_CLS", r=rank, lora_alpha=2 * rank, target_modules=_LINEARS))


@client.train()
def train(message: Message, context: Context) -> Message:
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    device, number = int(context.node_config["partition-id"]), int(message.content["config"]["server-round"])
    model = adapted()
    set_peft_model_state_dict(model, message.content["arrays"].to_torch_state_dict())
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=_SETTINGS["learning_rate"])
    draw = np.random.default_rng([number, device])
    model.train()
    total = 0.0
    for _ in range(_SETTINGS["steps"]):
        rows = draw.choice(parts()[device], _SETTINGS["batch"])
        batch = {name: tensor[rows] for name, tensor in tokens().items()}
        loss = model(**batch, labels=torch.from_numpy(text()[1][rows])).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        total += loss.item()
    metrics = MetricRecord({"num-examples": len(parts()[device]), "loss": total / _SETTINGS["steps"]})
    arrays = ArrayRecord(get_peft_model_state_dict(model))
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


class TimedFedAvg(FedAvg):
    """FedAvg that notes when each round is averaged."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.moments = [time.monotonic()]
        self.losses: list[float] = []

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        """As FedAvg does."""
        result = super().aggregate_train(server_round, replies)
        self.moments.append(time.monotonic())
        if result[1] is None:
            raise RuntimeError("no device of the peer succeeded")
        self.losses.append(float(result[1]["loss"]))
        return result


@server.main()
def main(grid: Grid, _context: Context) -> None:
    strategy = TimedFedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_available_nodes=_SETTINGS["devices"])
    arrays = ArrayRecord(get_peft_model_state_dict(adapted()))
    strategy.moments = [time.monotonic()]
    strategy.start(grid=grid, initial_arrays=arrays, num_rounds=_SETTINGS["rounds"])
    print("PEER " + json.dumps({"seconds": np.diff(strategy.moments).tolist(), "losses": strategy.losses}), flush=True)


if __name__ == "__main__":
    os.environ["PEER_SETTINGS"] = sys.argv[1]
    import flower_peft  # by name, so that workers import it once instead of unpickling it at every call

    backend = {
        "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        "init_args": {"address": "local"},  # else Ray waits in vain for a cluster of which only the address is left
    }
    nodes = _SETTINGS["devices"]
    run_simulation(flower_peft.server, flower_peft.client, num_supernodes=nodes, backend_config=backend)
