"""What a device must know of the job: the sections of the job file that floor 1 reads.

The platform's job file is made of these same models, so that a field has one name, one default and one check
wherever it travels. Everything is immutable and travels as JSON inside one Flower ``ConfigRecord``.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Precision = Literal["fp32", "bf16", "int8"]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class Section(BaseModel):
    """A job-file section: frozen, and strict about names it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSpec(Section):
    """Which pre-trained model is tuned, and for what."""

    path: str = Field(
        "builtin:tiny-encoder", description="builtin:NAME, a hub id, or a folder written by save_pretrained"
    )
    revision: str | None = Field(None, description="hub revision (branch, tag or commit)")
    task: Literal["classification", "causal-lm"] = "classification"


class PartitionSpec(Section):
    """How the training split is divided among the devices (flwr-datasets partitioners)."""

    kind: Literal["iid", "dirichlet", "shards", "natural"] = "iid"
    alpha: float = Field(1.0, gt=0, description="dirichlet: concentration; small values make devices unlike")
    shards_per_device: int = Field(2, ge=1, description="shards: label-sorted shards a device receives")
    column: str = Field("user", description="natural: the column that names a row's owner")


class DataSpec(Section):
    """Which text is learnt, and how it reaches the devices."""

    path: str = Field("builtin:commands", description="builtin:NAME, a hub id, or a folder with train/test files")
    text: str = Field("text", description="column of the text (classification, or plain causal-lm)")
    label: str = Field("label", description="classification: column of the label, text or integer")
    prompt: str | None = Field(None, description="causal-lm: column of the prompt, not counted in the loss")
    completion: str | None = Field(None, description="causal-lm: column of the completion to learn")
    max_length: int = Field(64, ge=4, description="tokens; longer texts are cut")
    partition: PartitionSpec = PartitionSpec()

    @model_validator(mode="after")
    def _pair(self) -> "DataSpec":
        if (self.prompt is None) != (self.completion is None):
            raise ValueError("data.prompt and data.completion must be given together")
        return self


class AdapterOptions(Section):
    """How an adapter is set, whichever it is; ``scaling`` = alpha / r is the same for every rank."""

    scaling: float = Field(2.0, gt=0, description="alpha / r, equal for all ranks so that factors can be averaged")
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    threshold: float = Field(
        3.0,
        ge=0.0,
        description="sora: what a step takes off every gate, in learning rates; rises from 0 over the rounds",
    )
    keep_ranks: float = Field(
        1.0,
        gt=0.0,
        le=1.0,
        description="lora, HetLoRA's gamma: what a device keeps of its ranks when those beyond have shrunk; 1: all",
    )
    tail_penalty: float = Field(
        0.0, ge=0.0, description="lora, HetLoRA's mu: weight of the size of the ranks beyond keep_ranks in the loss"
    )

    @model_validator(mode="after")
    def _a_penalty_has_a_tail(self) -> "AdapterOptions":
        if self.tail_penalty > 0 and self.keep_ranks == 1:
            raise ValueError("tail_penalty weighs the ranks beyond keep_ranks, which must be below 1 for that")
        return self


class AdapterSpec(AdapterOptions):
    """The adapter every device trains, and what share of the model shall go, for adapters that see to it themselves."""

    name: str = "lora"
    target_sparsity: Fraction = 0.0
    least_rank: int = Field(1, ge=1, description="ranks that no device gives up")


class PruningOptions(Section):
    """How structure is scored and removed on a device, by whichever criterion."""

    scope: Literal["layer", "global", "uniform"] = Field(
        "layer",
        description="rank units in each layer, over all layers, or in each with channels rounded to 8, 16 or 128",
    )
    smoothing: float = Field(0.9, ge=0.0, lt=1.0, description="weight of the past in the moving average of scores")
    prior_weight: float = Field(0.5, ge=0.0, le=1.0, description="share of the fleet's scores in a device's ranking")
    events: int = Field(1, ge=1, description="prune events within one round, recovery after each")
    until: float = Field(0.6, gt=0.0, le=1.0, description="share of the rounds by which the target sparsity is reached")
    schedule: Literal["bandit", "cubic", "one-shot"] = Field(
        "bandit",
        description="who sets the pace: every device's agent, Zhu and Gupta's cubic, or all at once in the first round",
    )
    structure: Literal["own", "shared"] = Field(
        "own",
        description="own: every device ranks and removes its units; shared: the server does, from the devices' summed "
        "scores, the same for all (with schedule cubic or one-shot)",
    )

    @model_validator(mode="after")
    def _shared_structures_have_one_pace(self) -> "PruningOptions":
        if self.structure == "shared" and self.schedule == "bandit":
            raise ValueError(
                "structure = 'shared' has one sparsity for all, so agents cannot set the pace: "
                "schedule must be 'cubic' or 'one-shot'"
            )
        return self


class PruningSpec(PruningOptions):
    """The criterion, and how it is used."""

    importance: str = Field("lora-gradient", description="name in the importance registry")


class TrainingSpec(Section):
    """Local optimisation: AdamW on the adapter and the task head."""

    rounds: int = Field(20, ge=1)
    local_steps: int = Field(20, ge=1, description="optimiser steps a device makes in a round")
    batch_size: int = Field(8, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    schedule: Literal["constant", "linear", "cosine"] = Field("linear", description="decay over the rounds of the run")
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    recovery: Literal["plain", "squarehead"] = Field(
        "plain",
        description="squarehead: adds the distance of every layer's states from those of the unpruned base to the loss",
    )
    checkpointing: bool = Field(
        False,
        description="keep the layers' inputs only, and compute a layer again for its gradient: less memory, more time",
    )
    proximal: float = Field(
        0.0, ge=0, description="FedProx's mu: adds mu/2 |w - w_sent|^2 over all that is trained to the loss; 0: nothing"
    )


class GenerationSpec(Section):
    """What a causal-lm writes when the global model is evaluated; only where the data has prompts."""

    examples: int = Field(
        100, ge=0, description="different prompts of the test split to complete, a seeded sample; 0: none"
    )
    max_new_tokens: int = Field(64, ge=1, description="longest completion in tokens; it is chosen greedily")


class PrivacySpec(Section):
    """Differential privacy of the devices' text, with a device as the unit (docs/privacy.md)."""

    kind: Literal["none", "central", "local"] = Field(
        "none",
        description="central: the server, which is trusted, clips updates and adds noise to their mean; "
        "local: every device does so with its own update",
    )
    clipping: Literal["fixed", "adaptive"] = Field(
        "fixed", description="central: whether the clipping norm follows the updates' norms"
    )
    clipping_norm: float = Field(1.0, gt=0, description="L2 norm of a device's change of adapter and head, at first")
    noise_multiplier: float = Field(1.0, gt=0, description="central: noise on the sum of updates, in clipping norms")
    target_quantile: float = Field(0.5, gt=0, lt=1, description="adaptive: share of updates that are not clipped")
    clip_learning_rate: float = Field(0.2, gt=0, description="adaptive: how fast the clipping norm follows")
    epsilon: float = Field(8.0, gt=0, le=500, description="local: what a device spends in one round")
    delta: float = Field(1e-5, gt=0, lt=0.5, description="probability that privacy does not hold")
    secure_aggregation: bool = Field(False, description="refused: see docs/privacy.md")


class MessageSpec(Section):
    """How adapters travel between server and devices (docs/messages.md)."""

    precision: Precision = Field(
        "fp32", description="bf16 or int8: adapters are rounded, both ways, and what rounding took away is sent later"
    )


class TaskSpec(Section):
    """All of the above: what a node needs to serve any device of a run."""

    seed: int = Field(ge=0, lt=2**31)
    devices: int = Field(ge=1)
    model: ModelSpec
    data: DataSpec
    adapter: AdapterSpec
    pruning: PruningSpec
    training: TrainingSpec
    engine: Literal["cohort", "sequential"] = "cohort"
    cohort_size: int = Field(1, ge=1, description="devices that are trained in one pass, the same on every node")
    device_examples: int = Field(0, ge=0, description="test examples for a device's own model; 0: all")
    generate: GenerationSpec = GenerationSpec()
    dtype: Literal["fp32", "bf16"] = "fp32"
    deterministic: bool = False
    privacy: PrivacySpec = PrivacySpec()
    message_mb: float = Field(1000.0, gt=0, description="what a device may be sent and send in one message")
    messages: MessageSpec = MessageSpec()
    labels: tuple[str, ...] | None = Field(
        None, description="names of the classes where devices have text of their own; None: the text tells"
    )
