"""Images, Compose, chart and units, before the real tools: hadolint, Docker Compose, Helm, Kubernetes' schemas.

The tools come from the test extra; none of them needs a container runtime or a cluster.
"""

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate
import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
DOCKERFILES = sorted((DEPLOY / "images").glob("*.Dockerfile"))
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
KUBERNETES = "1.33"
TEMPLATES = sorted((DEPLOY / "chart" / "slimfed" / "templates").glob("*.yaml"))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_are_pinned_have_a_user_and_say_how_they_are(path: Path) -> None:
    text = path.read_text()
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert bases
    assert all(base == "${BASE}" or re.search(r":\d+\.\d+\.\d+", base) for base in bases)
    assert re.search(r"^USER 10001$", text, re.MULTILINE)
    assert text.index("USER 10001") < text.index("ENTRYPOINT")
    assert "HEALTHCHECK" in text
    assert "constraints.txt" in text


def tool(name: str, *arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    """A program that is installed beside this Python."""
    program = Path(sys.executable).with_name(name)
    return subprocess.run(
        [str(program), *arguments], capture_output=True, text=True, timeout=120, check=False, **options
    )


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    done = tool("hadolint", str(path))
    assert done.returncode == 0, done.stdout


def test_docker_compose_takes_its_file_without_a_remark(tmp_path: Path) -> None:
    """With what `secrets.sh` makes beside it."""
    place = tmp_path / "compose"
    shutil.copytree(DEPLOY / "compose", place)
    subprocess.run(["bash", "secrets.sh"], cwd=place, check=True, capture_output=True, timeout=60)
    done = tool("docker-compose", "--profile", "tools", "config", "--quiet", cwd=place)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    again = subprocess.run(["bash", "secrets.sh"], cwd=place, check=False, capture_output=True, timeout=60)
    assert again.returncode == 2, "nothing is overwritten"
    password = (place / "secrets" / "postgres-password").read_text()
    shown = tool("docker-compose", "config", "--no-env-resolution", cwd=place).stdout
    assert len(password) > 20
    assert password not in shown


def test_compose_publishes_the_gate_and_nothing_that_gives_orders() -> None:
    services = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())["services"]
    assert services["gate"]["ports"] == ["8443:8443"]
    assert services["dashboard"]["ports"] == ["127.0.0.1:8501:8501"]
    assert all("ports" not in services[name] for name in ("superlink", "postgres", "slimfed"))
    assert services["superlink"]["networks"] == ["inside"]
    for name, service in services.items():
        image = service.get("image", "")
        assert image.startswith("slimfed-") or re.search(r":\d+\.\d+", image), name
        assert "no-new-privileges:true" in service["security_opt"]
    assert "PASSWORD:" not in (DEPLOY / "compose" / "compose.yaml").read_text(), "secrets come from files"


@pytest.mark.parametrize("name", ["nginx.conf", "compose/gate.conf", "chart/slimfed/templates/gate.yaml"])
def test_the_gate_passes_the_nodes_interface_and_nothing_else(name: str) -> None:
    text = (DEPLOY / name).read_text()
    assert re.findall(r"location (\S+(?: \S+)?) \{[^}]*proxy_pass", text) == ["/v1/fleet/"]
    assert re.search(r"location / \{\s*return 403;", text)
    assert "proxy_ssl_verify on" in text


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_run_as_a_user_of_their_own_and_come_back(path: Path) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None, delimiters="=", inline_comment_prefixes=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(path.read_text().replace("\\\n", " "))
    service = unit["Service"]
    assert service["User"] == "slimfed"
    assert service["Restart"] in ("always", "on-failure")
    assert service["NoNewPrivileges"] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert "password" not in path.read_text().lower().replace("store's password", "")


VALUES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "with nodes": {"nodes": [{"name": n, "device": d, "keySecret": n, "dataClaim": n} for d, n in enumerate("ab")]},
    "without dashboard": {"dashboard": {"enabled": False}, "storage": {"size": "5Gi", "className": "fast"}},
}


def test_helm_lints_the_chart() -> None:
    found = helm.lint(str(DEPLOY / "chart" / "slimfed"))
    assert found["errors"] == []
    assert [each["error"] for each in found["messages"] if each["severity"] > 1] == []


@pytest.mark.parametrize("values", VALUES)
def test_helm_renders_what_kubernetes_takes(values: str) -> None:
    with helm.Chart.load(str(DEPLOY / "chart" / "slimfed")) as chart:
        files = chart.render(VALUES[values], name="garden", namespace="fleet")
    documents = [each for text in files.values() for each in yaml.safe_load_all(text) if each]
    assert {"StatefulSet", "Deployment", "Service", "NetworkPolicy"} <= {each["kind"] for each in documents}
    for each in documents:
        kubernetes_validate.validate(each, KUBERNETES, strict=True)
        if each["kind"] in ("Deployment", "StatefulSet"):
            (container,) = each["spec"]["template"]["spec"]["containers"]
            assert container["securityContext"]["runAsNonRoot"] is True
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert "readinessProbe" in container
            assert each["spec"]["replicas"] == 1
    nodes = [each for each in documents if "-node-" in each["metadata"]["name"]]
    assert len(nodes) == len(VALUES[values].get("nodes", ()))


def test_chart_values_are_used_and_used_values_exist() -> None:
    chart = DEPLOY / "chart" / "slimfed"
    values = yaml.safe_load((chart / "values.yaml").read_text())
    used = {m for path in TEMPLATES for m in re.findall(r"\.Values\.([a-zA-Z.]+)", path.read_text())}
    for name in used:
        node = values
        for part in name.split("."):
            assert part in node, name
            node = node[part]
    assert set(values) == {name.split(".")[0] for name in used}
    assert yaml.safe_load((chart / "Chart.yaml").read_text())["apiVersion"] == "v2"
