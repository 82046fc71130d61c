"""A job on conversations, from the check before it to its evaluation."""

import json
from pathlib import Path

import pytest

from slimfed.clients.errors import InputError
from slimfed.platform.job.job import Job
from slimfed.platform.launch.preflight import check


def job(folder: Path, **data: object) -> Job:
    return Job.model_validate(
        {
            "model": {"path": "builtin:tiny-decoder", "task": "causal-lm"},
            "data": {"path": str(folder), "messages": "messages", "max_length": 60} | data,
            "fleet": {"devices": 2},
            "bandit": {"ranks": [4]},
            "engine": {"name": "cohort", "workers": 1, "cohort_size": 2, "dtype": "fp32"},
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    said = [("turn on the light", "ok"), ("what is the time in the kitchen now " * 12, "it is five o'clock")]
    for name in ("train", "test"):
        rows = [
            {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in said * 4
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_a_tokenizer_without_template_is_refused_before_the_run(folder: Path) -> None:
    with pytest.raises(InputError, match=r'has no chat template; set data\.template = "chatml"'):
        check(job(folder))


def test_texts_that_are_cut_are_counted(folder: Path) -> None:
    checked = check(job(folder, template="chatml"))
    line = (
        "data.max_length = 60: 4 of 8 texts of the train split are longer; what stands before the answer is cut first"
    )
    assert checked.truncated[0] == line
    assert line in checked.reasons
