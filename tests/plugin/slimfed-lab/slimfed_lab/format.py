"""Exports as a NumPy archive."""

from pathlib import Path
from typing import TYPE_CHECKING

from slimfed.clients.export.formats.registry import WholeModel

if TYPE_CHECKING:
    from slimfed.clients.export.manifest import Manifest
    from slimfed.clients.export.slim_model import SlimModel


class Npz(WholeModel):
    """All weights of the smaller model in one NumPy archive."""

    kind = "npz"
    library = "numpy"
    opening = """
import numpy

weights = numpy.load("FOLDER/weights.npz")
"""

    def save(self, slim: "SlimModel", folder: Path, card: str) -> "Manifest":
        """Make ``folder`` with the archive, the model card and the manifest, which names every file with its hash."""
        import numpy as np

        from slimfed.clients.export import manifest as manifests
        from slimfed.clients.export.atomic_folder import whole_folder

        with whole_folder(folder) as aside:  # appears when it is complete, or not at all
            np.savez(aside / "weights.npz", **{name: p.detach().numpy() for name, p in slim.model.named_parameters()})
            (aside / manifests.CARD).write_text(card, encoding="utf-8")
            return manifests.write(aside, slim.manifest.model_copy(update={"kind": self.kind}))
