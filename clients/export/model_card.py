"""The model card, README.md of an exported folder."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slimfed.clients.export.manifest import Manifest

_PIPELINES = {"classification": "text-classification", "causal-lm": "text-generation"}
_TAGS = ("slimfed", "federated-learning", "structured-pruning")


def card(
    manifest: "Manifest",
    figures: Mapping[str, str],
    opening: str,
    library: str = "transformers",
    *,
    whole: bool = True,
    example: str = "",
) -> str:
    """Markdown with the front matter that model hubs read.

    ``figures``: measures of the run, by name. ``opening``: Python that opens the folder. ``library``: what opens it, as
    hubs name it. ``whole``: False if the folder holds the adapter alone. ``example``: a section on the prompt's format.
    """
    base, source = manifest.base, manifest.provenance
    front = {
        "library_name": library,
        "pipeline_tag": _PIPELINES[manifest.task],
        "base_model": base.path,
        "tags": list(_TAGS),
    }
    lines = ["---", *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items()), "---", ""]
    lines += [f"# {source.name}: {source.subject} model", "", _summary(manifest, whole), ""]
    lines += ["```python", opening.strip(), "```", "", *([example] if example else [])]
    lines += ["| | |", "|---|---|"]
    facts = {
        "base": f"{base.path}" + (f" at {base.revision}" if base.revision else ""),
        **({"base's origin": base.origin} if base.origin else {}),
        "base's weights, SHA-256": f"`{base.sha256}`",
        "weights": f"{manifest.weights} (the base's: {base.precision})",
        **_quantization(manifest, whole),
        **_vocabulary(manifest),
        "task": manifest.task,
        "labels": ", ".join(manifest.labels or ()) or "-",
        "longest text": f"{manifest.data.max_length} tokens in training",
        "sparsity of this model": f"{source.sparsity:.1%} of the prunable parameters",
        "run": f"{source.run} ({source.method}, seed {source.seed}), after round {source.round}",
        "exported": source.created,
        "with": ", ".join(f"{name} {version}" for name, version in source.versions.items()),
    }
    lines += [f"| {name} | {_cell(value)} |" for name, value in {**facts, **figures}.items()]
    lines += ["", "The units that were kept, module by module, are in `slimfed.json`.", ""]
    return "\n".join(lines)


def _quantization(manifest: "Manifest", whole: bool) -> dict[str, str]:
    """How the base was held in training, and what that means for these weights."""
    kind = manifest.base.quantization
    if kind == "none":
        return {}
    held = f"{kind} in the linear modules of the blocks"
    if whole:
        return {"base in training": f"{held}; these weights are made of the dequantised ones"}
    return {"base in training": f"{held}; on the base's own weights the adapter is not what the run measured"}


def _vocabulary(manifest: "Manifest") -> dict[str, str]:
    """What is left of the tokens, and what that costs."""
    kept = manifest.vocabulary
    if kept is None:
        return {}
    lost = kept.losses
    facts = {"vocabulary": f"{len(kept.kept):,} of the base's {kept.before:,} tokens, chosen by {kept.chosen_by}"}
    if lost is None:
        return facts
    words = (
        f"{lost.changed:.1%} have other tokens, {lost.tokens_before:.1f} tokens a text became {lost.tokens_after:.1f}"
    )
    if lost.bits_per_byte_after is not None:
        words += f", {lost.bits_per_byte_before:.3f} bits a byte became {lost.bits_per_byte_after:.3f}"
    if lost.accuracy_before is not None and lost.accuracy_after is not None:
        words += f", accuracy {lost.accuracy_before:.1%} became {lost.accuracy_after:.1%}"
    return {**facts, f"what that costs, on {lost.texts} held-out texts": words}


def _summary(manifest: "Manifest", whole: bool) -> str:
    what = "its adapter folded into it" if whole else "its adapter alone, for the unpruned base"
    return (
        f"{manifest.base.path}, tuned by devices of a federation with slimfed, whole attention heads and FFN channels "
        f"removed; {what}."
    )


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
