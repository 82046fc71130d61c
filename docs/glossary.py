"""Writes glossary.md from slimfed's own texts: ``python docs/glossary.py``."""

from collections.abc import Mapping
from pathlib import Path

from slimfed.platform.glossary import FIGURES, PARTS, STATES


def page() -> str:
    """The page, in Markdown."""
    parts = [
        "# Glossary",
        "",
        "One word stands for one figure on pages, in the terminal and in reports. The dashboard shows these texts "
        "where a question mark stands beside a figure or a heading.",
    ]
    for title, terms in (("Figures", FIGURES), ("Rounds and devices", PARTS), ("States of a run", STATES)):
        parts += ["", f"## {title}", "", *_table(terms)]
    units = (
        "Shares are percentages with one decimal, changes of them are in percentage points. Durations have two units "
        "(15 min 40 s, 2 h 05 min), bytes are decimal (3.4 MB), `–` stands for a figure that is not known. `--json` "
        "has plain numbers: shares between 0 and 1, seconds, bytes, joules."
    )
    return "\n".join([*parts, "", "## Units", "", units, ""])


def _table(terms: Mapping[str, str]) -> list[str]:
    return ["| word | meaning |", "|---|---|", *(f"| {term} | {text} |" for term, text in terms.items())]


if __name__ == "__main__":
    Path(__file__).with_name("glossary.md").write_text(page(), encoding="utf-8")
