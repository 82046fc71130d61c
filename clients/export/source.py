"""The source of an export in any format: base, structure and trained adapter."""

import json
from dataclasses import dataclass
from functools import cached_property

from transformers import PreTrainedModel

from slimfed.clients.adapter import Adapter
from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.export.label_only_encoder import can_be_lean
from slimfed.clients.export.manifest import Base, Manifest, Provenance, kept_indices, weights_digest
from slimfed.clients.export.slim_model import SlimModel
from slimfed.clients.export.vocabulary.trimming import Trimming, trimmed
from slimfed.clients.models.loading import LoadedModel
from slimfed.clients.pruning.adapter_slicing import narrow
from slimfed.clients.spec import AdapterSpec, DataSpec, ModelSpec
from slimfed.clients.structure import Structure


@dataclass(frozen=True)
class Source:
    """``adapter`` is in the coordinates of the base; ``figures``: measures of the run for the model card.

    ``weights``: the type that the weights are to be written in. ``trimming``: the tokens that are to stay; None: all.
    """

    base: LoadedModel
    spec: ModelSpec
    structure: Structure
    adapter: Adapter
    adapter_spec: AdapterSpec
    data: DataSpec
    prompted: bool
    provenance: Provenance
    figures: dict[str, str]
    base_digest: str
    weights: str = "fp32"
    trimming: Trimming | None = None

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest, without kind and files."""
        config = self.base.model.config
        return Manifest(
            kind="safetensors",
            task=self.spec.task,
            labels=self.base.labels,
            data=self.data,
            prompted=self.prompted,
            positions=self.base.positions,
            base=Base(
                path=self.spec.path,
                revision=self.spec.revision,
                model_type=config.model_type,
                sha256=self.base_digest,
                config=json.loads(config.to_json_string(use_diff=False)),
                origin=self.base.origin,
                precision=self.base.precision,
                quantization=self.spec.quantization,
            ),
            kept=kept_indices(self.structure),
            width=ADAPTERS[self.adapter_spec.name].width(self.adapter),
            head=self.base.head,
            weights=self.weights,
            lean=can_be_lean(self.base.model, self.spec.task),
            provenance=self.provenance,
        )

    @property
    def scaling(self) -> float:
        """alpha / r."""
        return self.adapter_spec.scaling

    @property
    def narrowed(self) -> Adapter:
        """The adapter in the shape of the structure."""
        return narrow(self.adapter, self.structure.blueprint.dense(), self.structure)

    def model(self) -> PreTrainedModel:
        """The sliced model with the adapter in it, as the run measured it; the base keeps its weights.

        Raises ``InputError`` for an adapter whose pruning is not decided yet.
        """
        method = ADAPTERS[self.adapter_spec.name]
        method.check_finished(self.narrowed)
        model = method.training.build(
            self.base.model, self.structure, method.finished(self.narrowed), self.adapter_spec
        )
        return model.eval()

    def slim(self) -> SlimModel:
        """The same, with what belongs to it, in the vocabulary that is asked for."""
        whole = SlimModel(self.model(), self.base.tokenizer, self.manifest)
        return whole if self.trimming is None else trimmed(whole, self.trimming)


def digest(base: LoadedModel) -> str:
    """The hash of a base's weights, its new head left out."""
    return weights_digest(base.model, base.head)
