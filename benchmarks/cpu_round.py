"""A round on a CPU against stock Flower + PEFT, in turns on the same machine. Writes the README's table and figure.

    python benchmarks/cpu_round.py [--minilm FOLDER --sst2 FOLDER] [--pfl pfl_peft.py --pfl-python PYTHON]
    python benchmarks/cpu_round.py --render                 # only table and figure again, from results/cpu-round.json
    python benchmarks/cpu_round.py --devices 4 --out FILE   # a quick check that it works

80 devices x 10 steps x batch 8 x length 32, rank 8, no pruning: `slimfed run` with its defaults, and flower_peft.py.
Without the two folders only the 2-layer BERT that slimfed ships is measured. Every side runs at least two rounds, and
its first round is left out. Each model's results are kept with what they were measured on; measuring one model leaves
the other's in the file.

``--pfl``: a script that runs the same work with pfl-research's simulator (or a folder with pfl_peft.py). It is called
with MODEL DATA DEVICES ROUNDS STEPS BATCH LENGTH LEARNING_RATE and prints a line "PEER {json}" with ``rounds``,
``first_round_s`` and ``s_per_round``, the median of the later rounds. ``--pfl-python``: the interpreter with
pfl[pytorch], transformers and peft.
"""

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calling import CallError, call, slimfed_environment, slimfed_run
from cpu_round_report import MINILM, TINY, ReportError, draw, table
from machine import load, machine
from readme_table import put

_HERE = Path(__file__).parent
_RESULTS = _HERE / "results" / "cpu-round.json"
_TINY = _HERE.parent / "clients" / "builtin" / "weights" / "tiny-encoder"
_DEVICES = 80
_WORK = {"steps": 10, "batch": 8, "length": 32, "rank": 8, "learning_rate": 2e-3}
_PFL_LIBRARIES = ("pfl", "torch", "transformers", "peft")


@dataclass(frozen=True)
class Case:
    """A model and its data, and how both sides are run.

    ``peer_devices``: fewer than ``devices`` if the peers' seconds are scaled. ``rounds``: those of each side that end
    without an evaluation. ``limit``: seconds that one run may take.
    """

    name: str
    model: Path
    data: Path
    devices: int
    peer_devices: int
    rounds: int
    limit: float

    @property
    def peer_work(self) -> dict[str, Any]:
        """What the peers are told to do."""
        paths = {"model": str(self.model), "data": str(self.data)}
        return {**_WORK, **paths, "devices": self.peer_devices, "rounds": self.rounds}


def main() -> None:
    """Measure, keep, render."""
    options = _options()
    try:
        if not options.render:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            measure(options)
        results = json.loads(options.out.read_text(encoding="utf-8"))
        print(table(results))
        if options.out.resolve() == _RESULTS.resolve():
            put("cpu-round", table(results))
            draw(results)
    except (CallError, ReportError) as error:
        sys.exit(f"error: {error}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minilm", type=Path, help="folder of the model")
    parser.add_argument("--sst2", type=Path, help="folder with train.jsonl and test.jsonl")
    parser.add_argument("--only", choices=("tiny", "minilm"), help="measure only this model")
    parser.add_argument("--pfl", type=Path, help="script of the third side, or its folder")
    parser.add_argument("--pfl-python", default=sys.executable, help="its interpreter; default: this one")
    parser.add_argument("--turns", type=int, default=2, help="how often each side of a model is run")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each side, of which the first is left out")
    parser.add_argument("--devices", type=int, help="fewer devices on all sides, for a quick check; needs --out")
    parser.add_argument("--peer-devices", type=int, help="fewer devices of the peers; their seconds are scaled")
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds that one run of a side may take")
    parser.add_argument("--out", type=Path, default=_RESULTS)
    parser.add_argument("--render", action="store_true", help="run nothing, write table and figure from --out")
    options = parser.parse_args()
    if options.render and not options.out.is_file():
        parser.error(f"--render: there is no {options.out}")
    if bool(options.minilm) != bool(options.sst2) or (options.only == "minilm" and not options.minilm):
        parser.error("MiniLM needs both --minilm and --sst2")
    if min(options.rounds, options.peer_devices or 2, options.devices or 2) < 2 or options.turns < 1:
        parser.error("at least two rounds, two devices and one turn: the first round of each side is left out")
    if options.devices and options.out.resolve().is_relative_to(_RESULTS.parent.resolve()):
        parser.error(f"--devices is for a quick check: name a file outside {_RESULTS.parent} with --out")
    options.devices = options.devices or _DEVICES
    options.peer_devices = options.peer_devices or options.devices
    if options.peer_devices > options.devices:
        parser.error("--peer-devices: the peers have no more devices than slimfed")
    if options.pfl and options.pfl.is_dir():
        options.pfl /= "pfl_peft.py"
    if options.pfl and not options.pfl.is_file():
        parser.error(f"--pfl: there is no {options.pfl}")
    return options


def measure(options: argparse.Namespace) -> None:
    """All sides of every model, in turns; each model is kept in ``options.out`` when it is done."""
    with tempfile.TemporaryDirectory() as folder:
        for case in _cases(options, Path(folder)):
            entry = _measure(case, options, Path(folder))
            found = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {"models": {}}
            found["models"][case.name] = entry
            options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _measure(case: Case, options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "machine": machine(),
        "load": [],
        "work": _WORK,
        "devices": case.devices,
        "peer_devices": case.peer_devices,
        "slimfed": [],
        "peer": [],
    }
    if options.pfl:
        entry |= {"pfl": [], "pfl_versions": pfl_versions(options.pfl_python)}
    for _ in range(options.turns):
        entry["load"].append(load())
        entry["peer"].append(peer(case, scratch))
        if options.pfl:
            entry["pfl"].append(pfl(case, options.pfl, options.pfl_python, scratch))
        entry["slimfed"].append(ours(case, scratch))
    return entry


def _cases(options: argparse.Namespace, scratch: Path) -> Iterator[Case]:
    counts = (options.devices, options.peer_devices, options.rounds, options.limit)
    if options.only != "minilm":
        _write_commands(scratch / "commands")
        yield Case(TINY, _TINY, scratch / "commands", *counts)
    if options.minilm and options.only != "tiny":
        yield Case(MINILM, options.minilm.resolve(), options.sst2.resolve(), *counts)


def _write_commands(folder: Path) -> None:
    from slimfed.clients.builtin.commands import commands  # only here: a table can be written without slimfed

    folder.mkdir()
    splits = dict(zip(("train", "test"), commands(), strict=True))
    labels = sorted({row.label for row in splits["train"]})
    for name, rows in splits.items():
        lines = [json.dumps({"text": row.text, "label": labels.index(row.label)}) for row in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")


def peer(case: Case, scratch: Path) -> dict[str, Any]:
    """Seconds of every round of Flower + PEFT."""
    settings = scratch / "settings.json"
    settings.write_text(json.dumps(case.peer_work), encoding="utf-8")
    what = f"{case.name}, Flower + PEFT, {case.rounds} rounds of {case.peer_devices} devices"
    command = [sys.executable, str(_HERE / "flower_peft.py"), str(settings)]
    return _printed(what, call(what, command, {"PYTHONPATH": str(_HERE)}, case.limit))


def pfl(case: Case, script: Path, python: str, scratch: Path) -> dict[str, Any]:
    """What the script of pfl-research prints: ``rounds``, ``first_round_s`` and ``s_per_round`` of the later ones."""
    what = f"{case.name}, pfl-research, {case.rounds} rounds of {case.peer_devices} devices"
    names = ("data", "devices", "rounds", "steps", "batch", "length", "learning_rate")
    model = str(in_fp32(case.model, scratch / f"fp32-{case.model.name}"))
    command = [python, str(script), model, *(str(case.peer_work[name]) for name in names)]
    text = call(what, command, {"HF_HUB_OFFLINE": "1"}, case.limit)
    if re.search(r"loss after local training\s*: nan", text):
        raise CallError(f"{what}: its training diverged (a loss is NaN), so its seconds mean nothing")
    return _printed(what, text)


def in_fp32(model: Path, folder: Path) -> Path:
    """A copy of a model's folder with weights in fp32.

    transformers computes in the type of the file unless told otherwise, and the file of the model that slimfed ships is
    fp16: slow on a CPU, and training in it diverges.
    """
    if not folder.exists():
        from safetensors.torch import load_file, save_file  # only here: a table can be written without torch

        shutil.copytree(model, folder)
        weights = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config = {name: value for name, value in config.items() if name != "torch_dtype"} | {"dtype": "float32"}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def pfl_versions(python: str) -> dict[str, str]:
    """Versions of pfl-research and of what it computes with, in its own environment."""
    ask = f"from importlib.metadata import version; print(*map(version, {_PFL_LIBRARIES!r}))"
    text = call("pfl-research's versions (--pfl-python)", [python, "-c", ask], {}, 60.0)
    return dict(zip(_PFL_LIBRARIES, text.split(), strict=True))


def _printed(what: str, text: str) -> dict[str, Any]:
    """The object after "PEER " in a peer's output. Raises :class:`CallError` without one."""
    lines = [line for line in text.splitlines() if line.startswith("PEER ")]
    if len(lines) != 1:
        raise CallError(f"{what}: printed no result. The end of what it printed:\n{text[-2000:]}")
    return dict(json.loads(lines[0].removeprefix("PEER ")))


def ours(case: Case, scratch: Path) -> dict[str, Any]:
    """Seconds of every round of `slimfed run`, store and checkpoint included."""
    rounds = case.rounds + 1  # the last one also measures every model, which the peers do not, and is left out
    sets = {
        "model.path": case.model, "data.path": case.data, "data.max_length": _WORK["length"],
        "fleet.devices": case.devices, "method.target_sparsity": 0.0, "bandit.ranks": [_WORK["rank"]],
        "training.rounds": rounds, "training.local_steps": _WORK["steps"], "training.batch_size": _WORK["batch"],
        "training.learning_rate": _WORK["learning_rate"], "evaluation.every": rounds, "evaluation.device_examples": 1,
    }  # fmt: skip
    home = scratch / "home"
    what = f"{case.name}, slimfed, {rounds} rounds of {case.devices} devices"
    shown = slimfed_run(what, sets, slimfed_environment(home, scratch), case.limit)
    reasons = Path(shown["folder"], "logs", "engine.log").read_text(encoding="utf-8").splitlines()
    return {"seconds": [each["wall_seconds"] for each in shown["round_list"]][:-1], "engine": reasons}


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
