"""What stays light to import: commands that list and pages that show should not wait for what trains."""

import subprocess
import sys
from pathlib import Path

import pytest
from round_records import device_record, round_record

from slimfed.platform.job.job import job_to_dict, load_job
from slimfed.platform.store.writer import Store

HEAVY = ("torch", "transformers", "ray", "datasets", "peft")

LIGHT = (
    "slimfed",
    "slimfed.platform.job.job",
    "slimfed.platform.job.presets",
    "slimfed.platform.store.writer",
    "slimfed.platform.store.rows",
    "slimfed.platform.store.reader",
    "slimfed.platform.store.dashboard_reader",
    "slimfed.platform.fleet.profiles",
    "slimfed.platform.comparison.report",
    "slimfed.platform.sweep",
    "slimfed.platform.cli",
    "slimfed.platform.cli.listing",
    "slimfed.platform.cli.catalogue",
    "slimfed.platform.launch.launcher",
    "slimfed.platform.launch.run_creation",
    "slimfed.platform.launch.queueing",
    "slimfed.platform.launch.resuming",
    "slimfed.platform.under_way",
    "slimfed.clients.models.location",
    "slimfed.platform.api.runs",
    "slimfed.platform.api.results",
    "slimfed.platform.api.store",
    "slimfed.clients.messages.size_limit",
    "slimfed.clients.messages.quantization",
    "slimfed.clients.registry",
    "slimfed.strategies.bandits",
    "slimfed.strategies.aggregation",
    "slimfed.strategies.settings",
    "slimfed.strategies.protocols",
    "slimfed.dashboard.views.runs",
    "slimfed.dashboard.views.run",
    "slimfed.dashboard.views.compare",
    "slimfed.dashboard.views.launch",
    "slimfed.dashboard.views.fleet",
)


@pytest.fixture(scope="module")
def imported() -> dict[str, str]:
    """For every light module the heavy ones that came with it, each in an interpreter of its own."""
    code = (
        "import importlib, os, sys\n"
        "for name in sys.argv[1].split():\n"
        "    if (child := os.fork()) == 0:\n"
        "        importlib.import_module(name)\n"
        f"        found = [heavy for heavy in {HEAVY} if heavy in sys.modules]\n"
        "        os.write(1, f'{name}:{\",\".join(found)}\\n'.encode()); os._exit(0)\n"
        "    os.waitpid(child, 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, " ".join(LIGHT)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return dict(line.split(":") for line in done.stdout.splitlines())


@pytest.mark.parametrize("module", LIGHT)
def test_importing_it_imports_nothing_that_trains(imported: dict[str, str], module: str) -> None:
    assert imported.get(module) == ""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a run that is done and one that goes on."""
    place = tmp_path_factory.mktemp("home")
    with Store.open("sqlite", place) as store:
        for run_id in ("20260101-000000-aaa", "20260102-000000-bbb"):
            store.create_run(run_id, job_to_dict(load_job(None, ["fleet.devices=2"])), place / run_id)
            store.mark_running(run_id)
            store.record_round(run_id, round_record(1, (device_record(0, 1), device_record(1, 1))))
        store.finish("20260101-000000-aaa", "done")
    return place


@pytest.mark.parametrize(
    "command",
    [
        ["--help"],
        ["runs"],
        ["runs", "--json"],
        ["show", "last"],
        ["show", "20260101", "--json"],
        ["compare", "20260101", "20260102", "--json"],
        ["watch", "20260101"],
        ["stop", "20260101"],
        ["methods"],
        ["fleet"],
        ["fleet", "jetson-80"],
        ["db", "upgrade"],
    ],
    ids=" ".join,
)
def test_a_command_that_lists_imports_nothing_that_trains(command: list[str], home: Path) -> None:
    code = (
        "import sys; from slimfed.platform.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        f"print('HEAVY', [name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=home,
        env={"PATH": "/usr/bin:/bin", "SLIMFED_HOME": str(home)},
    )
    assert done.stdout.splitlines()[-1:] == ["HEAVY []"], done.stderr
