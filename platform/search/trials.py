"""The trials of a search, one run each: chosen by Optuna, ended early where they fall behind.

The runs of the sweep in the store are all that is kept. Optuna's sampler has a seed: a repeated command chooses the
same values again, finds their runs, and goes on from there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimfed.clients.errors import InputError
from slimfed.platform.comparison.course import Course, Quality
from slimfed.platform.comparison.report import load_courses
from slimfed.platform.console import notes
from slimfed.platform.exit_codes import FAILED, INTERRUPTED, OK
from slimfed.platform.format import percent
from slimfed.platform.job.job import Job
from slimfed.platform.launch.batch import find_runs, launch_run, run_batch
from slimfed.platform.launch.journal import StoreJournal
from slimfed.platform.launch.launcher import FinalStatus, Journal, LaunchPlan, Look, StopSignals
from slimfed.platform.launch.preflight import with_validation
from slimfed.platform.launch.suiting import suited
from slimfed.platform.lineage import with_parent
from slimfed.platform.search.result import ENDED_EARLY, SearchResult, State, Trial
from slimfed.platform.search.space import Range, Space
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.writer import Store
from slimfed.platform.stores import reading
from slimfed.platform.sweep import Variant, same_work

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial as Asked

_RANDOM_FIRST = 6
"""Trials before the sampler draws on their results (Optuna: n_startup_trials; its own default is 10). Ours."""
_NEEDED = 4
"""Finished trials before one is ended early (Optuna: MedianPruner, n_startup_trials). Ours."""


@dataclass(frozen=True)
class Search:
    """How to search: ``trials`` runs at most, ``parallel`` at once; ``early``: those behind the median are ended."""

    space: Space
    trials: int
    metric: Quality
    parallel: int = 1
    early: bool = True
    compute: Callable[[LaunchPlan, Journal, StopSignals], object] = launch_run


def search(plan: Search, place: Path) -> SearchResult:
    """Run the trials. Raises ``InputError`` before the first one starts, and for a choice that cannot run."""
    plan = replace(plan, space=replace(plan.space, base=_as_run(plan.space.base, place)))
    validation = with_validation(plan.space.base).data.validation == "use"
    study = _study(plan)
    found: list[Trial] = []
    while len(found) < plan.trials:
        tries = [_asked(study, plan.space, place) for _ in range(min(plan.parallel, plan.trials - len(found)))]
        if _run(tries, plan, place) == INTERRUPTED:
            return SearchResult(plan.space.sweep, tuple(found), INTERRUPTED, plan.metric, validation)
        for each in tries:
            found.append(_told(study, each, plan, place))
            notes().print(in_words(found[-1], plan), markup=False, soft_wrap=True)
    failed = any(trial.state == "failed" for trial in found)
    return SearchResult(plan.space.sweep, tuple(found), FAILED if failed else OK, plan.metric, validation)


def in_words(trial: Trial, plan: Search) -> str:
    """A trial in one line."""
    values = ", ".join(f"{field}={text}" for field, text in trial.chosen.items())
    quality = "no quality" if trial.quality is None else f"{plan.metric.replace('_', ' ')} {percent(trial.quality)}"
    how = {"done": "", "failed": "; the run failed", ENDED_EARLY: f"; ended early, after round {trial.rounds}"}
    return f"trial {trial.number + 1} of {plan.trials}: {values}: {quality}{how[trial.state]}"


@dataclass
class _Try:
    """A trial of Optuna's study, with the run of its choice. ``reported``: rounds whose quality the study has."""

    asked: "Asked"
    variant: Variant
    chosen: Mapping[str, str]
    own: bool
    reported: set[int] = field(default_factory=set)

    def report(self, course: Course) -> None:
        """Tell the study the qualities that it does not have yet."""
        for point in course.points:
            if point.round > 0 and point.round not in self.reported:
                self.reported.add(point.round)
                self.asked.report(point.quality, point.round)


def _as_run(job: Job, place: Path) -> Job:
    """The job as a run of it has it: with its parent, and with the values that suit its text and model."""
    return suited(with_parent(job, place))


def _study(plan: Search) -> "Study":
    """A new study, in memory; its first trial is the job's own choice, as far as the search could make it."""
    try:
        import optuna
    except ImportError:
        raise InputError("--search optuna needs optuna: pip install 'slimfed[optuna]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(n_startup_trials=_RANDOM_FIRST, seed=plan.space.base.seed)
    warmup = plan.space.base.training.rounds // 3
    pruner = optuna.pruners.MedianPruner(_NEEDED, warmup) if plan.early else optuna.pruners.NopPruner()
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
    if own := plan.space.own_choice():
        study.enqueue_trial(own)
    return study


def _asked(study: "Study", space: Space, place: Path) -> _Try:
    asked = study.ask(_distributions(space))
    own = asked.number == 0 and len(space.own_choice()) == len(space.axes)
    variant = space.variant(asked.params)
    return _Try(asked, replace(variant, job=_as_run(variant.job, place)), space.shown(asked.params), own)


def _distributions(space: Space) -> "dict[str, BaseDistribution]":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, BaseDistribution] = {}
    for axis in space.axes:
        if not isinstance(axis, Range):
            found[axis.field] = CategoricalDistribution(axis.texts)
        elif axis.whole:
            found[axis.field] = IntDistribution(int(axis.low), int(axis.high), log=axis.log)
        else:
            found[axis.field] = FloatDistribution(axis.low, axis.high, log=axis.log)
    return found


def _run(tries: Sequence[_Try], plan: Search, place: Path) -> int:
    """Run what is missing, equal choices once; the exit code of :func:`run_batch`."""
    missing: list[_Try] = []
    for each, task in zip(tries, find_runs([each.variant for each in tries], plan.space.sweep, place), strict=True):
        ended = task.done or (task.found is not None and _was_ended_early(task.found))
        if not ended and not any(same_work(other.variant.job, each.variant.job) for other in missing):
            missing.append(each)
    if not missing:
        return OK
    compute = _Watched(missing, plan)
    code = run_batch([each.variant for each in missing], plan.parallel, plan.space.sweep, place, compute).code
    with reading(missing[0].variant.job, place) as store:
        if store is not None:
            _tag(store, compute.behind)
    return code


def _tag(store: Store, run_ids: Sequence[str]) -> None:
    """Mark the runs that the search stopped, so that it does not resume them."""
    for run in map(Reader(store.engine).find_run, run_ids):
        if run.status == "stopped":
            store.label(run.id, tags=[*(run.tags or []), ENDED_EARLY])


def _was_ended_early(run: Any) -> bool:
    return run.status == "stopped" and ENDED_EARLY in (run.tags or [])


class _Watched:
    """Computes runs and ends those that fall behind. ``behind``: their ids."""

    def __init__(self, tries: Sequence[_Try], plan: Search) -> None:
        self.behind: list[str] = []
        self._tries = {each.variant.job.name: each for each in tries}
        self._plan = plan

    def __call__(self, plan: LaunchPlan, journal: StoreJournal, stop: StopSignals) -> None:
        """Compute one run."""
        self._plan.compute(plan, _EndsWhatIsBehind(self, plan.run, journal), stop)

    def is_behind(self, run_id: str, reader: Reader) -> bool:
        """Tell the study how the run does; True if it should be ended."""
        course = load_courses(reader, [run_id], self._plan.metric)[0]
        each = self._tries[course.job["name"]]
        each.report(course)
        if not each.reported or not each.asked.should_prune():
            return False
        self.behind.append(run_id)
        return True


class _EndsWhatIsBehind:
    """A run's journal that also looks at its quality after every round, and requests a stop once it is behind."""

    def __init__(self, watched: _Watched, run_id: str, journal: StoreJournal) -> None:
        self._watched = watched
        self._run_id = run_id
        self._journal = journal
        self._seen = 0

    def look(self) -> Look:
        """As the run's journal has it."""
        look = self._journal.look()
        if look.rounds_done > self._seen and look.final is None and not look.stopping:
            self._seen = look.rounds_done
            if self._watched.is_behind(self._run_id, self._journal.reader):
                self._journal.request_stop()
        return look

    def request_stop(self) -> None:
        """As the run's journal does."""
        self._journal.request_stop()

    def finish(self, status: FinalStatus, cause: str) -> None:
        """As the run's journal does."""
        self._journal.finish(status, cause)


def _told(study: "Study", each: _Try, plan: Search, place: Path) -> Trial:
    """Tell the study how a trial ended; the trial."""
    from optuna.trial import TrialState

    task = find_runs([each.variant], plan.space.sweep, place)[0]
    with reading(each.variant.job, place) as store:
        ids = [task.found.id] if task.found is not None else []
        course = next(iter(load_courses(Reader(store.engine), ids, plan.metric) if store is not None else ()), None)
    if course is None or course.last is None:
        study.tell(each.asked, state=TrialState.FAIL)
        return Trial(each.asked.number, each.chosen, next(iter(ids), None), "failed", None, 0, each.own)
    each.report(course)
    state: State = "done" if task.done else ENDED_EARLY if _was_ended_early(task.found) else "failed"
    if state == "done":
        study.tell(each.asked, course.last.quality)
    else:
        study.tell(each.asked, state=TrialState.PRUNED if state == ENDED_EARLY else TrialState.FAIL)
    last = course.last
    return Trial(each.asked.number, each.chosen, course.run_id, state, last.quality, last.round, each.own)
