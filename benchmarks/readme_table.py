"""Tables of benchmarks/README.md that a script writes: each stands between two markers that carry its name."""

from pathlib import Path

README = Path(__file__).with_name("README.md")


def put(name: str, table: str, readme: Path = README) -> None:
    """Replace what stands between ``<!-- name -->`` and ``<!-- /name -->``. Raises ``ValueError`` without markers."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    text = readme.read_text(encoding="utf-8")
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{readme} has no place for a table: {begin} ... {end}")
    readme.write_text(f"{before}{begin}\n{table.strip()}\n{end}{after}", encoding="utf-8")
