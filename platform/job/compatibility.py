"""Rules across the sections of a job: each function returns an incompatibility with its remedy, or None.

Requirements and limits of a method are attributes of its class; no rule names a method.
"""

from collections.abc import Callable
from typing import Any

from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.allocation import ALLOCATIONS
from slimfed.clients.importance import IMPORTANCE
from slimfed.clients.registry import Registry
from slimfed.clients.spec import AdapterOptions
from slimfed.platform.job.late_update_rules import LATE_UPDATE_RULES
from slimfed.platform.job.layer_share_rules import LAYER_SHARE_RULES, LAYER_SHARE_RUN_RULES
from slimfed.platform.job.names import either
from slimfed.platform.job.sections import JobSections, MethodSpec
from slimfed.platform.trackers import problem_of
from slimfed.strategies.aggregation import AGGREGATIONS
from slimfed.strategies.bandits import BANDITS
from slimfed.strategies.selection import SELECTORS
from slimfed.strategies.server import SERVER_OPTIMIZERS
from slimfed.strategies.where import REAL, SIMULATED, parse_where

Rule = Callable[[JobSections], str | None]


def problems(job: JobSections) -> list[str]:
    """Problems of a job file as a whole, one line each; checked whenever a job is read."""
    unknown = _broken(job, (bandit_is_known, optimizer_is_known, allocation_is_known))
    return unknown or _broken(job, RULES)


def problems_of_run(job: JobSections) -> list[str]:
    """Problems that prevent a valid job from running, one line each; checked when a run is created."""
    return _broken(job, RUN_RULES) + privacy_problems(job)


def bandit_is_known(job: JobSections) -> str | None:
    """``bandit.name`` names an agent that can be used."""
    return _unknown(BANDITS, job.bandit.name)


def optimizer_is_known(job: JobSections) -> str | None:
    """``server.optimizer`` names an optimiser that can be used."""
    return _unknown(SERVER_OPTIMIZERS, job.server.optimizer)


def allocation_is_known(job: JobSections) -> str | None:
    """``pruning.allocation`` names an allocation that can be used."""
    return _unknown(ALLOCATIONS, job.pruning.allocation)


def equal_structures(job: JobSections) -> str | None:
    """Devices with own pruning get different structures, which some aggregations refuse."""
    name = job.method.aggregation
    prunes_alone = job.method.target_sparsity > 0 and job.pruning.structure == "own"
    if not (AGGREGATIONS[name].needs_equal_structures and prunes_alone):
        return None
    return (
        f"method.aggregation = {name!r}: needs equal structures, but devices prune on their own; set "
        f"pruning.structure = 'shared', or method.target_sparsity = 0, or aggregate by {_USUAL.aggregation!r}"
    )


def equal_ranks(job: JobSections) -> str | None:
    """Devices whose agents choose ranks, or that prune ranks, have different ranks, which some aggregations refuse."""
    name, bandit = job.method.aggregation, job.bandit
    same = _keeps_ranks(job) and not bandit.spread_ranks
    if not AGGREGATIONS[name].needs_equal_ranks or ((same or len(bandit.ranks) == 1) and job.adapter.keep_ranks == 1):
        return None
    constant = either(BANDITS, lambda each: each.constant_rank)
    return (
        f"method.aggregation = {name!r}: needs equal ranks; give bandit.ranks one value, set bandit.name = {constant} "
        f"with pacing = 'off' (and adapter.keep_ranks = 1), or aggregate by {_USUAL.aggregation!r}"
    )


def factors_are_plain(job: JobSections) -> str | None:
    """Aggregations of LoRA's product B A do not support other adapters."""
    method = job.method
    if not AGGREGATIONS[method.aggregation].plain_factors_only or ADAPTERS[method.adapter].plain_factors:
        return None
    return (
        f"method.aggregation = {method.aggregation!r}: knows LoRA's two factors alone, and not what "
        f"method.adapter = {method.adapter!r} trains; use {_USUAL.aggregation!r}"
    )


def shared_structure(job: JobSections) -> str | None:
    """A shared structure is incompatible with adapters that prune by themselves."""
    adapter = job.method.adapter
    if job.pruning.structure != "shared" or ADAPTERS[adapter].supports_shared_structure:
        return None
    return (
        f"pruning.structure = 'shared': the server cannot cut heads and channels while method.adapter = {adapter!r} "
        "is choosing entries or width for it; use structure = 'own'"
    )


def enough_rounds(job: JobSections) -> str | None:
    """An adapter with decisions during the run needs a least number of rounds."""
    adapter, rounds = job.method.adapter, job.training.rounds
    needed = ADAPTERS[adapter].min_rounds
    if rounds >= needed:
        return None
    return f"training.rounds = {rounds}: method.adapter = {adapter!r} decides before the last round; use {needed}"


def squarehead_has_one_width(job: JobSections) -> str | None:
    """SquareHead compares hidden states with those of the base, which must have the same width."""
    adapter = job.method.adapter
    if job.training.recovery != "squarehead" or ADAPTERS[adapter].supports_squarehead:
        return None
    return (
        f"training.recovery = 'squarehead': compares hidden states of one width, which method.adapter = {adapter!r} "
        "takes parts of away; use recovery = 'plain', or another adapter"
    )


def quantised_base_is_only_read(job: JobSections) -> str | None:
    """A quantised base is dequantised for products alone; an adapter that writes its weights, or cuts across its rows,
    needs them in full precision.
    """
    kind, adapter = job.model.quantization, job.method.adapter
    if kind == "none" or ADAPTERS[adapter].supports_quantised_base:
        return None
    able = either(ADAPTERS, lambda each: each.supports_quantised_base)
    return (
        f"model.quantization = {kind!r}: method.adapter = {adapter!r} changes or cuts the frozen weights themselves, "
        f"which a quantised base holds rounded; use {able}, or quantization = 'none'"
    )


def quantised_base_stays(job: JobSections) -> str | None:
    """What some aggregations merge into the base would be lost in the steps of quantised weights."""
    kind, name = job.model.quantization, job.method.aggregation
    if kind == "none" or not AGGREGATIONS[name].changes_base:
        return None
    return (
        f"model.quantization = {kind!r}: method.aggregation = {name!r} merges a part of the change into the base, "
        f"whose quantised weights cannot hold it; aggregate by {_USUAL.aggregation!r}, or use quantization = 'none'"
    )


def ranks_are_kept(job: JobSections) -> str | None:
    """Rank self-pruning (HetLoRA) needs plain factors, and an agent that keeps the rank."""
    adapter, bandit, kept = job.method.adapter, job.bandit.name, job.adapter.keep_ranks
    if kept == 1 or (ADAPTERS[adapter].plain_factors and _keeps_ranks(job)):
        return None
    plain = either(ADAPTERS, lambda each: each.plain_factors)
    constant = either(BANDITS, lambda each: each.constant_rank)
    return (
        f"adapter.keep_ranks = {kept:g}: devices give up ranks of LoRA that are theirs to keep, which does not go with "
        f"method.adapter = {adapter!r} and bandit.name = {bandit!r}; use method.adapter = {plain} and bandit.name = "
        f"{constant}, or set keep_ranks = 1 and tail_penalty = 0"
    )


def options_have_factors(job: JobSections) -> str | None:
    """Options of LoRA need an adapter that trains its factors."""
    usual, adapter = AdapterOptions(), job.method.adapter
    names = ("targets", "rslora", "lora_plus")
    changed = next((name for name in names if getattr(job.adapter, name) != getattr(usual, name)), None)
    if changed is None or ADAPTERS[adapter].low_rank_options:
        return None
    able = either(ADAPTERS, lambda each: each.low_rank_options)
    return f"adapter.{changed}: is an option of LoRA's factors, which method.adapter = {adapter!r} has not; use {able}"


def foresight_has_profiles(job: JobSections) -> str | None:
    """Agents that foresee need profiles, which only simulated devices have."""
    if job.fleet.clock != "measured" or not BANDITS[job.bandit.name].foresees:
        return None
    return f"bandit.name = {job.bandit.name!r}: it reads the profiles, which real devices (fleet.clock) have not"


def optimizer_has_a_direction(job: JobSections) -> str | None:
    """A server optimiser needs an aggregate whose change is a pseudo-gradient."""
    name, aggregation = job.server.optimizer, job.method.aggregation
    if not SERVER_OPTIMIZERS[name].moves or AGGREGATIONS[aggregation].gives_direction:
        return None
    return (
        f"server.optimizer = {name!r}: method.aggregation = {aggregation!r} writes factors anew, or a part of the "
        f"change into the base, so that their change is no gradient; aggregate by {_USUAL.aggregation!r}, or use "
        f"optimizer = {_still()}"
    )


def optimizer_moves_no_decisions(job: JobSections) -> str | None:
    """A server optimiser would change decisions that an adapter makes by the size of single values."""
    name, adapter = job.server.optimizer, job.method.adapter
    if not SERVER_OPTIMIZERS[name].moves or ADAPTERS[adapter].supports_server_optimizer:
        return None
    movable = either(ADAPTERS, lambda each: each.supports_server_optimizer)
    return (
        f"server.optimizer = {name!r}: momentum would reopen the gates, masks and entries that method.adapter = "
        f"{adapter!r} has decided; use {movable}, or optimizer = {_still()}"
    )


def rounding_moves_no_decisions(job: JobSections) -> str | None:
    """Rounding would change decisions that an adapter makes by the size of single values."""
    precision, adapter = job.messages.precision, job.method.adapter
    if precision == "fp32" or ADAPTERS[adapter].supports_rounding:
        return None
    return (
        f"messages.precision = {precision!r}: rounding would move the gates, masks and entries that method.adapter = "
        f"{adapter!r} decides by; use {either(ADAPTERS, lambda each: each.supports_rounding)}, or precision = 'fp32'"
    )


def rounding_adds_up(job: JobSections) -> str | None:
    """Rounding errors are sent in the next round (error feedback) and cancel only in sums of updates."""
    precision, aggregation = job.messages.precision, job.method.aggregation
    if precision == "fp32" or AGGREGATIONS[aggregation].sums_updates:
        return None
    sums = ", ".join(name for name, each in AGGREGATIONS.items() if each.sums_updates)
    return (
        f"messages.precision = {precision!r}: what rounding takes away of one round is added to the next, which "
        f"method.aggregation = {aggregation!r} does not sum up; use one of {sums}, or precision = 'fp32'"
    )


def rounding_is_not_clipped(job: JobSections) -> str | None:
    """Clipping for privacy would remove the rounding errors of the round before."""
    precision, kind = job.messages.precision, job.privacy.kind
    if precision == "fp32" or kind == "none":
        return None
    return (
        f"messages.precision = {precision!r}: privacy.kind = {kind!r} clips what would make the rounding good; "
        "use precision = 'fp32'"
    )


def real_devices_are_not_disturbed(job: JobSections) -> str | None:
    """Only a virtual clock implements disturbances and dropouts."""
    asked = "disturbance" if job.disturbance.active else "fleet.dropout" if job.fleet.dropout else None
    if not asked or job.fleet.clock != "measured":
        return None
    return f'{asked}: real devices are not disturbed; set fleet.clock = "virtual" or leave it out'


def availability_is_simulated(job: JobSections) -> str | None:
    """Real devices are available when their nodes are connected, and by no trace."""
    if job.fleet.clock != "measured" or job.fleet.availability == "always":
        return None
    return (
        f"fleet.availability = {job.fleet.availability!r}: real devices are available when their nodes are connected; "
        'leave it "always"'
    )


def participants_exist(job: JobSections) -> str | None:
    """A round cannot ask more devices than there are."""
    amount = job.fleet.participation
    if not isinstance(amount, int) or amount <= job.fleet.devices:
        return None
    return f"fleet.participation = {amount}: the fleet has {job.fleet.devices} devices (fleet.devices)"


def where_is_told(job: JobSections) -> str | None:
    """A filter may only ask what profiles, or real nodes, tell of a device."""
    if not job.fleet.where:
        return None
    real = job.fleet.clock == "measured"
    known = REAL if real else SIMULATED
    strange = sorted(parse_where(job.fleet.where).fields - set(known))
    if not strange:
        return None
    who = "real nodes do" if real else "a profile does"
    return f"fleet.where: {who} not tell {strange[0]!r} of a device; known are {', '.join(known)}"


def disturbance_begins_in_the_run(job: JobSections) -> str | None:
    """A drop of bandwidth must begin within the run."""
    first, rounds = job.disturbance.bandwidth_from, job.training.rounds
    if job.disturbance.bandwidth_factor == 1 or first <= rounds:
        return None
    return f"disturbance.bandwidth_from = {first}: the run has only {rounds} rounds (training.rounds)"


def scores_come_before_events(job: JobSections) -> str | None:
    """A device scores its units in the local steps before each prune event of a round."""
    events, field, steps = job.pruning.events, "training.local_steps", job.training.local_steps
    if job.bandit.local_steps:
        field, steps = "bandit.local_steps", min(job.bandit.local_steps)
    if job.method.target_sparsity == 0 or events < steps:
        return None
    return f"pruning.events = {events}: must be less than {field} ({steps}), so that scores are there before units go"


RULES: tuple[Rule, ...] = (
    equal_structures,
    equal_ranks,
    factors_are_plain,
    shared_structure,
    *LAYER_SHARE_RULES,
    enough_rounds,
    squarehead_has_one_width,
    quantised_base_is_only_read,
    quantised_base_stays,
    ranks_are_kept,
    options_have_factors,
    foresight_has_profiles,
    optimizer_has_a_direction,
    optimizer_moves_no_decisions,
    rounding_moves_no_decisions,
    rounding_adds_up,
    rounding_is_not_clipped,
    participants_exist,
    where_is_told,
    *LATE_UPDATE_RULES,
)


def trackers_can_be_used(job: JobSections) -> str | None:
    """Trackers need their library, and some a key."""
    found = {name: problem_of(name) for name in job.tracking.to}
    told = [f"tracking.to = {name!r}: {problem}" for name, problem in found.items() if problem]
    return "\n".join(told) or None


RUN_RULES: tuple[Rule, ...] = (
    *LAYER_SHARE_RUN_RULES,
    trackers_can_be_used,
    real_devices_are_not_disturbed,
    availability_is_simulated,
    disturbance_begins_in_the_run,
    scores_come_before_events,
)


def privacy_problems(job: JobSections) -> list[str]:
    """Under privacy only the clipped adapter may depend on a device's text; one line for each violation."""
    privacy, method, bandit = job.privacy, job.method, BANDITS[job.bandit.name]
    if privacy.secure_aggregation:
        return [
            "privacy.secure_aggregation: Flower 1.41 offers SecAgg+ in its older workflow only, which adds up equal "
            "lists of arrays; updates of unequal rank and structure, checks of single updates and robust aggregation "
            "cannot be combined with it. Set it to false; privacy.kind = local hides single updates from the server"
        ]
    if privacy.kind == "none":
        return []
    prunes, spare = method.target_sparsity > 0, job.fleet.participants / 10
    by_text = "since rewards and scores tell of a device's text"
    adapters = either(ADAPTERS, lambda each: each.plain_factors, '"')
    means = either(AGGREGATIONS, lambda each: each.bounded_sensitivity, '"')
    blind = either(IMPORTANCE, lambda each: each.independent_of_text, '"')
    agents = either(BANDITS, _hides_rewards, '"')
    unmeasured = either(ALLOCATIONS, lambda each: not each.measures, '"')
    selections = either(SELECTORS, lambda each: each.independent_of_text, '"')
    hindrances = {
        f"method.adapter: must be {adapters}": not ADAPTERS[method.adapter].plain_factors,
        f"method.aggregation: must be {means}, whose mean has a known sensitivity": (
            not AGGREGATIONS[method.aggregation].bounded_sensitivity
        ),
        f"method.importance: must be {blind} where something is pruned, {by_text}": (
            prunes and not IMPORTANCE[method.importance].independent_of_text
        ),
        f'pruning.allocation: must be {unmeasured}, or calibration.source = "server", since what devices measure '
        "tells of their text, and the accountant does not count it": (
            ALLOCATIONS[job.pruning.allocation].measures and job.calibration.source == "devices"
        ),
        f"bandit.name: must be {agents}, {by_text}": not _hides_rewards(bandit),
        'bandit.pacing: must be "off", since the times by which it moves ranks tell how long a device\'s text is': (
            _hides_rewards(bandit) and _pacing(job) != "off"
        ),
        f"fleet.selection: must be {selections}, since losses and times tell of a device's text": (
            not job.fleet.wanted.everyone and not SELECTORS[job.fleet.selection].independent_of_text
        ),
        "adapter.keep_ranks: must be 1, since what ranks a device gives up tells of its text": (
            job.adapter.keep_ranks < 1
        ),
        "privacy.noise_multiplier: must be less than a tenth of the devices of a round with adaptive clipping": (
            privacy.kind == "central" and privacy.clipping == "adaptive" and privacy.noise_multiplier >= spare
        ),
    }
    return [f"privacy.kind = {privacy.kind}: {text}" for text, hinders in hindrances.items() if hinders]


# Errors recommend the defaults, which are compatible with every method.
_USUAL = MethodSpec()


def _broken(job: JobSections, rules: tuple[Rule, ...]) -> list[str]:
    return [problem for rule in rules if (problem := rule(job)) is not None]


def _unknown(registry: Registry[Any], name: str) -> str | None:
    problem = registry.problem(name)
    return None if problem is None else f"{registry.field} = {name!r}: {problem}"


def _hides_rewards(bandit: Any) -> bool:
    return not bandit.learns and not bandit.foresees


def _keeps_ranks(job: JobSections) -> bool:
    """True if the agent gives a device the same rank in every round."""
    return BANDITS[job.bandit.name].constant_rank and job.bandit.pacing in ("auto", "off")


def _pacing(job: JobSections) -> str:
    """The pacing that a job asks for, or that its agent has."""
    return BANDITS[job.bandit.name].usual_pacing if job.bandit.pacing == "auto" else job.bandit.pacing


def _still() -> str:
    """Server optimisers that use the aggregate unchanged."""
    return either(SERVER_OPTIMIZERS, lambda each: not each.moves)
