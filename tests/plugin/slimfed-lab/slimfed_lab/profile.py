"""The boards on the lab's bench."""

from pathlib import Path

from slimfed.platform.fleet.profiles import ProfileFile

LAB_BENCH = ProfileFile(Path(__file__).with_name("lab-bench.toml"))
