"""The chart: what it renders is reviewed as a golden file, and starts the services with the settings they ask for."""

import importlib
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.shared.serving.settings import read_settings
from stack.mesh import PROJECT, SERVICES
from stack.programs import script

GOLDEN = Path(__file__).with_name("golden.yaml")
RENDER = ("helm", "template", "parley", "charts/parley", "--namespace", "parley")


@cache
def helm(*arguments: str) -> str:
    done = subprocess.run((script("helm"), *arguments), cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def manifests(kind: str, *options: str) -> Iterator[Mapping[str, Any]]:
    rendered = yaml.safe_load_all(helm(*RENDER[1:], *options))
    yield from (manifest for manifest in rendered if manifest["kind"] == kind)


def container_of(service: str) -> Mapping[str, Any]:
    (found,) = [d for d in manifests("Deployment") if d["metadata"]["name"] == service]
    (container,) = found["spec"]["template"]["spec"]["containers"]
    return container


def environment_of(service: str) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container_of(service)["env"]}


def test_chart_passes_helm_lint() -> None:
    helm("lint", "--strict", "charts/parley")


def test_rendering_is_the_reviewed_one() -> None:
    command = f"{' '.join(RENDER)} > {GOLDEN.relative_to(PROJECT)}"
    assert helm(*RENDER[1:]) == GOLDEN.read_text(), f"if the change is meant: {command}"


@pytest.mark.parametrize("kind", ["Deployment", "Service", "ServiceAccount", "PodDisruptionBudget"])
def test_every_service_has_one(kind: str) -> None:
    assert sorted(manifest["metadata"]["name"] for manifest in manifests(kind)) == sorted(SERVICES)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_gets_the_settings_it_asks_for_and_no_others(service: str) -> None:
    environment = environment_of(service)
    settings = read_settings(importlib.import_module(f"services.{service}.settings").Settings, environment)
    assert settings.tls_cert_file is None  # the sidecar has it
    asked_for = {f"PARLEY_{name.upper()}" for name in vars(settings)}
    assert set(environment) <= asked_for


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_no_rights_on_its_node(service: str) -> None:
    (deployment,) = [d for d in manifests("Deployment") if d["metadata"]["name"] == service]
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert not pod["automountServiceAccountToken"]
    assert pod["serviceAccountName"] == service
    assert container_of(service)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container_of(service)["resources"]["limits"]["memory"]


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_killed_only_after_its_grace(service: str) -> None:
    (deployment,) = [d for d in manifests("Deployment") if d["metadata"]["name"] == service]
    pause_s = container_of(service)["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace_s = float(environment_of(service)["PARLEY_STOP_GRACE_S"])
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > pause_s + grace_s


def test_traces_go_to_the_endpoint_that_is_given() -> None:
    endpoint = "http://collector:4317"
    for deployment in manifests("Deployment", "--set", f"otlp.endpoint={endpoint}"):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        assert {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": endpoint} in container["env"]
