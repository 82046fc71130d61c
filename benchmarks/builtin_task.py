"""Difficulty of ``builtin:commands``: bag of words and the tuned ``builtin:tiny-encoder``, both trained centrally.

``python benchmarks/builtin_task.py`` prints the table of docs/builtin.md; one thread, about five minutes.
"""

import argparse
import time

import numpy as np
import torch
from peft import LoraConfig, inject_adapter_in_model
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from slimfed.clients.data.batching import TokenisedSplit, tokenise, training_batches
from slimfed.clients.data.text import TextData, load_data
from slimfed.clients.evaluation.metrics import evaluate
from slimfed.clients.models.discovery import discover
from slimfed.clients.models.loading import LoadedModel, load_model
from slimfed.clients.spec import DataSpec, ModelSpec

_BATCH = 64
_RANK = 8
_MAX_LENGTH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="builtin:tiny-encoder")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--steps", type=int, nargs="*", default=[400, 1200])
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| trained on all 8,000 examples | accuracy | time |\n|---|---|---|")
    data = load_data(DataSpec(), "classification")
    for longest in (1, 2):
        accuracy, seconds = bag_of_words(data, longest)
        print(f"| TF-IDF of up to {longest} words, logistic regression | {accuracy:.3f} | {seconds:.1f} s |")
    for steps in args.steps:
        accuracy, seconds = tuned(ModelSpec(path=args.model), data, steps, args.learning_rate)
        print(f"| {args.model}, LoRA r={_RANK}, {steps} steps of {_BATCH} | {accuracy:.3f} | {seconds:.1f} s |")
    decoder = ModelSpec(path="builtin:tiny-decoder", task="causal-lm")
    for steps in args.steps[:1]:
        accuracy, seconds = tuned(decoder, load_data(DataSpec(), "causal-lm"), steps, args.learning_rate)
        name = f"{decoder.path}, LoRA r={_RANK}, {steps} steps of {_BATCH}, next token of the answer"
        print(f"| {name} | {accuracy:.3f} | {seconds:.1f} s |")


def bag_of_words(data: TextData, longest: int) -> tuple[float, float]:
    started = time.perf_counter()
    words = TfidfVectorizer(ngram_range=(1, longest), token_pattern=r"[\w']+")
    model = LogisticRegression(C=10, max_iter=1000).fit(words.fit_transform(data.train.text), data.train.label)
    accuracy = model.score(words.transform(data.test.text), data.test.label)
    return float(accuracy), time.perf_counter() - started


def tuned(model: ModelSpec, data: TextData, steps: int, rate: float) -> tuple[float, float]:
    started = time.perf_counter()
    loaded = load_model(model, data.labels, seed=7)
    train, test = (tokenise(split, loaded.tokenizer, _MAX_LENGTH) for split in (data.train, data.test))
    tune(loaded, train, steps, rate)
    return evaluate(loaded.model, test).accuracy, time.perf_counter() - started


def tune(loaded: LoadedModel, train: TokenisedSplit, steps: int, rate: float) -> None:
    """LoRA on every prunable linear, head in full, AdamW with a rate that warms up and falls to zero."""
    torch.manual_seed(7)
    config = LoraConfig(r=_RANK, lora_alpha=2 * _RANK, target_modules=list(discover(loaded.model).modules))
    inject_adapter_in_model(config, loaded.model)
    for name in loaded.head:
        loaded.model.get_parameter(name).requires_grad_(True)
    parameters = [p for p in loaded.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1.0, (s + 1) / 20) * (1 - s / steps))
    for batch in training_batches(train, np.arange(len(train)), _BATCH, steps, seed=7, turn=7):
        loaded.model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()


if __name__ == "__main__":
    main()
