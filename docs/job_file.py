"""Write docs/job-file.md from the models of the job file: `python docs/job_file.py`. A test compares the two."""

from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from slimfed.platform.job.job import Job, demo_document, job_to_toml, load_job

_HEAD = """# The job file

A job file is TOML. Every field has a default. A field that is left out has the value that the preset `method.name`
sets, or else its default. `--set SECTION.FIELD=VALUE` overrides any field on the command line. Relative paths start at
the job file's folder. Unknown fields and sections and invalid values are refused by name before anything starts (exit
code 2).

This page is generated from the code by `python docs/job_file.py`.
"""


def page() -> str:
    """The page as Markdown."""
    sections = [_table("", Job)]
    for name, field in Job.model_fields.items():
        if _is_section(field):
            sections.append(f"## [{name}]\n\n{_doc(field.annotation)}\n\n{_table(name, field.annotation)}")
    demo = f"## The built-in job\n\n`slimfed run` without a file runs this (seed {demo_document()['seed']}):\n"
    return "\n".join([_HEAD, *sections, demo, f"```toml\n{job_to_toml(load_job()).strip()}\n```", ""])


def _table(section: str, model: Any) -> str:
    rows = ["| field | default | meaning |", "|---|---|---|"]
    rows += _rows(section, model, "")
    return "\n".join(rows) + "\n"


def _rows(section: str, model: Any, prefix: str) -> list[str]:
    rows = []
    for name, field in model.model_fields.items():
        if section and _is_section(field):
            rows += _rows(section, field.annotation, f"{prefix}{name}.")
        elif not _is_section(field):
            rows.append(f"| `{prefix}{name}` | {_default(field)} | {_meaning(field)} |")
    return rows


def _default(field: FieldInfo) -> str:
    if field.default is None:
        return "none"
    value = list(field.default) if isinstance(field.default, tuple) else field.default
    return f"`{value!r}`".replace("'", '"').replace("True", "true").replace("False", "false")


def _meaning(field: FieldInfo) -> str:
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    named = "one of " + ", ".join(f"`{choice}`" for choice in choices) if choices else ""
    parts = [(field.description or "").replace("|", r"\|"), named]
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    limits = [
        f"{word} {getattr(limit, name)}"
        for limit in field.metadata
        for name, word in words.items()
        if hasattr(limit, name)
    ]
    return "; ".join(part for part in [*parts, ", ".join(limits)] if part)


def _doc(model: Any) -> str:
    return " ".join((model.__doc__ or "").split()).replace("``", "`")


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


if __name__ == "__main__":
    Path(__file__).with_name("job-file.md").write_text(page(), encoding="utf-8")
