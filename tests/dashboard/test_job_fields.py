"""The form's fields against the job file itself: nothing is left out, and nothing changes on the way through."""

import tomli_w

from slimfed.clients.errors import InputError
from slimfed.dashboard import job_fields
from slimfed.dashboard.views import launch
from slimfed.platform.job.field_errors import field_paths
from slimfed.platform.job.job import Job, demo_document, job_to_dict, parse_job
from slimfed.platform.job.overrides import merge
from slimfed.platform.job.presets import PRESETS

SECTIONS = job_fields.sections(Job.model_json_schema(), {"method.name": list(PRESETS)})
EVERY = {field.path: field for section in SECTIONS for field in section.fields}


def test_every_field_of_a_job_is_in_the_form():
    assert sorted(EVERY) == sorted(field_paths(Job))


def test_fields_that_come_first_exist():
    assert set(launch._FIRST) <= set(EVERY)


def test_what_a_field_shows_reads_back_as_its_value():
    values = dict(job_fields.leaves(job_to_dict(parse_job({}))))
    for path, field in EVERY.items():
        value = values[path]
        again = job_fields.read(field, job_fields.written(value))
        document = job_fields.tables({path: again})
        assert job_to_dict(parse_job(document)) == job_to_dict(parse_job({})), path
        assert again == value or value is None or list(value) == list(again), path


def test_limits_and_choices_come_from_the_schema():
    task, rounds, sparsity = EVERY["model.task"], EVERY["training.rounds"], EVERY["method.target_sparsity"]
    assert (task.kind, task.choices) == ("choice", ("classification", "causal-lm"))
    assert (rounds.kind, rounds.least) == ("whole", 1)
    assert (sparsity.kind, sparsity.least, sparsity.most) == ("number", 0.0, 1.0)
    assert "less than 1" in sparsity.help
    assert EVERY["deadlines.straggler_seconds"].optional


def test_the_job_file_has_what_differs_and_means_the_same():
    document = merge(demo_document(), {"training": {"rounds": 3}, "bandit": {"ranks": [2, 4]}})
    job, problems = launch.checked(document)
    assert problems == ()
    short = launch.shortened(document, job)
    assert parse_job(short) == job
    assert short["training"]["rounds"] == 3
    assert "engine" not in short
    assert len(tomli_w.dumps(short)) < 600


def test_a_problem_stands_at_its_field():
    _, problems = launch.checked({"training": {"rounds": 0}, "bandit": {"ranks": [4, 2]}})
    wrong = launch._by_field(problems)
    assert set(wrong) == {"training.rounds", "bandit.ranks"}
    assert "must be at least 1" in wrong["training.rounds"]


def test_tables_undo_leaves():
    document = demo_document()
    assert job_fields.tables(dict(job_fields.leaves(document))) == document
    try:
        parse_job(job_fields.tables({"training.rounds": None}))
    except InputError as error:
        raise AssertionError("what is None is left to its default") from error
