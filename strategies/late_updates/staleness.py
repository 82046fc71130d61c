"""A late update: the change that a device made, and how much of it counts in a later round.

As in FedBuff (Nguyen et al., arXiv 2106.06639), what counts of a device is its change D = x - G, with G the adapter
that it was sent and x what it made of it. A round that counts it s rounds later, and whose own devices were sent G',
takes it as the update of a device that came to x' = G' + w(s) D. So an aggregation, which averages values x over their
owners, adds the weighted mean of the changes to G', each on the coordinates that its device had::

    G'(c) + sum_{k in K(c)} n_k w(s_k) D_k(c) / sum_{k in K(c)} n_k

The factor is on the change alone: as in FedBuff, stale updates make the step smaller. Weights by examples n_k are ours.
"""

import numpy as np

from slimfed.clients.adapter import Adapter
from slimfed.clients.pruning.adapter_slicing import narrow
from slimfed.clients.update import Report, Update
from slimfed.strategies.server.spec import Staleness


def staleness_weight(kind: Staleness, rounds: int) -> float:
    """Factor w on the change of an update that comes ``rounds`` late: 1 / sqrt(1 + rounds), or 1; 1 if not late."""
    return 1.0 if kind == "constant" else (1.0 + rounds) ** -0.5


def own_part(adapter: Adapter, report: Report) -> Adapter:
    """The part of a global ``adapter`` that the device of ``report`` had at the end of its work, in its own shape."""
    part = narrow(adapter, report.structure.blueprint.dense(), report.structure, report.rank)
    report.structure.forget()
    return part


def change_of(update: Update, sent: Adapter) -> Adapter:
    """What a device has changed in the global adapter that was ``sent``, in the update's own shape."""
    part = own_part(sent, update.report)
    return part.with_vector(update.adapter.vector - part.vector)


def carried_over(report: Report, change: Adapter, scores: np.ndarray, sent: Adapter, weight: float) -> Update:
    """The update of a device that has changed by ``weight`` times ``change`` the global adapter that is ``sent`` now.

    ``scores``: float32 [units], as they came.
    """
    part = own_part(sent, report)
    return Update(report, part.with_vector(part.vector + np.float32(weight) * change.vector), scores)
