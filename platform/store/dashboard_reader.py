"""The dashboard's queries beyond :class:`Reader`: sums that are written with each round."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select

from slimfed.platform.store.reader import Reader, Rows
from slimfed.platform.store.schema import (
    Assignment,
    BlockLeft,
    ClassRound,
    Device,
    Evaluation,
    Event,
    Node,
    Pull,
    Round,
    Run,
)

_TOOK = Assignment.download_seconds + Assignment.compute_seconds + Assignment.upload_seconds


class Insight(Reader):
    """A reader with queries for classes, pulls and blocks. Every result is small for any size of the fleet."""

    def queued(self) -> Rows:
        """Queued runs in the order of starting: ``id``, ``name``, ``host``, ``folder``."""
        query = select(Run.id, Run.name, Run.host, Run.folder, Run.created_at).where(Run.status == "queued")
        return self._rows(query.order_by(Run.created_at, Run.id))

    def class_sizes(self, run_id: str) -> Rows:
        """Of each device class of a run: ``profile``, ``devices``, ``examples`` (sum), in order of the first device."""
        query = select(Device.profile, func.count().label("devices"), func.sum(Device.examples).label("examples"))
        return self._rows(
            query.where(Device.run_id == run_id).group_by(Device.profile).order_by(func.min(Device.device))
        )

    def first_devices(self, run_id: str) -> Rows:
        """The first device of each class: ``profile``, ``device``."""
        query = select(Device.profile, func.min(Device.device).label("device")).where(Device.run_id == run_id)
        return self._rows(query.group_by(Device.profile).order_by(func.min(Device.device)))

    def class_rounds(self, run_id: str) -> Rows:
        """Each class in each round, oldest first (columns of ``ClassRound``)."""
        query = select(ClassRound.__table__).where(ClassRound.run_id == run_id)
        return self._rows(query.order_by(ClassRound.round, ClassRound.profile))

    def pulls(self, run_id: str, profile: str | None = None) -> Rows:
        """Pulls of one class or of all: ``rank``, ``step`` (in 40ths), ``pulls``, ``reward`` (sum).

        ``groups``: the classes and rounds that these are summed over; ``squares``: the sum over them of their squared
        rewards, each divided by its pulls, from which the scatter of rewards follows.
        """
        query = select(
            Pull.rank,
            Pull.step,
            func.sum(Pull.pulls).label("pulls"),
            func.sum(Pull.reward).label("reward"),
            func.count().label("groups"),
            func.sum(Pull.reward * Pull.reward / Pull.pulls).label("squares"),
        ).where(Pull.run_id == run_id, Pull.pulls > 0)
        if profile is not None:
            query = query.where(Pull.profile == profile)
        return self._rows(query.group_by(Pull.rank, Pull.step).order_by(Pull.rank, Pull.step))

    def local_steps(self, run_id: str, after: int = 0) -> Rows:
        """Local steps of each class in each round above ``after``: ``least``, ``mean``, ``most``; ``devices``."""
        steps = Assignment.local_steps
        query = (
            select(
                Assignment.round,
                Device.profile,
                func.min(steps).label("least"),
                func.avg(steps).label("mean"),
                func.max(steps).label("most"),
                func.count().label("devices"),
            )
            .join(Device, (Device.run_id == Assignment.run_id) & (Device.device == Assignment.device))
            .where(Assignment.run_id == run_id, Assignment.round > after, steps.is_not(None))
            .group_by(Assignment.round, Device.profile)
        )
        return self._rows(query.order_by(Assignment.round, func.min(Assignment.device)))

    def blocks(self, run_id: str) -> Rows:
        """Kept units of each block after the newest round with this record, in forward order."""
        newest = select(func.max(BlockLeft.round)).where(BlockLeft.run_id == run_id).scalar_subquery()
        query = select(BlockLeft.__table__).where(BlockLeft.run_id == run_id, BlockLeft.round == newest)
        return self._rows(query.order_by(BlockLeft.block))

    def sampled_rounds(self, run_id: str) -> list[int]:
        """The rounds after which completions were kept, newest first."""
        query = select(Evaluation.round).where(Evaluation.run_id == run_id, Evaluation.samples.is_not(None))
        return [row.round for row in self._rows(query.order_by(Evaluation.round.desc()))]

    def samples(self, run_id: str, round: int) -> Any:
        """``samples``, ``generated`` and the measures of completions of one of :meth:`sampled_rounds`."""
        columns = (
            Evaluation.samples,
            Evaluation.generated,
            Evaluation.rouge_l,
            Evaluation.bleu,
            Evaluation.exact_match,
        )
        return self._rows(select(*columns).where(Evaluation.run_id == run_id, Evaluation.round == round))[0]

    def late_devices(self, run_id: str, rounds: int, most: int) -> Rows:
        """Of each of the last ``rounds`` rounds: its ``most`` slowest devices, the slowest first.

        Devices whose updates came late are left out, since their work began in an earlier round.
        Columns of ``Assignment``, with ``profile`` and ``round_seconds``, how long the whole round took
        without waiting for devices to become available.
        """
        numbers = select(Round.round).where(Round.run_id == run_id).order_by(Round.round.desc()).limit(rounds)
        place = func.row_number().over(
            partition_by=Assignment.round, order_by=(_TOOK.desc().nulls_last(), Assignment.device)
        )
        ranked = (
            select(Assignment.round, Assignment.device, place.label("place"))
            .where(Assignment.run_id == run_id, Assignment.round.in_(numbers.scalar_subquery()))
            .where(func.coalesce(Assignment.staleness, 0) == 0)
            .subquery()
        )
        at_work = Round.virtual_seconds - func.coalesce(Round.waited_seconds, 0.0)
        same = (Assignment.round == ranked.c.round) & (Assignment.device == ranked.c.device)
        query = (
            select(Assignment.__table__, Device.profile, at_work.label("round_seconds"))
            .join(ranked, same)
            .join(Round, (Round.run_id == Assignment.run_id) & (Round.round == Assignment.round))
            .outerjoin(Device, (Device.run_id == Assignment.run_id) & (Device.device == Assignment.device))
            .where(Assignment.run_id == run_id, ranked.c.place <= most)
        )
        return self._rows(query.order_by(Assignment.round.desc(), ranked.c.place))

    def event_rounds(self, run_id: str) -> Rows:
        """Number of events by round and kind: ``round``, ``kind``, ``count``."""
        query = select(Event.round, Event.kind, func.count().label("count")).where(Event.run_id == run_id)
        return self._rows(query.group_by(Event.round, Event.kind).order_by(Event.round, Event.kind))

    def class_peaks(self, run_id: str) -> Rows:
        """Of each class: ``profile``, and ``peak_memory_bytes``, the most that a device needed in the newest round."""
        newest = select(func.max(Round.round)).where(Round.run_id == run_id).scalar_subquery()
        same = (Device.run_id == Assignment.run_id) & (Device.device == Assignment.device)
        query = select(Device.profile, func.max(Assignment.peak_memory_bytes).label("peak_memory_bytes"))
        query = query.select_from(Assignment).join(Device, same)
        return self._rows(query.where(Assignment.run_id == run_id, Assignment.round == newest).group_by(Device.profile))

    def nodes(self, run_id: str) -> Rows:
        """The nodes that have replied in a run, the oldest contact first."""
        query = select(Node.__table__).where(Node.run_id == run_id)
        return self._rows(query.order_by(Node.last_contact, Node.node))

    def jobs(self, run_ids: Sequence[str]) -> Rows:
        """``id``, ``name``, ``status`` and ``job`` of these runs."""
        return self._rows(select(Run.id, Run.name, Run.status, Run.job).where(Run.id.in_(run_ids)))
