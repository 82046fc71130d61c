"""The report as HTML: one file without scripts, and without anything that is fetched."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

import tomli_w

from slimfed.clients.plain_text import clean, clean_lines
from slimfed.platform.format import energy, percent, plural, points_between, ratio, seconds, size
from slimfed.platform.glossary import meaning
from slimfed.platform.job.presets import PRESETS
from slimfed.platform.report import figures
from slimfed.platform.report.content import Content, mean_and_deviation
from slimfed.platform.standing import REFERENCE_WORDS
from slimfed.platform.summary import perplexity

_CSS = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1c1e21; background: #fff; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; }
p { margin: .4rem 0; } .quiet { color: #5a6068; font-size: .9rem; } .verdict { font-size: 1.15rem; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .9rem; } th, td { text-align: left; padding: .25rem .9rem .25rem 0;
  border-bottom: 1px solid #e3e5e8; vertical-align: top; overflow-wrap: break-word; }
.figures td:nth-child(-n+2) { white-space: nowrap; } td.n, th.n { text-align: right; }
.wide { overflow-x: auto; } figure { margin: 0; } figcaption { font-size: .85rem; color: #5a6068; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1.2rem; }
svg { width: 100%; height: auto; } pre { background: #f6f7f8; padding: .8rem; overflow-x: auto; font-size: .8rem; }
details summary { cursor: pointer; } .sample { border-left: 3px solid #0072B2; padding-left: .8rem; margin: .9rem 0; }
.sample pre { background: none; padding: 0; margin: 0; white-space: pre-wrap; font: inherit; }
@media print { details { display: block; } body { margin: 0; } }
"""


def page(content: Content) -> str:
    """The whole document."""
    run = content.run
    sections = (
        _head(content),
        _figures(content),
        _curves(content),
        _judged(content),
        _method(content),
        _data(content),
        _devices(content),
        _structure(content),
        _samples(content),
        _events(content),
        _reproduce(content),
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(run.name)} · slimfed report</title><style>{_CSS}</style></head><body>\n"
        + "\n".join(section for section in sections if section)
        + "\n</body></html>\n"
    )


def _head(content: Content) -> str:
    run = content.run
    finished = run.finished_at or run.heartbeat_at
    state = {"done": "finished", "failed": "failed", "stopped": "was stopped"}.get(run.status, "had not ended")
    ended = f" The run {state} after round {run.rounds_done} of {run.rounds}"
    when = f" on {finished:%Y-%m-%d %H:%M} UTC." if finished else "."
    cause = f" Cause: {_text(run.cause)}." if run.cause and run.status == "failed" else ""
    notes = f"<p>{_text(run.notes)}</p>" if run.notes else ""
    return (
        f'<h1>{_text(run.name)}</h1><p class="quiet">Run {_text(run.id)}, {_text(run.task)}, seed {run.seed}.'
        f'{ended}{when}{cause}</p><p class="verdict">{_text(_verdict(content))}</p>{notes}'
    )


def _verdict(content: Content) -> str:
    """What came out, in a sentence."""
    run = content.run
    if not run.rounds_done:
        return "No round has finished."
    sparsity = percent(content.global_sparsity)
    if run.task == "causal-lm" and run.accuracy_normalised is None:
        found = f"Perplexity {ratio(perplexity(run.task, run.loss))}"
        base = next((row.loss for row in content.evaluations if row.round == 0), None)
        beside = "" if base is None else f" ({ratio(perplexity(run.task, base))} before training)"
    else:
        found, beside = f"Accuracy {percent(run.accuracy)}", ""
        if content.standing.beside:
            beside = f": {content.standing.beside} (points)"
    split = "validation" if run.evaluated_on == "validation" else "test"
    on = f" on {run.examples:,} {split} texts" if run.examples else f" on the {split} split"
    return f"{found}{on} with {sparsity} of the prunable parameters removed{beside}."


def _figures(content: Content) -> str:
    run = content.run
    rows: list[tuple[str, str | None]] = [
        ("Accuracy", percent(run.accuracy)),
        ("Perplexity", ratio(perplexity(run.task, run.loss))),
        ("Loss", None if run.loss is None else f"{run.loss:.3f} nats"),
        ("Bits a byte", ratio(run.bits_per_byte)),
        ("Macro-F1", percent(run.macro_f1)),
        ("Calibration error", percent(run.calibration_error)),
        ("ROUGE-L", percent(run.rouge_l)),
        ("BLEU", percent(run.bleu)),
        ("Exact match", percent(run.exact_match)),
        ("Devices' accuracy", percent(run.device_accuracy_mean)),
        ("Sparsity", percent(content.global_sparsity)),
        ("Target sparsity", percent(run.target_sparsity)),
        ("Devices' sparsity", percent(run.sparsity)),
        ("Virtual time", seconds(run.virtual_seconds)),
        ("Wall time", seconds(run.wall_seconds)),
        ("Sent", size(run.bytes_down)),
        ("Received", size(run.bytes_up)),
        ("Energy", energy(run.joules)),
        ("Peak memory", size(max((row.peak_memory_bytes or 0 for row in content.rounds), default=0) or None)),
        ("Rejected", f"{run.rejected_updates:,} updates"),
        ("Privacy spent", None if run.epsilon is None else f"epsilon {run.epsilon:.2f}"),
    ]
    known = [(name, value, meaning(name).replace("`", "")) for name, value in rows if value not in (None, "–")]
    if run.held_out_accuracy is not None:
        held = "On the test split, which no round was evaluated on."
        known.insert(0, ("Accuracy, held out", percent(run.held_out_accuracy), held))
    return f"<h2>Figures</h2><div class=figures>{_table(('Figure', 'Value', 'Meaning'), known)}</div>"


def _curves(content: Content) -> str:
    if not content.evaluations or not content.rounds:
        return ""
    drawn: list[tuple[Callable[[Content], str], str]] = [
        (figures.quality, "Quality of the pruned global model after each round. Round 0 is the untuned model."),
        (figures.loss, "Loss of the global model on the evaluated split, and of the devices on their own text."),
        (figures.traffic, "Messages between server and devices in each round."),
    ]
    if content.blocks:
        drawn.append((figures.structure, "Units of each layer that the devices have kept, on average."))
    each = "".join(f"<figure>{draw(content)}<figcaption>{escape(words)}</figcaption></figure>" for draw, words in drawn)
    return f'<h2>Course</h2><div class="pair">{each}</div>'


def _judged(content: Content) -> str:
    """Controls, references, and runs with other seeds; says so where there are none."""
    run = content.run
    parts = []
    known = content.standing.references
    if known and run.accuracy is not None:
        rows = [(REFERENCE_WORDS[n], percent(v), points_between(run.accuracy, v)) for n, v in known.items()]
        parts.append(_table(("Reference", "Accuracy", "This run, in points"), rows))
    missing = [words for name, words in REFERENCE_WORDS.items() if name in ("local", "central") and name not in known]
    if missing and run.task != "causal-lm":
        command = "<code>slimfed run --references</code> measures them"
        parts.append(f'<p class="quiet">Not measured: {_text(", ".join(missing))}; {command}.</p>')
    same = [row.accuracy for row in (run, *content.seeds) if row.accuracy is not None]
    if len(same) > 1:
        mean, deviation = mean_and_deviation(same)
        seeds = ", ".join(str(row.seed) for row in (run, *content.seeds))
        parts.append(
            f"<p>Accuracy of this job over {len(same)} seeds ({seeds}): mean {percent(mean)}, standard deviation "
            f"{100 * deviation:.1f} points.</p>"
        )
    else:
        parts.append('<p class="quiet">One seed: how much the figures vary between seeds was not measured.</p>')
    return f"<h2>What it is judged by</h2>{''.join(parts)}"


def _method(content: Content) -> str:
    preset = PRESETS.get(content.run.method) if content.run.method in PRESETS else None
    words = f"{_text(preset.summary)}. Source: {_text(preset.source)}." if preset else "A method of another package."
    rows = [(path, _value(value), _chosen_by(path, content.reasons)) for path, value in content.changes.items()]
    table = _table(("Field", "Value", "Set by"), rows) if rows else "<p>Every field has the preset's value.</p>"
    return (
        f"<h2>Method</h2><p><b>{_text(content.run.method)}</b>: {words}</p>"
        f"<p>Fields of the job that differ from the preset's:</p>{table}"
    )


def _chosen_by(path: str, reasons: Sequence[str]) -> str:
    """Who set a field: slimfed, which then gave its reason, or the job."""
    chose = any(line.startswith(f"{path} = ") and not line.endswith(": asked for") for line in reasons)
    return "slimfed" if chose else "the job"


def _data(content: Content) -> str:
    run, job = content.run, content.run.job
    data = job.get("data", {})
    texts = sum(row.examples or 0 for row in content.classes)
    partition = data.get("partition", {})
    rows = [
        ("Model", str(job.get("model", {}).get("path", ""))),
        ("Text", str(data.get("path", ""))),
        ("Training texts", f"{texts:,} on {plural(run.devices, 'device')}"),
        ("Texts that figures stand on", f"{run.examples:,}" if run.examples else "not known"),
        ("Division among devices", str(partition.get("kind", ""))),
        ("Longest text", plural(int(data.get("max_length", 0)), "token")),
    ]
    if partition.get("kind") == "dirichlet":
        rows.append(("Concentration", f"{partition.get('alpha'):g}"))
    digests = [(name, digest) for name, digest in content.digests.items()]
    table = _table(("File", "SHA-256"), digests)
    known = f"<details><summary>SHA-256 of what the run began with</summary>{table}</details>"
    return f"<h2>Data and model</h2>{_table(('', ''), rows)}{known if digests else ''}"


def _devices(content: Content) -> str:
    newest = {row.profile: row for row in content.newest_classes}
    rows = []
    for each in content.classes:
        last = newest.get(each.profile)
        parts = [] if last is None else [last.download_seconds, last.compute_seconds, last.upload_seconds]
        whole = sum(parts) if parts and None not in parts else None
        rows.append(
            (
                each.profile,
                f"{each.devices:,}",
                f"{each.examples or 0:,}",
                percent(None if last is None else last.sparsity),
                "–" if last is None else f"{last.rank:.1f}",
                seconds(whole),
            )
        )
    head = ("Class", "Devices", "Training texts", "Sparsity", "Mean rank", "Mean time of the last round")
    fleet = content.run.job.get("fleet", {})
    clock = "measured" if fleet.get("clock") == "measured" else "virtual, from the profile's figures"
    profile = _text(fleet.get("profile", ""))
    return f"<h2>Devices</h2><p>Fleet <b>{profile}</b>; times are {clock}.</p>{_table(head, rows, right=range(1, 6))}"


def _structure(content: Content) -> str:
    if not content.blocks:
        return ""
    rows = [
        (str(each.layer), figures.KIND_WORDS.get(each.kind, each.kind), f"{each.units:,}", f"{each.kept:,.1f}")
        for each in content.blocks
    ]
    head = ("Layer", "Units", "Of the base", "Kept, mean of the devices")
    return f"<h2>Structure</h2>{_table(head, rows, right=(2, 3))}"


def _samples(content: Content) -> str:
    if not content.samples:
        return ""
    parts = []
    for each in content.samples:
        references = "".join(f"<pre>{_lines(text)}</pre>" for text in each["references"])
        parts.append(
            f'<div class="sample"><p class="quiet">Prompt</p><pre>{_lines(each["prompt"])}</pre>'
            f'<p class="quiet">Written</p><pre>{_lines(each["written"])}</pre>'
            f'<p class="quiet">Reference</p>{references}</div>'
        )
    return f"<h2>Samples after round {content.samples_round}</h2>{''.join(parts)}"


def _events(content: Content) -> str:
    if not content.events:
        return "<h2>Events</h2><p>Nothing was rejected, repeated or lost.</p>"
    rows = [(kind, f"{count:,}") for kind, count in sorted(content.events.items(), key=lambda item: -item[1])]
    return f"<h2>Events</h2>{_table(('Kind', 'Number'), rows, right=(1,))}"


def _reproduce(content: Content) -> str:
    job = tomli_w.dumps(_without_none({k: v for k, v in content.run.job.items() if k != "store"}))
    reasons = "".join(f"<li>{_text(line)}</li>" for line in content.reasons)
    engine = f"<details><summary>Choices of the engine</summary><ul>{reasons}</ul></details>" if reasons else ""
    return (
        "<h2>How to reproduce</h2><p>Save the job below as <code>job.toml</code>, with the text and the model at the "
        "places that it names, and run <code>slimfed run job.toml</code>. Every random draw derives from the seed.</p>"
        f"{engine}<details><summary>The job, every field</summary><pre>{_lines(job)}</pre></details>"
        f'<p class="quiet">Written by {_text(content.written_by)} from the run\'s store.</p>'
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]], right: Iterable[int] = ()) -> str:
    numbers = set(right)

    def cells(row: Sequence[Any], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=n' if place in numbers else ''}>{_text(cell)}</{tag}>" for place, cell in enumerate(row)
        )

    title = f"<thead><tr>{cells(head, 'th')}</tr></thead>" if any(head) else ""
    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f'<div class="wide"><table>{title}<tbody>{body}</tbody></table></div>'


def _text(value: Any) -> str:
    return escape(clean(value, 2000))


def _lines(value: Any) -> str:
    return escape(clean_lines(str(value), 60_000))


def _value(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "not set" if value is None else str(value)


def _without_none(table: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_none(value) if isinstance(value, Mapping) else value
        for name, value in table.items()
        if value is not None
    }
