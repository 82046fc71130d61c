"""What can be checked of images, Compose, chart and units without a container runtime: pins, users, health, secrets."""

import configparser
import re
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
DOCKERFILES = sorted((DEPLOY / "images").glob("*.Dockerfile"))
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
TEMPLATES = sorted((DEPLOY / "chart" / "slimfed" / "templates").glob("*.yaml"))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_are_pinned_have_a_user_and_say_how_they_are(path: Path) -> None:
    text = path.read_text()
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert bases
    assert all(base == "${BASE}" or re.search(r":\d+\.\d+\.\d+", base) for base in bases)
    assert re.search(r"^USER slimfed$", text, re.MULTILINE)
    assert text.index("USER slimfed") < text.index("ENTRYPOINT")
    assert "HEALTHCHECK" in text
    assert "constraints.txt" in text


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


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_chart_templates_are_yaml_once_their_actions_are_taken_out(path: Path) -> None:
    """Not a rendering: every line that is an action goes, an action within a line becomes a word."""
    lines = [line for line in path.read_text().splitlines() if not re.fullmatch(r"\s*\{\{-? .*\}\}", line)]
    text = re.sub(r": \{\{- include [^}]*\}\}", ": {}", "\n".join(lines))
    text = re.sub(r": \{\{- toYaml [^}]*\}\}", ": {}", text)
    documents = [each for each in yaml.safe_load_all(re.sub(r"\{\{[^}]*\}\}", "word", text)) if each]
    assert documents
    assert all({"apiVersion", "kind", "metadata"} <= each.keys() for each in documents)
    for each in documents:
        if each["kind"] in ("Deployment", "StatefulSet"):
            (container,) = each["spec"]["template"]["spec"]["containers"]
            assert "securityContext" in container
            assert "readinessProbe" in container
            assert each["spec"]["replicas"] == 1


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
