"""Which of a model's linear modules carry an adapter (``adapter.targets``)."""

from collections.abc import Sequence

from slimfed.clients.errors import InputError
from slimfed.clients.structure import Blueprint

ALL = "all-linear"


def targeted(blueprint: Blueprint, targets: str | Sequence[str]) -> tuple[str, ...]:
    """The modules that carry an adapter, in the model's order.

    ``targets``: "all-linear", "attention", "ffn", or names as PEFT's ``target_modules`` has them: the whole name of a
    module, or its end, such as "q_proj". Raises :class:`InputError` for a name that no module has.
    """
    if targets == ALL:
        return blueprint.modules
    if targets in ("attention", "ffn"):
        chosen = {cut.module for block in blueprint.blocks if block.kind == targets for cut in block.cuts}
        return tuple(name for name in blueprint.modules if name in chosen)
    for target in targets:
        if not any(_matches(name, target) for name in blueprint.modules):
            raise InputError(
                f"adapter.targets: {target!r:.60} is none of the modules that can be adapted; valid: "
                f"{', '.join(dict.fromkeys(name.rpartition('.')[2] for name in blueprint.modules))}"
            )
    return tuple(name for name in blueprint.modules if any(_matches(name, target) for target in targets))


def bare_block(blueprint: Blueprint, adapted: Sequence[str]) -> str | None:
    """The first block without any module that carries an adapter; None if there is none."""
    known = set(adapted)
    return next((block.name for block in blueprint.blocks if not any(cut.module in known for cut in block.cuts)), None)


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")
