"""What the figures of a run mean: the help on pages and the page docs/glossary.md are made of these texts.

One word stands for one figure on pages, in the terminal and in reports.
"""

FIGURES = {
    "Accuracy": (
        "Share of the test texts that the pruned global model labels rightly; of a language model, share of "
        "next tokens. Before the last round it may be an estimate on a sample of the test texts."
    ),
    "Devices' accuracy": (
        "Mean accuracy of the devices' own pruned models on the test split: of the devices that took part in "
        "the round, all in the last one, a sample before."
    ),
    "Loss": (
        "Mean loss on the test texts in nats: the global model's. The training loss is that of the devices on"
        " their own text. Lower is better."
    ),
    "Perplexity": "e to the power of the loss of a language model: 1 if it foresees every token. Lower is better.",
    "Bits a byte": "Loss of a language model for each byte of the text, which compares models of unequal vocabularies. "
    "Lower is better.",
    "Macro-F1": "Mean over the classes of the F1 score, which counts rare classes as much as frequent ones.",
    "Calibration error": "Mean distance between the confidence of the answers and the share of them that is right.",
    "Exact match": "Share of written texts that equal one of their references.",
    "ROUGE-L": "Overlap of written texts with their references by the longest common subsequence of words.",
    "BLEU": "Overlap of written texts with their references in runs of one to four words.",
    "Sparsity": (
        "Share of the prunable parameters that is removed from the global model, which `slimfed export` writes."
    ),
    "Devices' sparsity": (
        "The same for the devices' own models, mean over all devices of the fleet, also those that did not take "
        "part. It can differ from that of the global model."
    ),
    "Target sparsity": (
        "The share of prunable parameters that every device's model has lost at the end, as the job asks. Where "
        "a round asks a part of the fleet, devices that were not asked late in the run have lost less."
    ),
    "Virtual time": (
        "Time of all rounds on the fleet's devices by their profiles. A round lasts as long as the slowest "
        "device that takes part, unless the job closes rounds before; waiting until a device is available counts, too."
    ),
    "Wall time": "Real time of all rounds on the computer that runs them.",
    "Received": "Bytes from the devices to the server, in all rounds.",
    "Sent": "Bytes from the server to the devices, in all rounds.",
    "Traffic": "Bytes in both directions: sent and received.",
    "Energy": "Estimated energy of all devices, waiting for the slowest included.",
    "Peak memory": "The most memory that training needed on one device.",
    "Rejected": "Updates that the server refused because they could not be right; the events have the causes.",
    "Privacy spent": (
        "The epsilon of differential privacy so far, at the job's delta, of the device that was asked most often."
    ),
}
"""Figures of a run, in the order in which they are read."""

PARTS = {
    "Round": (
        "The server sends the adapter to the devices, they train it on their own text, and the server "
        "combines their updates."
    ),
    "Device": "An owner of text that takes part in the training: simulated, or a real one.",
    "Took part": (
        "Devices that a round asked to train, of all devices of the fleet: all of them unless the job asks a part "
        "(fleet.participation), or not all are available. A device that was asked and sent no usable update took part."
    ),
    "Available": "Devices that a round could have asked: they fit the job's filter and are there when it begins.",
    "Late": (
        "Updates that count in a round, and that an earlier round asked for (server.mode). What counts of a late one "
        "is the change that its device has made."
    ),
    "Staleness": "How many rounds late the updates of a round are: their mean, with 0 for those that came in time.",
    "In flight": "Updates that had not arrived when a round closed. They count in the round in which they arrive.",
    "Selection": "The rule by which a round chooses devices of those that are available.",
    "Class": "Devices of one kind, such as jetson-tx2, with the same figures of speed, memory and network.",
    "Rank": "Rows of each factor of a device's adapter: more rows learn more, and cost more.",
    "Local steps": "Optimiser steps of a device in a round.",
    "Pruning step": "Share of a device's remaining structure that is removed in a round.",
    "Reward": "What the agent learns from, between 0 and 1: how much a device's choice helped for the time it took.",
    "Completion": "Time of a device's part of a round: download, compute and upload.",
}
"""Parts of a run, and what they are told by."""

STATES = {
    "queued": "The run waits until no other run is running on this computer.",
    "preparing": "Text and model are opened and checked, and the nodes are started.",
    "running": "Rounds are computed.",
    "stopping": "The run was asked to stop: the round under way is abandoned.",
    "done": "All rounds are finished.",
    "failed": "The run ended with an error. It can be resumed after its last finished round.",
    "stopped": "Somebody stopped the run. It can be resumed after its last finished round.",
}
"""States of a run."""


def meaning(term: str) -> str:
    """What a term means. Raises ``KeyError`` for one that the glossary does not have."""
    return {**FIGURES, **PARTS, **STATES}[term]
