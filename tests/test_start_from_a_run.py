"""``model.path = "run:ID"``: a run goes on from what another has learnt and removed."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import slimfed
from slimfed.clients.data.text import load_data
from slimfed.clients.models.discovery import discover
from slimfed.clients.models.loading import load_model
from slimfed.clients.models.location import weights_bytes
from slimfed.clients.models.start import FILE
from slimfed.clients.pruning.model_slicing import slice_model
from slimfed.platform.export import GLOBAL, Exporter
from slimfed.platform.launch.estimate import estimate
from slimfed.platform.launch.preflight import inspect
from slimfed.platform.lineage import with_parent
from slimfed.platform.standing import standing
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.writer import Store

pytestmark = pytest.mark.timeout(300)

JOB: dict[str, Any] = {
    "name": "parent",
    "fleet": {"devices": 4},
    "method": {"target_sparsity": 0.4},
    "bandit": {"local_steps": [], "ranks": [2, 4]},
    "training": {"rounds": 3, "local_steps": 3},
    "engine": {"workers": 1, "cohort_size": 4, "dtype": "fp32"},
    "evaluation": {"device_examples": 40},
}


def run(home: Path, **changes: Any) -> slimfed.RunResult:
    return slimfed.run(JOB, set=changes, runtime="local", home=home, progress=False)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def parent(home: Path) -> slimfed.RunResult:
    return run(home)


@pytest.fixture(scope="module")
def child(home: Path, parent: slimfed.RunResult) -> slimfed.RunResult:
    return run(home, name="child", **{"model.path": f"run:{parent.id}"})


def test_it_begins_where_the_other_ended(parent: slimfed.RunResult, child: slimfed.RunResult, home: Path) -> None:
    assert child.status == "done"
    assert child.job.model.parent == parent.id
    with Store.open("sqlite", home) as store:
        reader = Reader(store.engine)
        began = reader.find_run(child.id)
        exporter = Exporter(reader.find_run(parent.id), {})
    assert began.base_accuracy == pytest.approx(parent.accuracy, abs=0.003), "the sums have another order"
    assert "the model that it began with" in str(standing(began))
    text = load_data(child.job.data, "classification", child.job.seed)
    base = load_model(child.job.model, text.labels, child.job.seed)
    assert base.start is not None
    first = slice_model(base.model, base.start.structure(discover(base.model)))
    batch = base.tokenizer(list(text.test.text[:8]), return_tensors="pt", padding=True)
    with torch.no_grad():
        torch.testing.assert_close(first(**batch).logits, exporter.source(GLOBAL).model()(**batch).logits)
    assert weights_bytes(child.job.model) == weights_bytes(parent.job.model), "the size that exports are compared with"


def test_what_was_removed_stays_removed(parent: slimfed.RunResult, child: slimfed.RunResult) -> None:
    assert parent.sparsity == pytest.approx(0.4, abs=0.01)
    assert list(child.rounds.sparsity) == pytest.approx([parent.sparsity] * 3, abs=1e-6)
    assert any("run " + parent.id in cause for cause in child.events.cause)


def test_it_goes_on_to_a_higher_sparsity_and_can_be_a_parent_itself(home: Path, child: slimfed.RunResult) -> None:
    third = run(home, name="third", **{"model.path": f"run:{child.id}", "method.target_sparsity": 0.6})
    assert third.status == "done"
    assert third.sparsity == pytest.approx(0.6, abs=0.01)
    assert third.rounds.sparsity.min() >= 0.4 - 0.01


def test_a_run_of_other_labels_gets_a_head_of_its_own(home: Path, parent: slimfed.RunResult, tmp_path: Path) -> None:
    rows = [{"text": f"text {n}", "label": "even" if n % 2 == 0 else "odd"} for n in range(60)]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    other = run(home, **{"model.path": f"run:{parent.id}", "data.path": str(file), "training.rounds": 1})
    assert other.status == "done", other.cause
    reasons = inspect(other.job).checked.reasons
    assert any(f"the head of run {parent.id} is for other labels" in reason for reason in reasons)
    drawn = [load_model(other.job.model, ("even", "odd"), seed).model.classifier.weight for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    same = load_data(parent.job.data, "classification", 1).labels
    assert torch.equal(*(load_model(other.job.model, same, seed).model.classifier.weight for seed in (1, 2)))


def test_a_run_can_be_a_teacher(home: Path, parent: slimfed.RunResult) -> None:
    settings = {"method.target_sparsity": 0.0, "training.kl": 5.0, "training.teacher": f"run:{parent.id}"}
    pupil = run(home, name="pupil", **settings, **{"training.rounds": 1})
    assert pupil.status == "done", pupil.cause
    assert pupil.job.engine.name == "sequential"
    assert Path(pupil.job.training.teacher).name == "finished-3"
    for fields in ({"training.recovery": "squarehead"}, settings):
        taught = with_parent(slimfed.load_job(JOB, set=fields), home)
        assert estimate(inspect(taught)).wall_seconds > 0, "what slimfed check says"
    for settings, said in (
        ({"training.teacher": f"run:{parent.id}"}, "nothing is held to it"),
        ({"training.kl": 1.0}, "the base has no trained head"),
        ({"training.kl": 1.0, "training.teacher": "run:nobody"}, 'training.teacher = "run:nobody"'),
        ({"training.kl": 1.0, "training.teacher": f"run:{parent.id}", "model.path": "builtin:tiny-decoder"}, "layers"),
    ):
        with pytest.raises(slimfed.InputError, match=re.escape(said)):
            run(home, **settings)


def test_what_cannot_be_started_from_is_refused_in_one_line(home: Path, parent: slimfed.RunResult) -> None:
    before = sorted(each.name for each in home.iterdir())
    with pytest.raises(slimfed.InputError, match=r'^model.path = "run:nobody": .*nobody.*$'):
        run(home, **{"model.path": "run:nobody"})
    with pytest.raises(slimfed.InputError, match=r'^model.revision: model.path = "run:.*leave it out$'):
        run(home, **{"model.path": f"run:{parent.id}", "model.revision": "abc"})
    with pytest.raises(slimfed.InputError, match=r"cuts the width of a whole model"):
        run(home, **{"model.path": f"run:{parent.id}", "method.name": "pat"})
    assert sorted(each.name for each in home.iterdir()) == before


def test_a_run_that_cut_the_width_is_no_start(home: Path) -> None:
    narrow = run(home, name="narrow", **{"method.name": "pat", "training.rounds": 2})
    with pytest.raises(slimfed.InputError, match="cuts the width of the model, which has no place in the base"):
        run(home, **{"model.path": f"run:{narrow.id}"})


def test_a_damaged_start_is_named(home: Path, parent: slimfed.RunResult) -> None:
    job = with_parent(slimfed.load_job(JOB, set={"model.path": f"run:{parent.id}"}), home)
    file = Path(job.model.path) / FILE
    whole = file.read_text(encoding="utf-8")
    try:
        for damaged in (
            whole[:-20],
            re.sub(r"\[0,", "[9999,", whole, count=1),
            whole.replace('"kept":{', '"kept":{"x":[0],'),
        ):
            file.write_text(damaged, encoding="utf-8")
            with pytest.raises(slimfed.InputError, match=FILE):
                slimfed.run(job, runtime="local", home=home, progress=False)
    finally:
        file.write_text(whole, encoding="utf-8")
    assert np.isfinite(parent.accuracy)
