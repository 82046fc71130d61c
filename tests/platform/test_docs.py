"""The pages on the job file and on words are made from the code, and not behind it."""

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_job_file_page_is_up_to_date() -> None:
    page = runpy.run_path(str(DOCS / "job_file.py"))["page"]()
    assert (DOCS / "job-file.md").read_text(encoding="utf-8") == page, "run `python docs/job_file.py`"


def test_the_glossary_is_up_to_date() -> None:
    page = runpy.run_path(str(DOCS / "glossary.py"))["page"]()
    assert (DOCS / "glossary.md").read_text(encoding="utf-8") == page, "run `python docs/glossary.py`"
