"""The ``[bandit]`` section of the job file."""

import math
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from slimfed.clients.spec import Fraction, Section

Rank = Annotated[int, Field(ge=1)]
Steps = Annotated[int, Field(ge=1)]
Pacing = Literal["auto", "off", "within", "fill"]


class RewardSpec(Section):
    """Weights of the parts of the reward; ``loss``, ``pruning`` and ``importance`` sum to 1."""

    loss: float = Field(0.5, ge=0.0, le=1.0, description="weight of the relative decrease of the local loss")
    pruning: float = Field(0.25, ge=0.0, le=1.0, description="weight of the gained share of the missing sparsity")
    importance: float = Field(
        0.25,
        ge=0.0,
        le=1.0,
        description="weight of the update's importance, relative to the other updates of the round",
    )
    time_penalty: float = Field(
        1.0, ge=0.0, description="kappa: factor by which a distance of the time from the mean lowers the reward"
    )

    @model_validator(mode="after")
    def _sums_to_one(self) -> "RewardSpec":
        total = self.loss + self.pruning + self.importance
        if not math.isclose(total, 1.0, abs_tol=1e-6):
            raise ValueError(f"loss + pruning + importance must be 1, got {total:g}")
        return self


class BanditSpec(Section):
    """The agent that chooses a device's pruning step, rank and local steps, its choices, and its reward."""

    name: str = Field("s-ucb", description="name in the bandit registry")
    pruning_step: tuple[Fraction, Fraction] = Field(
        (0.0, 0.4), description="smallest and largest fraction of the remaining structure to remove in a round"
    )
    ranks: tuple[Rank, ...] = Field((2, 4, 8, 16), min_length=1, description="LoRA ranks to choose from, ascending")
    local_steps: tuple[Steps, ...] = Field(
        (),
        description='numbers of optimiser steps in a round to choose from, ascending; "auto": half, once, twice and '
        "four times training.local_steps, or for an agent that makes no choices only once; empty: training.local_steps "
        "for every device",
    )
    control: Literal["none", "shuffled", "still"] = Field(
        "none",
        description="experiments that show what learning is worth. shuffled: the agent learns from rewards permuted "
        "over devices and rounds; still: it gets no rewards, and only learns how fast devices are",
    )
    discount: float = Field(
        0.98, gt=0.0, le=1.0, description="s-ucb: factor on the weight of a reward after each round"
    )
    exploration: float = Field(1.0, ge=0.0, description="s-ucb: multiplier of the exploration bonus")
    resolution: float = Field(
        0.05, gt=0.0, le=1.0, description="s-ucb: smallest difference of pruning steps that the agent distinguishes"
    )
    pooling: float = Field(
        0.0, ge=0.0, le=1.0, description="s-ucb: weight of the pulls of devices with similar observed times; 0: off"
    )
    pacing: Pacing = Field(
        "auto",
        description="off: all arms; within: arms that do not prolong the round, by the device's observed times; fill: "
        "of these, the arms with the largest rank, and of those the ones with most local steps; auto: fill for s-ucb, "
        "off for other agents",
    )
    slack: float = Field(
        2.0,
        ge=1.0,
        description="longest time of an arm that fits (pacing), as a multiple of the slowest device's fastest arm",
    )
    fixed_step: Fraction | None = Field(None, description="fixed: the pruning step; default: middle of pruning_step")
    fixed_rank: int | None = Field(None, description="fixed: the rank, one of ranks; default: the largest")
    fixed_local_steps: int | None = Field(
        None, description="fixed: the local steps, one of local_steps; default: the largest"
    )
    spread_ranks: bool = Field(
        False, description="fixed: every device has its own rank, drawn once from ranks, instead of fixed_rank"
    )
    reward: RewardSpec = RewardSpec()

    @field_validator("local_steps", mode="before")
    @classmethod
    def _numbers(cls, steps: Any) -> Any:
        if isinstance(steps, str):
            raise ValueError('must be "auto" or a list of whole numbers')
        return steps

    @field_validator("pruning_step")
    @classmethod
    def _ordered(cls, steps: tuple[float, float]) -> tuple[float, float]:
        if steps[0] > steps[1]:
            raise ValueError(f"the smallest step must not be above the largest, got {list(steps)}")
        return steps

    @field_validator("ranks", "local_steps")
    @classmethod
    def _ascending(cls, values: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        if any(a >= b for a, b in pairwise(values)):
            raise ValueError(f"{info.field_name} must ascend without repetition, got {list(values)}")
        return values

    @model_validator(mode="after")
    def _fixed_choices_are_known(self) -> "BanditSpec":
        if self.spread_ranks and self.fixed_rank is not None:
            raise ValueError(f"fixed_rank = {self.fixed_rank} is one rank for all, but spread_ranks asks for many")
        if self.fixed_rank is not None and self.fixed_rank not in self.ranks:
            raise ValueError(f"fixed_rank must be one of ranks {list(self.ranks)}, got {self.fixed_rank}")
        steps = self.fixed_local_steps
        if steps is not None and steps not in self.local_steps:
            raise ValueError(f"fixed_local_steps must be one of local_steps {list(self.local_steps)}, got {steps}")
        return self
