import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from slimfed.clients.errors import InputError
from slimfed.clients.importance import IMPORTANCE
from slimfed.clients.plain_text import clean
from slimfed.platform.job.field_errors import field_paths
from slimfed.platform.job.job import Job, job_to_dict, job_to_toml, load_job, parse_job
from slimfed.platform.job.overrides import merge, parse_sets, parse_value
from slimfed.platform.job.presets import PRESETS, Preset
from slimfed.strategies.aggregation import AGGREGATIONS
from slimfed.strategies.bandits import BANDITS
from slimfed.strategies.server import SERVER_OPTIMIZERS


def listed(registry: Mapping[str, object]) -> str:
    return ", ".join(repr(name) for name in registry)


DESIGN = """
name = "sst2-on-jetsons"
seed = 7
[model]
path = "builtin:tiny-encoder"
task = "classification"
[data]
path = "builtin:commands"
text = "text"
label = "label"
max_length = 64
partition = { kind = "dirichlet", alpha = 10.0 }
[fleet]
profile = "jetson-80"
devices = 80
[method]
name = "fedspine"
adapter = "lora"
target_sparsity = 0.5
importance = "lora-gradient"
aggregation = "coverage"
[bandit]
name = "s-ucb"
pruning_step = [0.0, 0.4]
ranks = [2, 4, 8, 16]
[training]
rounds = 20
local_steps = 20
batch_size = 8
learning_rate = 2e-3
[engine]
workers = "auto"
cohort_size = "auto"
dtype = "auto"
[store]
url = "sqlite"
"""

scalars = st.one_of(
    st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.text(max_size=20)
)
names = st.from_regex(r"[A-Za-z0-9_-]{1,8}", fullmatch=True)


def write(folder: Path, text: str) -> Path:
    path = folder / "job.toml"
    path.write_text(text)
    return path


def test_the_design_s_job_file_is_valid(tmp_path: Path) -> None:
    job = load_job(write(tmp_path, DESIGN))
    assert (job.name, job.seed, job.fleet.devices, job.bandit.ranks) == ("sst2-on-jetsons", 7, 80, (2, 4, 8, 16))


def test_the_demo_is_the_fleet_of_fedspine() -> None:
    job = load_job()
    assert (job.fleet.profile, job.fleet.devices, job.method.target_sparsity) == ("jetson-80", 80, 0.5)
    assert (job.model.path, job.data.path) == ("builtin:tiny-encoder", "builtin:commands")


def test_task_and_settings_are_composed_from_all_sections() -> None:
    sets = ["pruning.events=3", "adapter.scaling=1.5", "method.importance=magnitude", "engine.dtype=bf16", "seed=9"]
    job = load_job(None, [*sets, "deadlines.straggler_seconds=30", "evaluation.devices=5"])
    task = job.task_spec()
    assert (task.seed, task.dtype, task.devices) == (9, "bf16", 80)
    assert (task.pruning.importance, task.pruning.events) == ("magnitude", 3)
    assert (task.adapter.name, task.adapter.scaling) == ("lora", 1.5)
    settings = job.strategy_settings(job.task_spec(), nodes=2)
    assert (settings.task, settings.nodes, settings.straggler_seconds) == (task, 2, 30.0)
    assert (settings.evaluate_devices, settings.quorum, settings.aggregation) == (5, 0.5, "coverage")


@pytest.mark.parametrize(
    ("sets", "text"),
    [
        (["training.rounds=0"], "training.rounds = 0: must be at least 1"),
        (["method.target_sparsity=1.0"], "method.target_sparsity = 1.0: must be below 1"),
        (["training.learning_rate=0"], "training.learning_rate = 0: must be above 0"),
        (["training.learning_rate=inf"], "training.learning_rate = inf: must be a finite number"),
        (["fleet.devices=2.5"], "fleet.devices = 2.5: must be a whole number"),
        (["fleet.devices=true"], "fleet.devices = true: must be a number"),
        (["fleet.jitter=maybe"], "fleet.jitter = 'maybe': must be true or false"),
        (["name=5"], "name = 5: must be text"),
        (
            ["engine.cluster=nowhere"],
            "engine.cluster = 'nowhere': must be HOST:PORT, as `ray start --head` prints it, or empty for this "
            "machine alone",
        ),
        (
            ["engine.cluster=10.0.0.1:6379"],
            "engine: workers = 'auto': only this machine can be measured; with cluster give the number of workers on "
            "all machines together, at most one a processor core or GPU",
        ),
        (["messages.precision=fp8"], "messages.precision = 'fp8': must be one of 'fp32', 'bf16' or 'int8'"),
        (
            ["messages.precision=int8", "method.adapter=sora"],
            "messages.precision = 'int8': rounding would move the gates, masks and entries that method.adapter = "
            "'sora' decides by; use 'lora', or precision = 'fp32'",
        ),
        (
            ["messages.precision=bf16", "method.aggregation=median"],
            "messages.precision = 'bf16': what rounding takes away of one round is added to the next, which "
            "method.aggregation = 'median' does not sum up; use one of coverage, fedavg, hetlora, zero-padding, or "
            "precision = 'fp32'",
        ),
        (
            ["messages.precision=int8", "privacy.kind=central"],
            "messages.precision = 'int8': privacy.kind = 'central' clips what would make the rounding good; use "
            "precision = 'fp32'",
        ),
        (["training=5"], "training = 5: must be a table"),
        (["training.round=5"], "training.round = 5: unknown field; did you mean training.rounds?"),
        (["rounds=5"], "rounds = 5: unknown field; did you mean training.rounds?"),
        (["trainin.rounds=5"], "trainin: unknown field; did you mean training?"),
        (["data.partition.alfa=1"], "data.partition.alfa = 1: unknown field; did you mean data.partition.alpha?"),
        (["engine.workers=zero"], "engine.workers = 'zero': must be \"auto\" or a whole number of at least 1"),
        (["engine.workers=0"], 'engine.workers = 0: must be "auto" or a whole number of at least 1'),
        (["method.name=fedspline"], f"method.name = 'fedspline': must be one of {listed(PRESETS)}"),
        (["bandit.name=ucb"], f"bandit.name = 'ucb': must be one of {listed(BANDITS)}"),
        (["method.aggregation=sum"], f"method.aggregation = 'sum': must be one of {listed(AGGREGATIONS)}"),
        (["bandit.ranks=[]"], "bandit.ranks = []: needs at least 1 value(s)"),
        (["data.prompt=a"], "data: data.prompt and data.completion must be given together"),
        (["model.task=regression"], "model.task = 'regression': must be one of 'classification' or 'causal-lm'"),
        (
            ["seed=-1", "training.rounds=0", "training.learning_rate=nan"],
            "training.learning_rate = nan: must be a finite number\n"
            "seed = -1: must be at least 0\n"
            "training.rounds = 0: must be at least 1",
        ),
        (["server.optimizer=sgd"], f"server.optimizer = 'sgd': must be one of {listed(SERVER_OPTIMIZERS)}"),
        (["server.momentum=1"], "server.momentum = 1: must be below 1"),
        (
            ["server.optimizer=fedadam", "method.name=flora"],
            "server.optimizer = 'fedadam': method.aggregation = 'flora' writes factors anew, or a part of the change "
            "into the base, so that their change is no gradient; aggregate by 'coverage', or use optimizer = 'none'",
        ),
        (
            ["server.optimizer=fedavgm", "method.name=sparse"],
            "server.optimizer = 'fedavgm': momentum would reopen the gates, masks and entries that method.adapter "
            "= 'sparse' has decided; use 'lora', or optimizer = 'none'",
        ),
        (
            ["training.recovery=squarehead", "method.name=pat"],
            "training.recovery = 'squarehead': compares hidden states of one width, which method.adapter = 'pat' "
            "takes parts of away; use recovery = 'plain', or another adapter",
        ),
        (
            ["adapter.tail_penalty=0.1"],
            "adapter: tail_penalty weighs the ranks beyond keep_ranks, which must be below 1 for that",
        ),
        (
            ["adapter.keep_ranks=0.9", "bandit.name=s-ucb"],
            "adapter.keep_ranks = 0.9: devices give up ranks of LoRA that are theirs to keep, which does not go with "
            "method.adapter = 'lora' and bandit.name = 's-ucb'; use method.adapter = 'lora' and bandit.name = 'e-ucb' "
            "or 'fixed', or set keep_ranks = 1 and tail_penalty = 0",
        ),
        (["training.proximal=-1"], "training.proximal = -1: must be at least 0"),
        (["training.rounds"], "--set 'training.rounds': must read field=value, such as training.rounds=5"),
        (["=5"], "--set '=5': must read field=value, such as training.rounds=5"),
    ],
)
def test_bad_input_names_field_value_and_what_is_valid(sets: list[str], text: str) -> None:
    with pytest.raises(InputError) as refusal:
        load_job(None, sets)
    assert str(refusal.value) == text


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"name = ", "is not valid TOML"),
        (b"a = 1\nb\xff\xfe", "line 2 is not UTF-8 text"),
        (None, "there is no such file"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None, text: str) -> None:
    path = tmp_path / "job.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=text):
        load_job(path)


def test_a_folder_is_no_job_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_job(tmp_path)


def test_unknown_importance_lists_the_registry() -> None:
    with pytest.raises(
        InputError, match=r"method\.importance = 'luck': must be one of 'activation', 'fisher', 'fluctuation'"
    ):
        load_job(None, ["method.importance=luck"])


def test_defaults_and_presets_name_things_that_exist() -> None:
    for preset in PRESETS:
        job = load_job(None, [f"method.name={preset}"])
        assert job.method.importance in IMPORTANCE
        assert job.method.aggregation in AGGREGATIONS
        assert job.bandit.name in BANDITS


@pytest.mark.parametrize(
    ("sets", "choices"),
    [
        ([], (5, 10, 20, 40)),  # the demo has 10
        (["training.local_steps=3"], (2, 3, 6, 12)),
        (["training.local_steps=1", "method.target_sparsity=0"], (1, 2, 4)),
        (["training.local_steps=6", "pruning.events=4"], (5, 6, 12, 24)),
        (["bandit.local_steps=[7]"], (7,)),
        (["bandit.local_steps=[]"], ()),
    ],
)
def test_automatic_local_steps_are_multiples_of_the_job_s(sets: list[str], choices: tuple[int, ...]) -> None:
    job = load_job(None, ["method.name=slimfed", *sets])
    assert job.bandit.local_steps == choices
    assert check_again(job).bandit.local_steps == choices


def test_automatic_local_steps_leave_bad_fields_to_their_own_errors() -> None:
    with pytest.raises(InputError, match=r"training\.local_steps"):
        load_job(None, ["method.name=slimfed", "training.local_steps=few"])
    with pytest.raises(InputError, match=r"bandit\.local_steps"):
        load_job(None, ["bandit.local_steps=[4,2]"])


def check_again(job: Job) -> Job:
    """The job read again from what is stored of it."""
    return parse_job(job_to_dict(job))


def test_every_field_of_a_preset_can_be_overruled(monkeypatch: pytest.MonkeyPatch) -> None:
    preset = Preset("", "", {"bandit": {"name": "fixed"}, "training": {"rounds": 3}})
    monkeypatch.setattr(PRESETS, "_usable", {**PRESETS, "other": preset})
    job = parse_job({"method": {"name": "other"}})
    assert (job.bandit.name, job.training.rounds) == ("fixed", 3)
    assert parse_job({"method": {"name": "other"}, "bandit": {"name": "random"}}).bandit.name == "random"


@pytest.mark.parametrize(
    ("sets", "precision", "structure"),
    [
        ([], "int8", "shared"),
        (["method.adapter=sora"], "fp32", "shared"),
        (["method.adapter=pat"], "fp32", "own"),
        (["method.aggregation=multi-krum"], "fp32", "shared"),
        (["pruning.schedule=bandit"], "int8", "own"),
        (["messages.precision=bf16"], "bf16", "shared"),
    ],
)
def test_what_a_preset_is_better_with_yields_to_the_job_s_choices(
    sets: list[str], precision: str, structure: str
) -> None:
    job = load_job(None, sets)
    assert (job.messages.precision, job.pruning.structure) == (precision, structure)
    assert check_again(job) == job


def test_a_choice_that_excludes_another_is_refused_whatever_yields() -> None:
    with pytest.raises(InputError, match=r"messages\.precision = 'int8': rounding would move the gates"):
        load_job(None, ["method.adapter=sora", "messages.precision=int8"])


def test_an_agent_without_choices_takes_the_job_s_local_steps() -> None:
    assert load_job(None, ["training.local_steps=7"]).bandit.local_steps == (3, 7, 14, 28)
    assert load_job(None, ["training.local_steps=7", "bandit.name=fixed"]).bandit.local_steps == ()
    with pytest.raises(InputError, match=r'bandit\.local_steps = \'many\': must be "auto" or a list'):
        load_job(None, ["bandit.local_steps=many"])


def test_relative_paths_are_meant_from_the_job_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jobs" / "text").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "text").mkdir()
    job_file = write(
        tmp_path / "jobs",
        '[model]\npath = "org/name"\n[data]\npath = "text"\n[fleet]\nprofile = "../mine.toml"\n',
    )
    monkeypatch.chdir(tmp_path / "elsewhere")
    job = load_job(job_file)
    assert job.model.path == "org/name"
    assert job.data.path == str(tmp_path / "jobs" / "text")
    assert job.fleet.profile == str(tmp_path / "mine.toml")
    assert load_job(job_file, ["data.path=text"]).data.path == str(tmp_path / "elsewhere" / "text")
    assert load_job(job_file, ["data.path=./nothing"]).data.path == str(tmp_path / "elsewhere" / "nothing")
    assert load_job(job_file, ["data.path=builtin:commands"]).data.path == "builtin:commands"


def test_none_stays_out_of_the_file() -> None:
    text = job_to_toml(load_job())
    assert "None" not in text
    assert "revision" not in text


@given(
    seed=st.integers(0, 2**31 - 1),
    rate=st.floats(1e-12, 1e3),
    sparsity=st.floats(0, 1, exclude_max=True),
    ranks=st.sets(st.integers(1, 64), min_size=1),
    workers=st.one_of(st.just("auto"), st.integers(1, 99)),
    name=st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(clean),
    deadline=st.none() | st.floats(1e-3, 1e6),
)
def test_job_files_and_json_round_trip(
    seed: int, rate: float, sparsity: float, ranks: set[int], workers: object, name: str, deadline: float | None
) -> None:
    job = parse_job(
        {
            "name": name,
            "seed": seed,
            "training": {"learning_rate": rate},
            "method": {"target_sparsity": sparsity},
            "bandit": {"ranks": sorted(ranks)},
            "engine": {"workers": workers},
            "deadlines": {"straggler_seconds": deadline} if deadline else {},
        }
    )
    assert parse_job(tomllib.loads(job_to_toml(job))) == job
    assert Job.model_validate_json(job.model_dump_json()) == job


@given(st.one_of(scalars, st.lists(scalars, max_size=3)))
def test_toml_values_are_read_as_toml(value: object) -> None:
    text = tomli_w.dumps({"value": value}).removeprefix("value = ").removesuffix("\n")
    assert parse_value(text) == value


@given(st.text(max_size=30))
def test_any_text_is_a_value_and_nothing_else(text: str) -> None:
    value = parse_value(text)
    assert isinstance(value, bool | int | float | str | list | dict)
    if isinstance(value, str):
        assert value == text or text.startswith(("'", '"'))


def test_what_looks_like_more_than_a_value_is_text() -> None:
    assert parse_value("1\nother = 2") == "1\nother = 2"
    assert parse_value("2026-01-01") == "2026-01-01"
    assert parse_value("sqlite:///a=b.db") == "sqlite:///a=b.db"
    assert parse_sets(["store.url=sqlite:///a=b.db"]) == {"store": {"url": "sqlite:///a=b.db"}}


@given(st.lists(st.tuples(st.lists(names, min_size=1, max_size=3), st.integers()), max_size=8))
def test_the_last_set_of_a_path_wins(pairs: list[tuple[list[str], int]]) -> None:
    result = parse_sets([f"{'.'.join(path)}={value}" for path, value in pairs])
    for path, value in pairs[-1:]:
        found: object = result
        for part in path:
            assert isinstance(found, dict)
            found = found[part]
        assert found == value


trees = st.recursive(st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3))
tables = st.dictionaries(st.sampled_from("abc"), trees, max_size=3)


@given(tables, tables)
def test_merging_keeps_what_is_above(below: dict, above: dict) -> None:
    assert merge(below, {}) == below
    assert merge({}, above) == above
    assert set(merge(below, above)) == set(below) | set(above)
    assert merge(above, above) == above


def test_every_field_can_be_named() -> None:
    paths = field_paths(Job)
    assert {"seed", "training.rounds", "data.partition.alpha", "bandit.reward.loss", "fleet.dropout"} <= set(paths)


def test_a_byte_order_mark_and_either_line_end_are_no_part_of_a_job_file(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_bytes(b"\xef\xbb\xbfname = 'marked'\r\n[training]\r\nrounds = 3\r\n")
    job = load_job(tmp_path / "job.toml")
    assert (job.name, job.training.rounds) == ("marked", 3)
