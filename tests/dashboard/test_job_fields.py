"""The form's fields against the job file itself: nothing is left out, and nothing changes on the way through."""

from slimfed.clients.errors import InputError
from slimfed.dashboard import job_fields
from slimfed.dashboard.launching import draft, inputs
from slimfed.platform.job.field_errors import field_paths
from slimfed.platform.job.job import Job, demo_document, job_to_dict, parse_job
from slimfed.platform.job.overrides import merge
from slimfed.platform.job.presets import PRESETS

SECTIONS = job_fields.sections(Job.model_json_schema(), {"method.name": list(PRESETS)})
EVERY = {field.path: field for section in SECTIONS for field in section.fields}


def test_every_field_of_a_job_is_in_the_form():
    assert sorted(EVERY) == sorted(field_paths(Job))


def test_fields_that_come_first_exist():
    assert {path for paths in inputs.TOP.values() for path in paths} <= set(EVERY)
    assert set(job_fields.WORDS) <= set(EVERY)


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


def test_the_job_file_has_what_somebody_gave_and_nothing_else():
    found = draft.drafted(demo_document(), {"training.rounds": 3, "bandit.ranks": [2, 4]})
    assert found.problems == ()
    assert found.document == merge(demo_document(), {"training": {"rounds": 3}, "bandit": {"ranks": [2, 4]}})
    assert parse_job(found.document) == found.job
    assert found.shown["training.batch_size"] == 8


def test_what_is_taken_back_is_not_given():
    found = draft.drafted({"deadlines": {"straggler_seconds": 5.0}}, {"deadlines.straggler_seconds": None})
    assert found.document == {}


def test_what_suits_foreign_text_is_shown_and_not_sent(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("text,label\n" + "".join(f"row {n},{n % 2}\n" for n in range(60)))
    base = {"data": {"path": str(file)}, "fleet": {"devices": 2}}
    found = draft.drafted(base, {}, rows=54)
    assert found.problems == ()
    assert found.document == base
    assert found.shown["training.learning_rate"] == 5e-3
    assert set(found.chosen) == {"training.rounds", "training.learning_rate", "pruning.until"}
    given = draft.drafted(base, {"training.learning_rate": 2e-3}, rows=54)
    assert given.document["training"] == {"learning_rate": 2e-3}
    assert "training.learning_rate" not in given.chosen
    assert "when the run starts" in draft.drafted(base, {}).chosen["training.rounds"]


def test_another_method_takes_the_fields_of_the_old_preset_away():
    whole = job_fields.tables(dict(job_fields.leaves(job_to_dict(parse_job({"training": {"rounds": 7}})))))
    found = draft.drafted(whole, {"method.name": "hetlora"})
    assert found.job == parse_job({"method": {"name": "hetlora"}, "training": {"rounds": 7}})


def test_a_problem_stands_at_its_field():
    _, problems = draft.checked({"training": {"rounds": 0}, "bandit": {"ranks": [4, 2]}})
    wrong = draft.by_field(problems)
    assert set(wrong) == {"training.rounds", "bandit.ranks"}
    assert "must be at least 1" in wrong["training.rounds"]


def test_tables_undo_leaves():
    document = demo_document()
    assert job_fields.tables(dict(job_fields.leaves(document))) == document
    try:
        parse_job(job_fields.tables({"training.rounds": None}))
    except InputError as error:
        raise AssertionError("what is None is left to its default") from error
