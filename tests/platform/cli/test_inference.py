"""``slimfed predict`` and ``slimfed evaluate`` on exported folders of every format."""

import json
from pathlib import Path

import pytest
from finished_run import finished_run
from typer.testing import CliRunner

from slimfed.clients.data.text import load_data
from slimfed.clients.export.runtime.opened_model import open_model
from slimfed.clients.node.runtime import open_runtime
from slimfed.platform.cli import app
from slimfed.platform.job.job import parse_job
from slimfed.platform.server.evaluator import GlobalEvaluator

runner = CliRunner()
DECODER = {"model": {"path": "builtin:tiny-decoder", "task": "causal-lm"}, "evaluation": {"generate": {"examples": 4}}}
TASK = """
task: answers
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: loglikelihood
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{completion}}}}"
metric_list: [{{metric: acc}}, {{metric: perplexity}}]
"""


def call(*arguments: str, stdin: str | None = None) -> str:
    result = runner.invoke(app, list(arguments), input=stdin)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def _environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIMFED_HOME", str(home))
    monkeypatch.delenv("SLIMFED_STORE", raising=False)


@pytest.fixture(scope="module")
def folders(home: Path) -> dict[str, Path]:
    """An encoder and a decoder in each format that can hold them."""
    made: dict[str, Path] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLIMFED_HOME", str(home))
        for kind, document in (("encoder", {}), ("decoder", DECODER)):
            finished_run(home, document, run_id=f"20260101-000000-{kind}")
            formats = ["safetensors", "peft", "onnx", "gguf" if kind == "decoder" else "onnx-int8"]
            for format in formats:
                made[f"{kind} {format}"] = folder = home / f"{kind}-{format}"
                call("export", f"20260101-000000-{kind}", "--format", format, "--out", str(folder))
    return made


def test_every_format_predicts_alike(folders: dict[str, Path]) -> None:
    texts = ["turn on the light in the kitchen", "wake me at seven"]
    found = {
        name: json.loads(call("predict", str(folder), *texts, "--json"))
        for name, folder in folders.items()
        if name.startswith("encoder")
    }
    exact = found["encoder safetensors"]
    assert [each["text"] for each in exact] == texts
    assert sum(exact[0]["probabilities"].values()) == pytest.approx(1.0)
    for name, each in found.items():
        tolerance = 0.1 if "int8" in name else 1e-3  # weights are written in 16 bits, as the base has them
        for one, other in zip(each, exact, strict=True):
            assert one["probabilities"] == pytest.approx(other["probabilities"], abs=tolerance), name


def test_every_format_continues_alike(folders: dict[str, Path]) -> None:
    found = {
        name: json.loads(call("predict", str(folder), "turn on the light", "--tokens", "6", "--json"))
        for name, folder in folders.items()
        if name.startswith("decoder")
    }
    assert {each[0]["continuation"] for each in found.values()} == {found["decoder peft"][0]["continuation"]}


def test_texts_come_from_a_file_or_from_standard_input(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = str(folders["encoder onnx"])
    (tmp_path / "texts").write_text("wake me at seven\n\nmusic please\n")
    lines = call("predict", folder, "--file", str(tmp_path / "texts")).splitlines()
    assert [line.split("  ")[-1] for line in lines] == ["wake me at seven", "music please"]
    assert call("predict", folder, stdin="wake me at seven\nmusic please\n").splitlines() == lines


def test_a_line_of_a_file_is_one_text_whatever_it_holds(folders: dict[str, Path], tmp_path: Path) -> None:
    texts = ["form\x0cfeed", "next\x85line", "line\u2028separator", "caf\u00e9 \U0001f600"]
    content = "\ufeff" + "\r\n".join(texts) + "\r\n"
    (tmp_path / "texts").write_bytes(content.encode())
    folder = str(folders["encoder onnx"])
    found = json.loads(call("predict", folder, "--file", str(tmp_path / "texts"), "--json"))
    assert [each["text"] for each in found] == texts
    result = runner.invoke(app, ["predict", folder, "--json"], input=content.encode())
    assert [each["text"] for each in json.loads(result.stdout)] == texts


def test_bytes_that_are_not_utf8_are_named_by_line(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = str(folders["encoder onnx"])
    (tmp_path / "texts").write_bytes(b"wake me\ncaf\xe9\n")
    for arguments, where in (
        (["--file", str(tmp_path / "texts")], f"--file = '{tmp_path / 'texts'}'"),
        ([], "standard input"),
    ):
        result = runner.invoke(app, ["predict", folder, *arguments], input=b"wake me\ncaf\xe9\n")
        assert result.exit_code == 2, result.output
        assert f"{where}: line 2, byte 4 is 0xe9" in " ".join(result.stderr.split())
    result = runner.invoke(app, ["predict", folder, "caf\udce9"])
    assert result.exit_code == 2, result.output
    assert "is not UTF-8" in result.stderr


def test_evaluation_reads_a_file_as_the_options_say(folders: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("text;label\nturn on the light;light_on\n;light_on\n")
    asked = ["evaluate", str(folders["encoder safetensors"]), "--data", str(file), "--json"]
    assert 'set data.delimiter = ";"' in runner.invoke(app, asked).stderr
    assert "1 of 2 rows of mine.csv are empty" in runner.invoke(app, [*asked, "--delimiter", ";"]).stderr
    done = runner.invoke(app, [*asked, "--delimiter", ";", "--empty", "drop"])
    assert json.loads(done.stdout)["examples"] == 1
    assert "1 of 2 rows of mine.csv are empty and dropped" in done.stderr
    wrong = runner.invoke(app, [*asked, "--empty", "keep"])
    assert wrong.exit_code == 2
    assert "data.empty = 'keep'" in wrong.stderr


def test_evaluation_measures_what_training_measured(folders: dict[str, Path], home: Path) -> None:
    fleet = finished_run(home, {}, run_id="20260101-000000-again")
    runtime = open_runtime(parse_job({"name": "small", "seed": 5, "fleet": {"devices": 3}}).task_spec())
    expected = GlobalEvaluator(runtime, 1).evaluate(fleet.adapter, fleet.structure)
    for format in ("safetensors", "onnx"):
        found = json.loads(call("evaluate", str(folders[f"encoder {format}"]), "--json"))
        assert found["accuracy"] == pytest.approx(expected.accuracy, abs=1e-3)
        assert found["loss"] == pytest.approx(expected.loss, rel=1e-4)
        assert found["macro_f1"] == pytest.approx(expected.macro_f1, abs=1e-3)


def test_evaluation_takes_a_file_with_other_columns(folders: dict[str, Path], tmp_path: Path) -> None:
    rows = [{"said": "turn on the light", "meant": "light_on"}, {"said": "wake me at six", "meant": "alarm_set"}]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--data", str(tmp_path / "mine.jsonl"), "--text", "said", "--label", "meant", "--json"]
    assert json.loads(call("evaluate", str(folders["encoder safetensors"]), *options))["examples"] == 2


def test_a_decoder_is_measured_by_what_it_writes(folders: dict[str, Path], tmp_path: Path) -> None:
    rows = [{"prompt": "turn on the light", "completion": "it is on"}] * 2
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--data", str(tmp_path / "mine.jsonl"), "--json"]
    for format in ("safetensors", "onnx"):
        result = runner.invoke(app, ["evaluate", str(folders[f"decoder {format}"]), *options])
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        assert found["perplexity"] > 1
        assert found["generated"] == 1


def test_a_task_of_lm_eval_runs_on_a_decoder(folders: dict[str, Path], tmp_path: Path) -> None:
    rows = [{"prompt": "turn on the light\n", "completion": "okay"}, {"prompt": "music\n", "completion": "playing"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "answers.yaml").write_text(TASK.format(file=tmp_path / "rows.jsonl"))
    options = ["--lm-eval", "answers", "--tasks", str(tmp_path), "--json"]
    found = [json.loads(call("evaluate", str(folders[f"decoder {f}"]), *options)) for f in ("safetensors", "onnx")]
    opened = open_model(folders["decoder safetensors"])
    assert found[0]["answers"]["perplexity"] > 1
    assert found[0]["answers"]["perplexity"] == pytest.approx(found[1]["answers"]["perplexity"], rel=1e-3)
    assert opened.manifest.task == "causal-lm"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predict", "{decoder}", "x", "--tokens", "100000"], "more than the"),
        (["predict", "{encoder}", "x", "--base", "."], "needs no base"),
        (["predict", "{encoder}", "x", "--file", "y"], "not both"),
        (["predict", "{encoder}", "--file", "/no/such"], "cannot be read"),
        (["predict", "/no/such/folder", "x"], "there is no such folder"),
        (["evaluate", "{encoder}", "--data", "/no/such"], "there is no such folder"),
        (["evaluate", "{encoder}", "--label", "user"], "the model does not have"),
        (["evaluate", "{encoder}", "--lm-eval", "x", "--tasks", "/no/such"], "there is no such folder"),
        (["evaluate", "{encoder}", "--lm-eval", "x", "--tasks", "{encoder}"], "has no such task"),
    ],
)
def test_bad_input_is_refused(folders: dict[str, Path], arguments: list[str], words: str) -> None:
    names = {"encoder": folders["encoder safetensors"], "decoder": folders["decoder safetensors"]}
    result = runner.invoke(app, [argument.format(**names) for argument in arguments])
    assert result.exit_code == 2, result.output
    assert words in result.stderr


def test_the_default_text_is_the_runs(folders: dict[str, Path]) -> None:
    opened = open_model(folders["encoder safetensors"])
    text = load_data(opened.manifest.data, "classification")
    assert text.labels == opened.manifest.labels


@pytest.mark.parametrize("name", ["encoder onnx-int8", "decoder onnx"])
def test_bench_compares_with_a_dense_twin_in_the_same_format(folders: dict[str, Path], name: str) -> None:
    options = ["--batch", "2", "--length", "20", "--repeats", "3", "--json"]
    found = json.loads(call("bench", str(folders[name]), *options))
    assert found["latency_ratio"] == pytest.approx(found["slim"]["latency"] / found["dense"]["latency"])
    assert found["throughput_ratio"] > 0
    assert found["memory_ratio"] > 0
    assert found["parameters"] < found["dense"]["parameters"]
    assert found["flops"] < found["dense"]["flops"]
    assert found["bytes"] < found["dense"]["bytes"]
    assert (found["decode_ratio"] is not None) == name.startswith("decoder")
    same = found["alike"] or found["dense"]  # an encoder has a pass of its own, which a dense one can have, too
    assert found["structure_ratio"] == pytest.approx(found["slim"]["latency"] / same["latency"])
    assert (found["alike"] is not None) == name.startswith("encoder")


def test_bench_runs_a_gguf_file_in_llama_cpp(folders: dict[str, Path]) -> None:
    options = ["--batch", "2", "--length", "24", "--repeats", "3"]
    found = json.loads(call("bench", str(folders["decoder gguf"]), *options, "--json"))
    speeds = found["in_llama_cpp"]
    assert set(speeds) == {"slim", "dense"}
    assert all(each["prefill"] > 0 and each["decode"] > 0 for each in speeds.values())
    assert speeds["slim"]["bytes"] < speeds["dense"]["bytes"]
    assert found["original_bytes"] > 0
    shown = call("bench", str(folders["decoder gguf"]), *options)
    assert "llama.cpp: new tokens a second" in shown
    assert "against the base's weights" in shown


def test_bench_refuses_an_adapter_alone(folders: dict[str, Path]) -> None:
    result = runner.invoke(app, ["bench", str(folders["encoder peft"])])
    assert result.exit_code == 2
    assert "holds an adapter" in result.stderr
