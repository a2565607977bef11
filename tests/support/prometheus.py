"""A real Prometheus that scrapes a sidecar every second, with the configuration that is shipped."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import httpx
import yaml

from deploy.demo.ports import HOST, free_port
from tests.support.deadline import eventually
from tests.support.processes import Process

SHIPPED = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
# What a dashboard puts in the place of its variables; without a label, "" matches.
VARIABLES = {
    "$cluster": "",
    "$namespace": "",
    "$job": "celery.*",
    "$queue_name": ".*",
    "$task": ".*",
    "$__rate_interval": "10s",
    "$__range": "1m",
    "${datasource}": "",
}


class Prometheus(Process):
    """Queries it over its API."""

    def __init__(self, folder: Path, target: str) -> None:
        config = yaml.safe_load((SHIPPED / "scrape.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        for job in config["scrape_configs"]:
            # The names of the shipped ones lead nowhere here.
            job.pop("dns_sd_configs", None)
            job["static_configs"] = [{"targets": [target]}]
        shutil.copy(SHIPPED / "alerts.yml", folder)
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.url = f"http://{HOST}:{(port := free_port())}"
        super().__init__(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={HOST}:{port}",
            ],
            name="prometheus",
        )
        eventually(self._is_ready)

    def ask(self, path: str, **parameters: str) -> Any:
        """Ask its API."""
        with httpx.Client(base_url=self.url, trust_env=False) as client:
            answer = client.get(f"/api/v1/{path}", params=parameters)
        assert 200 == answer.status_code, answer.text
        return answer.json()["data"]

    def has_data(self, expression: str) -> bool:
        """Tell whether an expression of a dashboard, or of a variable of it, has any data now."""
        expression = filled(expression)
        if match := re.fullmatch(r"label_values\((.*), (\w+)\)", expression):
            found = self.ask(f"label/{match[2]}/values", **{"match[]": re.sub(r"\{\}$", "", match[1])})
            return bool(found)
        return bool(self.ask("query", query=expression)["result"])

    def _is_ready(self) -> bool:
        assert self.running, self.output
        try:
            with httpx.Client(base_url=self.url, trust_env=False) as client:
                return client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False


def filled(expression: str) -> str:
    """Put values in the place of a dashboard's variables."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def without_threshold(expression: str) -> str:
    """What an alert looks at, whether it fires or not."""
    return re.sub(r"\s(>|==)\s*-?\d+\s*$", "", expression.strip())


def expressions_of(dashboard: Path) -> list[str]:
    """Every expression of a dashboard, its variables included."""
    found: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            found.extend(value[name] for name in ("expr", "definition") if isinstance(value.get(name), str))
            value = list(value.values())
        for each in value if isinstance(value, list) else ():
            walk(each)

    walk(json.loads(dashboard.read_text()))
    return found
