"""The Compose file: what it says, and what it runs, as processes of this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from deploy.demo.child import environment
from deploy.demo.redis_server import RedisServer
from sidecar import drain, server
from sidecar.settings import Settings
from tests.support.deadline import PATIENCE_SECONDS
from tests.support.deployed import DEPLOY, documents, image_port, of_image
from tests.support.starters import StartProcess, StartSidecar

FILE = DEPLOY / "compose.yaml"
[COMPOSE] = documents(FILE.name)
SERVICES: dict[str, Any] = COMPOSE["services"]
SIDECAR = SERVICES["sidecar"]
BIN = Path(sys.executable).parent
REDIS_URL = "redis://redis:6379/"


def check(path: Path) -> subprocess.CompletedProcess[str]:
    """Hold a file against the schema of the Compose specification."""
    command = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", path]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_it_is_a_compose_file() -> None:
    """The Compose specification knows all that stands in it."""
    done = check(FILE)
    assert 0 == done.returncode, done.stdout


def test_a_misspelt_key_would_be_found(tmp_path: Path) -> None:
    """What is asked about the file does tell of a mistake."""
    wrong = tmp_path / FILE.name
    wrong.write_text(FILE.read_text().replace("read_only:", "readonly:"))
    done = check(wrong)
    assert 1 == done.returncode
    assert "readonly" in done.stdout


def test_the_sidecar_may_do_nothing() -> None:
    """It is the user of the image, cannot write, and has no capability, nor a way to get one."""
    assert SIDECAR["read_only"] is True
    assert (["ALL"], ["no-new-privileges:true"]) == (SIDECAR["cap_drop"], SIDECAR["security_opt"])
    assert not {"user", "privileged", "cap_add", "volumes", "network_mode"} & set(SIDECAR)


def test_it_is_reached_from_this_machine_alone() -> None:
    """Whoever may read without a token has to be on this machine, and nothing else is shown to anybody."""
    assert [f"127.0.0.1:{image_port()}:{image_port()}"] == SIDECAR["ports"]
    assert ["sidecar"] == [name for name, service in SERVICES.items() if "ports" in service]


def test_it_is_examined_as_the_image_says() -> None:
    """The health check is that of the image."""
    given = SIDECAR["healthcheck"]
    options = " ".join(
        f"--{name.replace('_', '-')}={given[name]}"
        for name in ("interval", "timeout", "start_period", "retries")
    )
    kind, *command = given["test"]
    assert of_image("^HEALTHCHECK (.*)$") == f"{options} {kind} {json.dumps(command)}"


def test_it_waits_for_the_drain() -> None:
    """It is not killed before its streams have ended."""
    to_end = Settings().drain_seconds + drain.GRACE_SECONDS + server.GRACE_SECONDS
    assert to_end < int(SIDECAR["stop_grace_period"].removesuffix("s"))


def test_all_are_of_one_image() -> None:
    """Nothing has to be built or fetched but the image of the Containerfile, and Redis."""
    ours = [service for name, service in SERVICES.items() if name != "redis"]
    assert [SIDECAR["build"]] * 3 == [service["build"] for service in ours]
    assert (FILE.parent / SIDECAR["build"]["context"] / SIDECAR["build"]["dockerfile"]).exists()


def test_they_work_together(
    redis_server: RedisServer, start_process: StartProcess, start_sidecar: StartSidecar
) -> None:
    """What the services run, with their variables: the application's tasks are seen to run and to end."""
    sidecar = start_sidecar(env=_variables("sidecar", redis_server, but="SIDECAR_REDIS_URL"))
    for name in ("worker", "application"):
        program, *arguments = SERVICES[name]["entrypoint"]
        # There the code is what is here in the checkout.
        assert ("/srv", [".:/srv/deploy:ro"]) == (SERVICES[name]["working_dir"], SERVICES[name]["volumes"])
        variables = _variables(name, redis_server)
        start_process([str(BIN / program), *arguments], name=name, env=environment(**variables))
    with sidecar.events() as stream:
        for status in ("active", "completed"):
            stream.until(lambda event, status=status: event.data.get("status") == status, PATIENCE_SECONDS)
    assert 200 == sidecar.get("/api/v1/queue/status", headers={"Host": "sidecar"}).status_code
    assert 421 == sidecar.get("/api/v1/queue/status", headers={"Host": "rebound.example"}).status_code


def _variables(name: str, redis: RedisServer, but: str = "") -> dict[str, str]:
    """The variables of a service, with this Redis for the one that it names."""
    given = {key: value for key, value in SERVICES[name]["environment"].items() if key != but}
    return {
        key: redis.url_db(int(value.removeprefix(REDIS_URL))) if value.startswith(REDIS_URL) else value
        for key, value in given.items()
    }
