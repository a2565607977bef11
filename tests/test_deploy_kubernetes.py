"""The manifests for Kubernetes."""

from __future__ import annotations

import copy
import re
from typing import Any

import kubernetes_validate
import pytest

from deploy.demo.redis_server import RedisServer
from sidecar.operations import OPERATIONS
from sidecar.server import END_SECONDS
from sidecar.settings import Settings, load
from tests.support.deadline import eventually
from tests.support.deployed import DEPLOY, documents, image_env, image_port, image_user
from tests.support.guarded import STATUS
from tests.support.starters import StartSidecar
from tests.support.tokens import SECRET

FILES = ("kubernetes/sidecar.yaml", "kubernetes/beside-worker.yaml")
# The oldest one that the files promise, and the newest one that is known.
VERSIONS = ("1.30", kubernetes_validate.latest_version())
EACH = [(name, document) for name in FILES for document in documents(name)]
IDS = [f"{name}-{document['kind']}" for name, document in EACH]


def of_kind(kind: str, name: str = FILES[0]) -> dict[str, Any]:
    """The document of a kind."""
    [document] = (document for document in documents(name) if document["kind"] == kind)
    return document


def pod(name: str = FILES[0]) -> dict[str, Any]:
    """What a pod is made of."""
    spec: dict[str, Any] = of_kind("Deployment", name)["spec"]["template"]["spec"]
    return spec


def sidecar_container(name: str = FILES[0]) -> dict[str, Any]:
    """The container of the sidecar."""
    containers = [*pod(name)["containers"], *pod(name).get("initContainers", ())]
    [container] = (container for container in containers if container["name"] == "sidecar")
    return container


def environment(secrets: dict[str, str]) -> dict[str, str]:
    """What the container finds in its environment; secrets by their key."""
    given = {
        variable["name"]: variable["value"]
        if "value" in variable
        else secrets[variable["valueFrom"]["secretKeyRef"]["key"]]
        for variable in sidecar_container()["env"]
    }
    return image_env() | given


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("name", "document"), EACH, ids=IDS)
def test_kubernetes_takes_it(name: str, document: dict[str, Any], version: str) -> None:
    """Each document is what Kubernetes describes, without a field that it does not know."""
    kubernetes_validate.validate(document, version, strict=True)


def test_a_misspelt_field_would_be_found() -> None:
    """What is asked about the documents does tell of a mistake deep in one."""
    wrong = copy.deepcopy(of_kind("Deployment"))
    context = wrong["spec"]["template"]["spec"]["containers"][0]["securityContext"]
    context["readOnlyRootFileSystem"] = context.pop("readOnlyRootFilesystem")
    with pytest.raises(kubernetes_validate.ValidationError, match="readOnlyRootFileSystem"):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_one_may_go_at_a_time() -> None:
    """There are two; a new one comes before an old one goes, and a node takes but one with it."""
    deployment = of_kind("Deployment")["spec"]
    assert 2 == deployment["replicas"]
    assert {"maxSurge": 1, "maxUnavailable": 0} == deployment["strategy"]["rollingUpdate"]
    assert 1 == of_kind("PodDisruptionBudget")["spec"]["maxUnavailable"]


@pytest.mark.parametrize("name", FILES)
def test_all_mean_the_same_pods(name: str) -> None:
    """Whatever chooses pods chooses those of the Deployment."""
    labels = of_kind("Deployment", name)["spec"]["template"]["metadata"]["labels"]
    chosen = [found for document in documents(name) for found in _selectors(document["spec"])]
    assert len(chosen) >= len(documents(name))
    assert [labels] * len(chosen) == chosen
    if name == FILES[0]:
        assert labels == of_kind("NetworkPolicy")["spec"]["podSelector"]["matchLabels"]


def _selectors(spec: dict[str, Any]) -> list[dict[str, str]]:
    """What stands as a selector, at any depth."""
    found = []
    for key, value in spec.items():
        if key in ("selector", "labelSelector"):
            found.append(value.get("matchLabels", value))
        elif isinstance(value, dict):
            found += _selectors(value)
        elif isinstance(value, list):
            found += [each for item in value if isinstance(item, dict) for each in _selectors(item)]
    return found


def test_it_may_do_nothing() -> None:
    """The container is what Kubernetes calls restricted, as the user of the image, and cannot write."""
    context = sidecar_container()["securityContext"]
    user = image_user()
    assert {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    } == context
    assert "volumeMounts" not in sidecar_container()
    assert pod()["automountServiceAccountToken"] is False


def test_all_speak_of_the_port_of_the_image() -> None:
    """Container, Service, probes and policy name one port, which is that of the image."""
    assert [{"name": "http", "containerPort": image_port()}] == sidecar_container()["ports"]
    assert "http" == of_kind("Service")["spec"]["ports"][0]["targetPort"]
    for probe in ("livenessProbe", "readinessProbe"):
        assert "http" == sidecar_container()[probe]["httpGet"]["port"]
    assert [{"port": "http"}] == of_kind("NetworkPolicy")["spec"]["ingress"][0]["ports"]


def test_it_waits_for_the_drain() -> None:
    """Nobody is killed before the streams have ended."""
    before = sidecar_container()["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert before + Settings().drain_seconds + END_SECONDS <= pod()["terminationGracePeriodSeconds"]


def test_it_does_not_hear_of_services() -> None:
    """A Service of any name sets no variable: one called "sidecar" would set SIDECAR_PORT."""
    assert [False, False] == [pod(name)["enableServiceLinks"] for name in FILES]


def test_the_secret_is_the_one_that_one_is_told_to_make() -> None:
    """The command in the file makes each key that the container asks for."""
    made = re.findall(r"--from-literal=([\w-]+)=", (DEPLOY / FILES[0]).read_text())
    references = [variable["valueFrom"]["secretKeyRef"] for variable in _secrets(sidecar_container())]
    assert set(made) == {reference["key"] for reference in references}
    assert {"celery-sidecar"} == {reference["name"] for reference in references}
    [broker] = _secrets(pod(FILES[1])["containers"][0])
    assert f"--from-literal={broker['valueFrom']['secretKeyRef']['key']}=" in (DEPLOY / FILES[1]).read_text()


def _secrets(container: dict[str, Any]) -> list[dict[str, Any]]:
    return [variable for variable in container["env"] if "valueFrom" in variable]


def test_the_variant_has_the_same_container() -> None:
    """Beside a worker it is the same container, which starts first and ends last."""
    beside = sidecar_container(FILES[1])
    assert "Always" == beside.pop("restartPolicy")
    assert sidecar_container() == beside
    assert "sidecar" == pod(FILES[1])["initContainers"][0]["name"]
    # The worker's own time comes first.
    assert pod()["terminationGracePeriodSeconds"] < pod(FILES[1])["terminationGracePeriodSeconds"]


def test_the_probes_are_answered(redis_server: RedisServer, start_sidecar: StartSidecar) -> None:
    """With what the container is given a sidecar starts, is well by its own probes, and asks for a token."""
    variables = environment({"redis-url": "redis://elsewhere/0", "auth-secrets": SECRET})
    assert image_port() == load({}, variables).port
    of_test = ("SIDECAR_HOST", "SIDECAR_PORT", "SIDECAR_REDIS_URL")
    started = start_sidecar(env={name: value for name, value in variables.items() if name not in of_test})
    for probe in ("livenessProbe", "readinessProbe"):
        path = sidecar_container()[probe]["httpGet"]["path"]
        assert path in {operation.path for operation in OPERATIONS}
        eventually(lambda path=path: started.get(path).status_code == 200)
    assert 401 == started.get(STATUS).status_code
