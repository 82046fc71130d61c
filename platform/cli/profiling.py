"""The time profile of a run, as ``run --profile`` prints it."""

from pathlib import Path
from typing import Any

from slimfed.platform.cli.output import print_table, results

_COLUMNS = {"where": "where", "phase": "phase", "seconds": "seconds>", "share": "share>"}


def profile_of(folder: Path) -> dict[str, Any] | None:
    """Seconds of a round by phase for the run in ``folder``, as JSON values; None if it recorded no round."""
    import torch

    from slimfed.clients.training.calibration import matrix_rate
    from slimfed.platform.home import RunFolder
    from slimfed.platform.job.job import load_job
    from slimfed.platform.server.round_timing import read

    run = RunFolder(folder)
    found = read(run.profile)
    if found is None:
        return None
    dtype = torch.bfloat16 if load_job(run.job).dtype == "bf16" else torch.float32
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return found.as_dict(matrix_rate(dtype, device))


def print_profile(profile: dict[str, Any]) -> None:
    """Print a table of the phases, and the speed of the training steps below it."""
    rows = []
    for where, whole in (("server", profile["wall_seconds"]), ("nodes", sum(profile["nodes"].values()))):
        for phase, seconds in profile[where].items():
            share = f"{100 * seconds / whole:.0f}%" if whole else "-"
            rows.append({"where": where, "phase": phase, "seconds": f"{seconds:.3f}", "share": share})
    print_table(f"A round: {profile['wall_seconds']:.2f} s (median of {profile['rounds']})", _COLUMNS, rows)
    results().print(
        f"training steps: {profile['flops'] / 1e9:.1f} GFLOP a round, {profile['rate'] / 1e9:.1f} GFLOP/s a worker, "
        f"{100 * profile['share_of_peak']:.0f}% of the {profile['peak_rate'] / 1e9:.0f} that a matrix product reaches"
    )
