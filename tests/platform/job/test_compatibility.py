"""Rules across the sections of a job, over all methods that there are: none is named here or there."""

from itertools import product

import pytest

from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.allocation import ALLOCATIONS
from slimfed.clients.errors import InputError
from slimfed.platform.job import compatibility, late_update_rules, layer_share_rules
from slimfed.platform.job.job import Job, load_job, parse_job
from slimfed.strategies.aggregation import AGGREGATIONS
from slimfed.strategies.bandits import BANDITS
from slimfed.strategies.server import SERVER_OPTIMIZERS


def refusal(document: dict) -> str:
    """What a job is refused for, or nothing."""
    try:
        parse_job(document)
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("adapter", "aggregation"), product(ADAPTERS, AGGREGATIONS))
def test_a_pair_is_refused_if_and_only_if_its_classes_say_so(adapter: str, aggregation: str) -> None:
    said, way = ADAPTERS[adapter], AGGREGATIONS[aggregation]
    for optimizer, structure in product(SERVER_OPTIMIZERS, ("own", "shared")):
        text = refusal(
            {
                "method": {"adapter": adapter, "aggregation": aggregation},
                "bandit": {"name": "fixed"},
                "server": {"optimizer": optimizer},
                "pruning": {"structure": structure, "schedule": "cubic"},
            }
        )
        moves = SERVER_OPTIMIZERS[optimizer].moves
        expected = {
            "needs equal structures": way.needs_equal_structures and structure == "own",
            "knows LoRA's two factors alone": way.plain_factors_only and not said.plain_factors,
            "the server cannot cut heads": structure == "shared" and not said.supports_shared_structure,
            "their change is no gradient": moves and not way.gives_direction,
            "momentum would reopen": moves and not said.supports_server_optimizer,
        }
        assert {words: words in text for words in expected} == expected
        assert text.count("\n") + 1 == max(1, sum(expected.values())), "one line a problem, all of them at once"


@pytest.mark.parametrize("form", ["int8", "nf4"])
def test_a_quantised_base_is_refused_to_who_would_write_it(form: str) -> None:
    for adapter, aggregation in product(ADAPTERS, AGGREGATIONS):
        method = {"adapter": adapter, "aggregation": aggregation}
        text = refusal({"method": method, "model": {"quantization": form}})
        assert (f"model.quantization = {form!r}: method.adapter" in text) is not ADAPTERS[
            adapter
        ].supports_quantised_base
        assert (f"model.quantization = {form!r}: method.aggregation" in text) is AGGREGATIONS[aggregation].changes_base
        assert "model.quantization" not in refusal({"method": method})


@pytest.mark.parametrize("bandit", BANDITS)
def test_equal_ranks_need_an_agent_that_keeps_them(bandit: str) -> None:
    document = {
        "method": {"aggregation": "fedavg"},
        "bandit": {"name": bandit},
        "pruning": {"structure": "shared", "schedule": "cubic"},
    }
    assert ("needs equal ranks" in refusal(document)) is not BANDITS[bandit].constant_rank
    assert refusal(document | {"bandit": {"name": bandit, "ranks": [4]}}) == ""
    kept = refusal({"bandit": {"name": bandit}, "adapter": {"keep_ranks": 0.9}})
    assert ("adapter.keep_ranks = 0.9" in kept) is not BANDITS[bandit].constant_rank
    measured = refusal({"bandit": {"name": bandit}, "fleet": {"clock": "measured"}})
    assert ("it reads the profiles" in measured) is BANDITS[bandit].foresees


@pytest.mark.parametrize("allocation", ALLOCATIONS)
def test_shares_of_layers_need_one_structure_and_leave_scopes_out(allocation: str) -> None:
    """The preset's scope and structure yield to the job's choices."""
    free, one = ALLOCATIONS[allocation].by_scope, {"structure": "shared", "schedule": "cubic"}
    for structure, scope in product(({}, one), ("layer", "balanced", "global", "uniform")):
        document = {
            "method": {"name": "fedspine"},
            "pruning": {"allocation": allocation, "scope": scope, **structure},
        }
        text = refusal(document)
        assert ("decides for one structure" in text) is (not free and not structure)
        assert ("and so does pruning.scope" in text) is (not free and scope != "layer")
    job = parse_job({"method": {"name": "slimfed"}, "pruning": {"allocation": allocation}})
    assert job.pruning.scope == ("balanced" if free else "layer")
    assert job.pruning.structure == "shared"


def test_text_that_shares_are_measured_on_is_the_devices_or_the_server_s_own() -> None:
    def found(**changes: dict) -> list[str]:
        job = parse_job({"pruning": {"allocation": "cfsp"}, "calibration": {"source": "server"}, **changes})
        return [line for line in compatibility.problems_of_run(job) if "calibration.source" in line]

    assert "put a validation file into the folder of data.path" in found()[0]
    assert found(data={"validation": "use"}) == []
    assert found(fleet={"clock": "measured"}) == []
    assert found(calibration={}) == []
    assert found(pruning={"allocation": "erk"}) == []
    private = {"kind": "central", "noise_multiplier": 0.1}
    assert "the accountant does not count it" in found(privacy=private, calibration={})[0]
    assert found(privacy=private, data={"validation": "use"}) == []
    assert found(privacy=private, pruning={"allocation": "erk"}) == []


def test_a_calibration_holds_a_text() -> None:
    document = {"pruning": {"allocation": "cfsp"}, "calibration": {"tokens": 32}, "data": {"max_length": 64}}
    assert refusal(document) == "calibration.tokens = 32: must hold a text, of data.max_length = 64 tokens"
    assert refusal(document | {"calibration": {"tokens": 64}}) == ""
    assert refusal(document | {"pruning": {}}) == ""


def test_an_unknown_allocation_is_refused_by_name() -> None:
    text = refusal({"pruning": {"allocation": "fair"}})
    assert text == "pruning.allocation = 'fair': must be one of 'cfsp', 'equal', 'erk', 'zeroth'"


def test_what_errors_recommend_goes_with_everything() -> None:
    assert compatibility.problems(Job()) == []
    assert compatibility.problems_of_run(load_job()) == []


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"fleet": {"clock": "measured", "dropout": 0.1}}, "fleet.dropout: real devices are not disturbed"),
        ({"fleet": {"clock": "measured"}, "disturbance": {"stragglers": 0.5}}, "disturbance: real devices"),
        ({"disturbance": {"bandwidth_factor": 0.5, "bandwidth_from": 99}}, "the run has only 20 rounds"),
        (
            {"pruning": {"events": 20}, "bandit": {"local_steps": []}},
            "pruning.events = 20: must be less than training.local_steps (20)",
        ),
    ],
)
def test_a_job_that_can_be_read_but_not_run(document: dict, words: str) -> None:
    [problem] = compatibility.problems_of_run(parse_job(document))
    assert words in problem


def test_every_rule_is_applied() -> None:
    """A public function of a job that returns one line or None is a rule."""
    rules = {
        name
        for module in (compatibility, late_update_rules, layer_share_rules)
        for name, each in vars(module).items()
        if getattr(each, "__module__", "") == module.__name__
        and not name.startswith("_")
        and getattr(each, "__annotations__", {}).get("return") == str | None
    }
    applied = {rule.__name__ for rule in (*compatibility.RULES, *compatibility.RUN_RULES)}
    first = {"bandit_is_known", "optimizer_is_known", "allocation_is_known"}
    assert rules - applied == first, "these come before all others"
