"""Activation checkpointing: a layer keeps its input alone, and is computed again when its gradient is due."""

from transformers import PreTrainedModel


def recompute_layers(model: PreTrainedModel) -> None:
    """Make every layer of ``model`` do so while it trains, in place (Chen et al., arXiv 1604.06174; PyTorch's own).

    What comes out is the same; a training step costs one more pass through the layers.
    """
    model.activation_checkpointing_enable()
    model.disable_input_require_grads()  # meant for another way to checkpoint; here it costs a gradient nobody reads
    model.config.use_cache = False  # a layer that runs twice would fill a cache twice
