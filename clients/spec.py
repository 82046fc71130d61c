"""The sections of the job file that a device reads.

The platform's job file is composed of the same models, so every field has one name, one default and one check on all
floors. All models are immutable. They are sent as JSON inside one Flower ``ConfigRecord``.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Precision = Literal["fp32", "bf16", "int8"]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class Section(BaseModel):
    """Base class of the sections of a job file: frozen, and unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSpec(Section):
    """The pre-trained model and the task that it is tuned for."""

    path: str = Field(
        "builtin:tiny-encoder",
        description="builtin:NAME, a hub id, a folder written by save_pretrained, a .gguf file of a decoder, a "
        "folder with a PEFT adapter, which is merged into its base, or run:ID, the global model that a run has reached",
    )
    parent: str | None = Field(
        None, description="the run that model.path was reached by; slimfed fills it in where path is run:ID"
    )
    base: str | None = Field(
        None, description="PEFT adapter: the base, as path; default: the one that its adapter_config.json names"
    )
    revision: str | None = Field(None, description="hub revision (branch, tag or commit)")
    task: Literal["classification", "causal-lm"] = "classification"
    quantization: Literal["none", "int8", "nf4"] = Field(
        "none",
        description="form in which devices hold the frozen linear modules of the blocks: int8: a byte a weight; nf4: "
        "4 bits and a scale for every 64 weights; dequantised for each product",
    )


class PartitionSpec(Section):
    """How the training split is divided among the devices (flwr-datasets partitioners)."""

    kind: Literal["iid", "dirichlet", "shards", "natural"] = "iid"
    alpha: float = Field(
        1.0, gt=0, description="dirichlet: concentration; small values give devices unequal label distributions"
    )
    shards_per_device: int = Field(2, ge=1, description="shards: number of label-sorted shards for each device")
    column: str = Field("user", description="natural: column with the owner of a row")


class DataSpec(Section):
    """The text to learn, and its division among the devices."""

    path: str = Field(
        "builtin:commands", description="builtin:NAME, a hub id, one file, or a folder with train/test files"
    )
    test_share: float | None = Field(
        None,
        gt=0.0,
        lt=1.0,
        description="share of the rows that are held out as test split, drawn by the seed (of a natural partition: "
        "whole owners), where there is no test file; default: 0.1 of one file",
    )
    validation: Literal["auto", "use", "off"] = Field(
        "auto",
        description="use: rounds are evaluated on the folder's validation file, and the test file is read after the "
        "last round alone; auto: use if there is such a file",
    )
    text: str = Field("text", description="column of the text (classification, or causal-lm on plain text)")
    label: str = Field("label", description="classification: column of the label, text or integer")
    prompt: str | None = Field(None, description="causal-lm: column of the prompt, not counted in the loss")
    completion: str | None = Field(None, description="causal-lm: column of the completion to learn")
    messages: str | None = Field(
        None,
        description="causal-lm: column of conversations, lists of turns with role and content; what the assistant says "
        "is learnt",
    )
    choices: str | None = Field(
        None,
        description="multiple choice, causal-lm with data.prompt as the question: column of the choices, a list of "
        "texts; the right one is learnt",
    )
    answer: str = Field(
        "answer",
        description="multiple choice: column of the right one: its number from 0, its letter from A, or its text",
    )
    system: str = Field(
        "", description="with a chat template: system message of every conversation that has none of its own"
    )
    template: Literal["auto", "none", "tokenizer", "chatml"] = Field(
        "auto",
        description="chat template: tokenizer: the tokenizer's own; chatml: ChatML; none: prompt, line break and "
        "completion; auto: tokenizer for messages, none for prompts",
    )
    max_length: int = Field(64, ge=4, description="largest number of tokens; longer texts are truncated")
    delimiter: str = Field(",", description="one character that separates the cells of .csv files, such as ;")
    empty: Literal["refuse", "drop"] = Field(
        "refuse",
        description="rows whose text, label, prompt, completion or owner is empty: end the run, or are left out",
    )
    partition: PartitionSpec = PartitionSpec()

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, delimiter: str) -> str:
        if len(delimiter) != 1 or delimiter in '"\r\n':
            raise ValueError('must be one character, and neither a quote nor the end of a line; for tabs, "\\t"')
        return delimiter

    @model_validator(mode="after")
    def _pair(self) -> "DataSpec":
        if self.choices is not None:
            if self.prompt is None or self.completion is not None or self.template not in ("auto", "none"):
                raise ValueError("data.choices: needs data.prompt, and neither data.completion nor data.template")
        elif (self.prompt is None) != (self.completion is None):
            raise ValueError("data.prompt and data.completion must be given together")
        if self.messages is not None and self.prompt is not None:
            raise ValueError("data.messages and data.prompt: give one of them")
        if self.messages is not None and self.template == "none":
            raise ValueError('data.template = "none": data.messages are written by a template; use "auto" or "chatml"')
        if self.system and self.messages is None and self.template in ("auto", "none"):
            raise ValueError('data.system: needs data.messages, or data.template = "tokenizer" or "chatml"')
        return self


class AdapterOptions(Section):
    """Options of the adapter that ``method.adapter`` names."""

    scaling: float = Field(
        2.0, gt=0, description="alpha / r of LoRA, equal for all ranks so that factors can be averaged"
    )
    rslora: bool = Field(
        False,
        description="lora, sora: alpha / sqrt(r) in place of alpha / r (rsLoRA); r is the largest of bandit.ranks, so "
        "that scaling is equal for all ranks",
    )
    lora_plus: float = Field(
        1.0, gt=0, description="lora, sora: learning rate of factor B over that of the rest (LoRA+); 1: the same"
    )
    targets: Literal["all-linear", "attention", "ffn"] | tuple[str, ...] = Field(
        "all-linear",
        description="lora, sora: modules that carry an adapter, or a list of names as PEFT's target_modules has them, "
        "such as q_proj; all-linear: all that can be pruned",
    )
    dropout: float = Field(0.0, ge=0.0, lt=1.0, description="dropout probability before factor A, while training")
    threshold: float = Field(
        3.0,
        ge=0.0,
        description="sora: soft threshold of the gates after a step, in learning rates; rises from 0 over the rounds",
    )
    threshold_follows: Literal["rate", "nothing"] = Field(
        "rate",
        description="sora: the threshold's learning rate: rate: that of the step, which training.schedule lowers; "
        "nothing: training.learning_rate",
    )
    milestone: float = Field(
        0.33,
        gt=0.0,
        le=1.0,
        description="pat: share of the run after which the server decides on the width; the rest recovers",
    )
    keep_ranks: float = Field(
        1.0,
        gt=0.0,
        le=1.0,
        description="lora, HetLoRA's gamma: share of its ranks that a device keeps if the others have shrunk; 1: all",
    )
    tail_penalty: float = Field(
        0.0, ge=0.0, description="lora, HetLoRA's mu: weight of the norm of the ranks beyond keep_ranks in the loss"
    )

    @model_validator(mode="after")
    def _targets_are_named(self) -> "AdapterOptions":
        if not self.targets:
            raise ValueError("targets: must name at least one module")
        return self

    @model_validator(mode="after")
    def _a_penalty_has_a_tail(self) -> "AdapterOptions":
        if self.tail_penalty > 0 and self.keep_ranks == 1:
            raise ValueError("tail_penalty weighs the ranks beyond keep_ranks, which must be below 1 for that")
        return self


class AdapterSpec(AdapterOptions):
    """The adapter that every device trains. ``target_sparsity`` is for adapters that prune by themselves (``pat``)."""

    name: str = "lora"
    target_sparsity: Fraction = 0.0
    least_rank: int = Field(1, ge=1, description="smallest number of ranks that a device keeps")


class PruningOptions(Section):
    """How units (attention heads and FFN channels) are scored and removed."""

    scope: Literal["layer", "balanced", "global", "uniform"] = Field(
        "layer",
        description="layer: rank units within each layer; global: over all layers; balanced: as global, but the "
        "layers' heads differ by one at most, and a layer keeps at least half of its share of the channels; uniform: "
        "as layer, with channels rounded to a multiple of 8, 16 or 128",
    )
    smoothing: float = Field(0.9, ge=0.0, lt=1.0, description="weight of past steps in the moving average of scores")
    prior_weight: float = Field(
        0.5, ge=0.0, le=1.0, description="weight of the fleet's scores in a device's ranking of units"
    )
    events: int = Field(1, ge=1, description="prune events within one round; training continues after each")
    fit_memory: bool = Field(
        True,
        description="a simulated device whose memory does not hold training of the dense model trains a smaller "
        "structure from the first round on; false: it runs out of memory until it is pruned enough",
    )
    until: float = Field(
        0.6,
        gt=0.0,
        le=1.0,
        description="share of the rounds by which the target sparsity is reached; default with text of your own: that "
        "of 6 rounds",
    )
    schedule: Literal["bandit", "cubic", "one-shot"] = Field(
        "bandit",
        description="bandit: every device's agent chooses the pruning step; cubic: Zhu and Gupta's schedule; "
        "one-shot: all pruning in the first round",
    )
    structure: Literal["own", "shared"] = Field(
        "own",
        description="own: every device ranks and removes its own units; shared: the server removes the same "
        "units for all devices, by their summed scores (needs schedule cubic or one-shot)",
    )
    allocation: str = Field(
        "equal",
        description="name of an allocation, by which a shared structure becomes unequally sparse; equal: as scope says",
    )
    allocation_cap: Fraction = Field(
        0.8, description="largest sparsity of a block, unless allocation = 'equal'; every block keeps a unit"
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
    """Pruning as a device reads it: the importance criterion and the options."""

    importance: str = Field("lora-gradient", description="name in the importance registry")
    target_sparsity: Fraction | None = Field(None, description="sparsity that the run ends at, if it is known")


class CalibrationSpec(Section):
    """The pass over text that layer shares are measured in (``pruning.allocation``)."""

    source: Literal["devices", "server"] = Field(
        "devices",
        description="devices: some devices of a round measure on text of their own, and send one number for each "
        "block; server: on its own text, before round 1: real devices' server on its training file, a simulation on "
        "its validation file",
    )
    devices: int = Field(16, ge=1, description="devices that measure, a seeded sample of those of the round")
    tokens: int = Field(4096, ge=1, description="tokens of text that a device, or the server, measures on at most")


class TrainingSpec(Section):
    """Local training: AdamW on the adapter and the task head."""

    rounds: int = Field(
        20, ge=1, description="rounds of the run; default with text of your own: 3 passes over it, 20 to 100 rounds"
    )
    local_steps: int = Field(20, ge=1, description="optimiser steps of a device in a round")
    batch_size: int = Field(8, ge=1, description="texts in a batch")
    learning_rate: float = Field(
        2e-3,
        gt=0,
        description="learning rate of AdamW, before decay; default with text of your own: by the width of the model",
    )
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "linear", description="decay of the learning rate over the rounds of the run"
    )
    weight_decay: float = Field(0.0, ge=0, description="weight decay of AdamW")
    max_grad_norm: float = Field(1.0, gt=0, description="L2 norm to which gradients are clipped")
    recovery: Literal["plain", "squarehead"] = Field(
        "plain",
        description="squarehead: adds the distance of every layer's states from those of the teacher to the loss",
    )
    kl: float = Field(
        0.0,
        ge=0,
        description="weight in the loss of the Kullback-Leibler divergence of the device's predictions from the "
        "teacher's; 0: off",
    )
    teacher: str = Field(
        "base",
        description="what recovery and kl hold devices to: base: the base as it came; run:ID: the global model that a "
        "run on the same base and text has reached, best an unpruned one",
    )
    checkpointing: bool = Field(
        False,
        description="true: keep only the inputs of layers, and compute each layer again for its gradient; less memory, "
        "more time",
    )
    proximal: float = Field(
        0.0, ge=0, description="FedProx's mu: adds mu/2 |w - w_sent|^2 over all trained parameters to the loss; 0: off"
    )

    @property
    def taught(self) -> bool:
        """True if devices are held to a teacher."""
        return self.recovery == "squarehead" or self.kl > 0

    @model_validator(mode="after")
    def _a_teacher_teaches(self) -> "TrainingSpec":
        if self.teacher != "base" and not self.taught:
            raise ValueError(
                "teacher: nothing is held to it; set recovery = 'squarehead' or kl above 0, or leave it out"
            )
        return self


class GenerationSpec(Section):
    """Completions that the global model generates when it is evaluated (causal-lm with prompts)."""

    examples: int = Field(
        100, ge=0, description="number of prompts of the test split to complete, a seeded sample; 0: none"
    )
    max_new_tokens: int = Field(64, ge=1, description="longest completion in tokens (greedy decoding)")
    every: int = Field(
        0,
        ge=0,
        description="evaluated rounds whose number it divides complete prompts, round 0 included; 0: the last round "
        "alone, as writing takes most of the time of an evaluation",
    )


class PrivacySpec(Section):
    """Differential privacy of the devices' text, with a device as the unit (docs/privacy.md)."""

    kind: Literal["none", "central", "local"] = Field(
        "none",
        description="central: the trusted server clips updates and adds noise to their mean; "
        "local: every device clips its own update and adds noise to it",
    )
    clipping: Literal["fixed", "adaptive"] = Field(
        "fixed", description="central: adaptive lets the clipping norm follow the updates' norms"
    )
    clipping_norm: float = Field(
        1.0, gt=0, description="L2 norm to which a device's change is clipped; adaptive: at first"
    )
    noise_multiplier: float = Field(
        1.0, gt=0, description="central: standard deviation of the noise on the sum of updates, in clipping norms"
    )
    target_quantile: float = Field(0.5, gt=0, lt=1, description="adaptive: share of updates that are not clipped")
    clip_learning_rate: float = Field(0.2, gt=0, description="adaptive: learning rate of the clipping norm")
    epsilon: float = Field(8.0, gt=0, le=500, description="local: epsilon that a device spends in one round")
    delta: float = Field(1e-5, gt=0, lt=0.5, description="delta of (epsilon, delta) differential privacy")
    secure_aggregation: bool = Field(False, description="true is refused; docs/privacy.md gives the reasons")


class MessageSpec(Section):
    """The encoding of adapters in messages between server and devices (docs/messages.md)."""

    precision: Precision = Field(
        "fp32",
        description="bf16 or int8: adapters are rounded both ways, and the rounding error is added to the next message",
    )


class TaskSpec(Section):
    """Everything a node needs to serve any device of a run."""

    seed: int = Field(ge=0, lt=2**31)
    devices: int = Field(ge=1)
    model: ModelSpec
    data: DataSpec
    adapter: AdapterSpec
    pruning: PruningSpec
    training: TrainingSpec
    calibration: CalibrationSpec = CalibrationSpec()
    engine: Literal["cohort", "sequential"] = "cohort"
    cohort_size: int = Field(1, ge=1, description="devices that are trained in one pass, equal on every node")
    device_examples: int = Field(0, ge=0, description="test examples for a device's own model; 0: all")
    generate: GenerationSpec = GenerationSpec()
    dtype: Literal["fp32", "bf16"] = "fp32"
    deterministic: bool = False
    privacy: PrivacySpec = PrivacySpec()
    message_mb: float = Field(1000.0, gt=0, description="largest message in MB for each device, in either direction")
    messages: MessageSpec = MessageSpec()
    inputs: str = Field("", description="one SHA-256 of the files of text and model; empty: they are not checked")
    labels: tuple[str, ...] | None = Field(
        None, description="names of the classes, if devices have their own text; None: read from the text"
    )
