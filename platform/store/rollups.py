"""Sums of a round, written with it, so that no page has to read millions of assignments."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection, Integer, case, cast, delete, func, insert, select

from slimfed.platform.store.schema import Assignment, BlockLeft, ClassRound, Device, Pull
from slimfed.strategies.protocols import DeviceRecord

STEPS = 40
"""Pruning steps are counted in this fraction."""

_STRETCHES = 64
_DONE = case((Assignment.status == "done", 1), else_=0)
_TOOK = Assignment.download_seconds + Assignment.compute_seconds + Assignment.upload_seconds
_STEP = cast(func.round(Assignment.pruning_step * STEPS), Integer)


def sum_up_round(connection: Connection, run_id: str, round: int) -> None:
    """Fill ``class_rounds`` and ``pulls`` from the assignments of one round."""
    same = (Device.run_id == Assignment.run_id) & (Device.device == Assignment.device)
    place = (Assignment.run_id, Assignment.round, Device.profile)
    by_class = select(
        *place,
        func.count(),
        func.sum(_DONE),
        func.avg(Assignment.sparsity),
        func.avg(Assignment.rank),
        func.avg(Assignment.reward),
        func.avg(Assignment.download_seconds),
        func.avg(Assignment.compute_seconds),
        func.avg(Assignment.upload_seconds),
        func.max(_TOOK),
    )
    pulls = select(*place, Assignment.rank, _STEP, func.count(), func.sum(Assignment.reward))
    here = (Assignment.run_id == run_id) & (Assignment.round == round)
    for table, query, keys in (
        (ClassRound, by_class.where(here), place),
        (Pull, pulls.where(here, Assignment.reward.is_not(None)), (*place, Assignment.rank, _STEP)),
    ):
        columns = [column.name for column in table.__table__.columns]
        grouped = query.join(Device, same).group_by(*keys)
        connection.execute(insert(table).from_select(columns, grouped))


def forget_sums(connection: Connection, run_id: str, after: int) -> None:
    """Delete the sums of rounds after ``after``."""
    for table in (ClassRound, Pull, BlockLeft):
        connection.execute(delete(table).where(table.run_id == run_id, table.round > after))


def block_rows(run_id: str, round: int, devices: Sequence[DeviceRecord]) -> list[dict[str, Any]]:
    """Rows of ``blocks``: kept units of these devices; with a refused update those before the round."""
    structures = [each.report.structure if each.report else each.assignment.structure for each in devices]
    if not structures:
        return []
    blueprint = structures[0].blueprint
    kept = np.zeros(blueprint.units, dtype=np.int64)
    for structure in structures:
        kept += structure.keep
    rows = []
    for index, block in enumerate(blueprint.blocks):
        share = kept[blueprint.span(index)] / len(structures)
        rows.append(
            {
                "run_id": run_id,
                "round": round,
                "block": index,
                "layer": block.layer,
                "kind": block.kind,
                "units": block.units,
                "kept": float(share.sum()),
                "shares": _stretched(share),
            }
        )
    return rows


def _stretched(share: np.ndarray) -> bytes:
    """``share`` [units] in [0, 1] as the mean of at most 64 stretches, a byte each."""
    parts = np.array_split(share, min(len(share), _STRETCHES))
    return bytes(round(255 * float(part.mean())) for part in parts)
