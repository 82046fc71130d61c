"""The product of values and seeds, and what is wrong with it, before anything is opened."""

from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimfed.clients.errors import InputError
from slimfed.platform.job.overrides import parse_value
from slimfed.platform.store.schema import Run
from slimfed.platform.store.storable import storable
from slimfed.platform.sweep import check_different, expand, same_work, split_values, with_baseline

VALUES = {
    "method.target_sparsity": ["0.0", "0.3", "0.5"],
    "training.local_steps": ["2", "3"],
    "bandit.ranks": ["[2, 4]", "[8]"],
    "bandit.name": ["s-ucb", "random", "fixed"],
}


@given(
    st.dictionaries(st.sampled_from(list(VALUES)), st.integers(1, 3), max_size=4),
    st.integers(1, 3),
)
def test_a_sweep_is_the_product_of_its_values_over_seeds(chosen: dict[str, int], seeds: int) -> None:
    values = {field: VALUES[field][:count] for field, count in chosen.items()}
    sets = [f"{field}={','.join(each)}" for field, each in values.items()]
    variants = expand(None, ["seed=5", *sets], seeds).variants if seeds == 1 else expand(None, sets, seeds).variants
    combinations = list(product(*values.values()))
    assert len(variants) == len(combinations) * seeds
    assert sum(variant.first for variant in variants) == len(combinations)
    assert len({variant.label for variant in variants}) == len(variants)
    for variant, combination in zip(variants[::seeds], combinations, strict=True):
        job = variant.job.model_dump(mode="json")
        for field, text in zip(values, combination, strict=True):
            section, name = field.split(".")
            assert job[section][name] == parse_value(text)
    first = variants[0].job.seed
    assert [variant.job.seed for variant in variants] == [first + i for i in range(seeds)] * len(combinations)


def test_every_run_that_prunes_has_its_control_behind_it() -> None:
    sets = ["method.target_sparsity=0.0,0.5", "method.importance=activation,fisher,random"]
    plain = expand(None, sets, 2, "s")
    found = with_baseline(plain, "random")
    assert found.variants == plain.variants, "random is one of the values"
    plain = expand(None, ["method.target_sparsity=0.0,0.5", "method.importance=activation,fisher"], 2, "s")
    found = with_baseline(plain, "random")
    controls = [variant for variant in found.variants if variant not in plain.variants]
    assert len(controls) == 2, "one for each seed; what is not pruned has none, and the two criteria have one together"
    assert [each.job.seed for each in controls] == [plain.variants[0].job.seed, plain.variants[0].job.seed + 1]
    assert all(each.job.method.importance == "random" for each in controls)
    assert all(each.job.method.target_sparsity == 0.5 for each in controls)
    assert controls[0].job.name.endswith("importance=random")
    check_different(found.variants)
    with pytest.raises(InputError, match=r"method\.importance"):
        with_baseline(plain, "chance")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("fedspine,hetlora", ["fedspine", "hetlora"]),
        ("[2, 4],[8]", ["[2, 4]", "[8]"]),
        ("'a,b',c", ["'a,b'", "c"]),
        (
            '{ kind = "dirichlet", alpha = 1.0 },{ kind = "iid" }',
            ['{ kind = "dirichlet", alpha = 1.0 }', '{ kind = "iid" }'],
        ),
        ("0.5", ["0.5"]),
    ],
)
def test_commas_within_brackets_and_quotes_belong_to_a_value(text: str, values: list[str]) -> None:
    assert split_values(text) == values


def test_runs_are_named_after_the_sweep_and_what_sets_them_apart(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text('name = "mine"\nseed = 3\n')
    found = expand(tmp_path / "job.toml", ["method.target_sparsity=0.3,0.5", "training.rounds=4"], 2)
    assert found.name == "mine"
    assert [variant.job.name for variant in found.variants] == [
        "mine: target_sparsity=0.3, seed=3",
        "mine: target_sparsity=0.3, seed=4",
        "mine: target_sparsity=0.5, seed=3",
        "mine: target_sparsity=0.5, seed=4",
    ]
    assert {variant.job.training.rounds for variant in found.variants} == {4}
    (only,) = expand(tmp_path / "job.toml", [], 1, "other").variants
    assert only.job.name == "other: mine"


def test_a_run_is_the_same_work_under_another_name() -> None:
    one, other = (expand(None, ["training.rounds=2"], 1, name).variants[0].job for name in ("a", "b"))
    third = expand(None, ["training.rounds=3"], 1).variants[0].job
    assert one != other
    assert same_work(one, other)
    assert not same_work(one, third)


def test_what_a_job_leaves_open_in_its_engine_was_chosen_for_the_run() -> None:
    asked = expand(None, ["training.rounds=2"], 1).variants[0].job
    chosen = asked.engine.model_copy(update={"name": "cohort", "workers": 2, "cohort_size": 5, "dtype": "bf16"})
    done = asked.model_copy(update={"engine": chosen})
    assert same_work(done, asked)
    assert not same_work(asked, done)
    strict = asked.model_copy(update={"engine": asked.engine.model_copy(update={"dtype": "fp32"})})
    assert not same_work(done, strict)


@pytest.mark.parametrize(
    ("sets", "seeds", "words"),
    [
        (["training.rounds"], 1, ["training.rounds", "field=value"]),
        (["training.rounds=2,"], 1, ["training.rounds=2,", "empty value"]),
        (["training.rounds=2", "training.rounds=3"], 1, ["training.rounds", "given twice"]),
        (["seed=1,2"], 2, ["--seeds", "seed"]),
        (["training.rounds=2,2"], 1, ["the same job"]),
        (
            ["method.target_sparsity=0.5,1.5", "training.rounds=1,0"],
            1,
            ["target_sparsity=1.5", "rounds=0", "at least 1"],
        ),
        (["store.url=sqlite,sqlite:///x.db"], 1, ["one store"]),
    ],
)
def test_bad_sweeps_are_told_at_once(sets: list[str], seeds: int, words: list[str]) -> None:
    with pytest.raises(InputError) as refusal:
        expand(None, sets, seeds)
    assert all(word in str(refusal.value) for word in words), str(refusal.value)


@given(name=st.text(min_size=1, max_size=300))
def test_a_sweep_is_found_by_the_name_that_it_is_stored_under(name: str) -> None:
    called = expand(None, [], 1, name).name
    assert storable(Run, {"sweep": called})["sweep"] == called
    assert len(called) <= 200
