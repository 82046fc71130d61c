"""The ``[bandit]`` section of the job file."""

import math
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from slimfed.clients.spec import Fraction, Section

Rank = Annotated[int, Field(ge=1)]


class RewardSpec(Section):
    """How the parts of the reward are weighed; ``loss``, ``pruning`` and ``importance`` sum to 1."""

    loss: float = Field(0.5, ge=0.0, le=1.0, description="weight of the relative decrease of the local loss")
    pruning: float = Field(
        0.25, ge=0.0, le=1.0, description="weight of the share of the missing sparsity that was gained"
    )
    importance: float = Field(0.25, ge=0.0, le=1.0, description="weight of the update's importance among the round's")
    time_penalty: float = Field(1.0, ge=0.0, description="kappa: how strongly a time unlike the mean lowers the reward")

    @model_validator(mode="after")
    def _sums_to_one(self) -> "RewardSpec":
        total = self.loss + self.pruning + self.importance
        if not math.isclose(total, 1.0, abs_tol=1e-6):
            raise ValueError(f"loss + pruning + importance must be 1, got {total:g}")
        return self


class BanditSpec(Section):
    """Which agent chooses a device's pruning step and rank, among what, and what it is rewarded for."""

    name: str = Field("s-ucb", description="name in the bandit registry")
    pruning_step: tuple[Fraction, Fraction] = Field(
        (0.0, 0.4), description="smallest and largest fraction of the remaining structure to remove in a round"
    )
    ranks: tuple[Rank, ...] = Field((2, 4, 8, 16), min_length=1, description="LoRA ranks to choose from, ascending")
    discount: float = Field(0.98, gt=0.0, le=1.0, description="s-ucb: what a reward still counts one round later")
    exploration: float = Field(1.0, ge=0.0, description="s-ucb: multiplier of the exploration bonus")
    resolution: float = Field(
        0.05, gt=0.0, le=1.0, description="s-ucb: pruning steps closer than this are not told apart"
    )
    pooling: float = Field(
        0.0, ge=0.0, le=1.0, description="s-ucb: what a pull of a device with like observed times counts; 0: nothing"
    )
    pacing: Literal["off", "within", "fill"] = Field(
        "fill",
        description="s-ucb: all arms; those that do not prolong the round; or of these the largest rank, "
        "by the device's own observed times",
    )
    slack: float = Field(
        2.0, ge=1.0, description="s-ucb: times the slowest device's fastest arm that an arm may take and still fit"
    )
    fixed_step: Fraction | None = Field(None, description="fixed: the pruning step; default: middle of pruning_step")
    fixed_rank: int | None = Field(None, description="fixed: one of ranks; default: the largest")
    spread_ranks: bool = Field(
        False, description="fixed: every device keeps a rank of its own, drawn from ranks, instead of fixed_rank"
    )
    reward: RewardSpec = RewardSpec()

    @field_validator("pruning_step")
    @classmethod
    def _ordered(cls, steps: tuple[float, float]) -> tuple[float, float]:
        if steps[0] > steps[1]:
            raise ValueError(f"the smallest step must not be above the largest, got {list(steps)}")
        return steps

    @field_validator("ranks")
    @classmethod
    def _ascending(cls, ranks: tuple[int, ...]) -> tuple[int, ...]:
        if any(a >= b for a, b in pairwise(ranks)):
            raise ValueError(f"ranks must ascend without repetition, got {list(ranks)}")
        return ranks

    @model_validator(mode="after")
    def _fixed_rank_is_known(self) -> "BanditSpec":
        if self.spread_ranks and self.fixed_rank is not None:
            raise ValueError(f"fixed_rank = {self.fixed_rank} is one rank for all, but spread_ranks asks for many")
        if self.fixed_rank is not None and self.fixed_rank not in self.ranks:
            raise ValueError(f"fixed_rank must be one of ranks {list(self.ranks)}, got {self.fixed_rank}")
        return self
