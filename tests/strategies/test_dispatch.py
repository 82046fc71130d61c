"""Every device is sent its work once; which devices share a cohort does not depend on the nodes."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from slimfed.clients.structure import Block, Blueprint, Cut, Structure
from slimfed.clients.update import Assignment
from slimfed.strategies.bandits import Arm
from slimfed.strategies.dispatch import NO_NODE, cohorts, in_turn, message_parts, to_hosts
from slimfed.strategies.planning import Plan

BLUEPRINT = Blueprint("made-up", (Block("ffn", 0, "ffn", 2, 10, (Cut("fc", "out", 1),)),))
WHOLE = Structure(BLUEPRINT, np.ones(2, dtype=bool))


def plans(count: int) -> list[Plan]:
    return [
        Plan(Assignment(device, 1, 2, 0.0, 1, 1e-3, 1e-3, device, False, WHOLE), Arm(0.0, 2)) for device in range(count)
    ]


def of_steps(counts: list[int]) -> list[Plan]:
    whole = plans(len(counts))
    return [
        replace(plan, assignment=replace(plan.assignment, local_steps=count))
        for plan, count in zip(whole, counts, strict=True)
    ]


def devices(some: list[Plan]) -> list[int]:
    return [plan.assignment.device for plan in some]


@given(st.integers(1, 600), st.integers(1, 9), st.integers(1, 250))
def test_whole_cohorts_go_to_one_node_and_one_message(count: int, nodes: int, size: int) -> None:
    cohorts = {tuple(range(start, min(start + size, count))) for start in range(0, count, size)}
    by_node = in_turn(plans(count), list(range(1, nodes + 1)), size)
    sent = [part for own in by_node.values() for part in message_parts(own, size)]
    assert sorted(device for part in sent for device in devices(list(part))) == list(range(count))
    for part in sent:
        numbers = devices(list(part))
        assert len(part) <= max(200, size)
        assert {tuple(numbers[i : i + size]) for i in range(0, len(numbers), size)} <= cohorts


@given(st.lists(st.sampled_from([5, 10, 40]), min_size=1, max_size=300), st.integers(1, 5), st.integers(1, 60))
def test_a_cohort_has_equal_local_steps_whatever_the_nodes(counts: list[int], nodes: int, size: int) -> None:
    def sent(number: int) -> list[list[Plan]]:
        by_node = in_turn(of_steps(counts), list(range(1, number + 1)), size)
        parts = [part for own in by_node.values() for part in message_parts(own, size)]
        return [cohort for part in parts for cohort in cohorts(list(part), size)]

    alone, shared = sent(1), sent(nodes)
    assert sorted(map(devices, shared)) == sorted(map(devices, alone)), "the same cohorts on any number of nodes"
    assert sorted(device for cohort in alone for device in devices(cohort)) == list(range(len(counts)))
    for cohort in alone:
        assert len({plan.assignment.local_steps for plan in cohort}) == 1
        assert len(cohort) <= size


@given(st.dictionaries(st.integers(0, 9), st.integers(1, 5)))
def test_a_real_device_goes_to_its_host_or_to_no_node(hosts: dict[int, int]) -> None:
    by_node = to_hosts(plans(10), hosts)
    assert {device: node for node, own in by_node.items() for device in devices(own)} == {
        device: hosts.get(device, NO_NODE) for device in range(10)
    }
