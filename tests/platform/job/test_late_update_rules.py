"""What jobs whose rounds do not wait for all are refused for: over all methods, none of which is named by a rule."""

import pytest

from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.errors import InputError
from slimfed.platform.job.job import load_job, parse_job
from slimfed.platform.job.references import REFERENCES, reference_job
from slimfed.platform.participation import asks_part
from slimfed.platform.round_closing import rounds_close, waits_for_all
from slimfed.strategies.aggregation import AGGREGATIONS


def refusal(document: dict) -> str:
    """What a job is refused for, or nothing."""
    try:
        parse_job(document)
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("mode", ["sync", "deadline", "buffered"])
def test_methods_go_with_late_updates_if_and_only_if_their_classes_say_so(mode: str) -> None:
    for name, way in AGGREGATIONS.items():
        for target in (0.0, 0.5):
            document = {
                "method": {"name": "fedspine", "aggregation": name, "target_sparsity": target},
                "bandit": {"name": "fixed", "pacing": "off", "ranks": [4]},
                "pruning": {"structure": "shared", "schedule": "cubic"},
                "server": {"mode": mode},
            }
            late = mode != "sync"
            expected = {
                "writes factors anew": late and not way.gives_direction,
                "no fair part of the fleet": late and way.gives_direction and way.bounds_influence,
                "needs equal structures, and a late update": late and way.needs_equal_structures and target > 0,
            }
            text = refusal(document)
            assert {words: words in text for words in expected} == expected, name
            assert bool(text) is any(expected.values()), text
    for name, adapter in ADAPTERS.items():
        text = refusal({"method": {"name": "fedspine", "adapter": name}, "server": {"mode": mode}})
        assert ("a late update would reopen" in text) is (mode != "sync" and not adapter.supports_server_optimizer)


@pytest.mark.parametrize("mode", ["deadline", "buffered"])
@pytest.mark.parametrize(
    ("field", "document"),
    [
        ("rounds of real devices", {"fleet": {"clock": "measured"}}),
        ("privacy.kind = 'local'", {"privacy": {"kind": "local"}}),
        ("privacy.kind = 'central'", {"privacy": {"kind": "central"}}),
        ("deadlines.straggler_seconds = 9", {"deadlines": {"straggler_seconds": 9}}),
    ],
)
def test_what_late_updates_do_not_go_with(mode: str, field: str, document: dict) -> None:
    text = refusal({"server": {"mode": mode}} | document)
    assert field in text
    assert "sync" in text or "leave it out" in text
    assert field not in refusal(document)


def test_a_buffer_must_be_able_to_fill() -> None:
    few = {"server": {"mode": "buffered", "buffer": 9}, "fleet": {"devices": 80, "participation": 0.1}}
    assert "server.buffer = 9: at most 8 devices are at work" in refusal(few)
    assert refusal(few | {"server": {"mode": "buffered", "buffer": 8}}) == ""
    assert refusal(few | {"server": {"mode": "sync", "buffer": 9}}) == ""


@pytest.mark.parametrize("reference", REFERENCES)
def test_a_run_of_reference_waits_for_all(reference) -> None:
    job = load_job(None, ["server.mode=buffered", "deadlines.quorum=0.4"])
    assert reference_job(job, reference, 1000).server.waits_for_all


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        ([], ""),
        (["server.mode=buffered"], "rounds close with 10 updates"),
        (["server.mode=deadline", "server.close_seconds=2.5"], "rounds close after 2.5 virtual s"),
        (["server.mode=deadline"], "rounds close at the agent's deadline, or when 80% are expected"),
    ],
)
def test_words_on_when_rounds_close(sets: list[str], words: str) -> None:
    job = load_job(None, sets).model_dump(mode="json")
    assert rounds_close(job) == words
    assert (waits_for_all(job), asks_part(job)) == (words == "", words != "")
    assert waits_for_all({})
