"""A real Prometheus has data for published dashboards and alerts, and for those that are shipped."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from celery import Celery

from celery_plugin.contract import JSON
from sidecar.operations import OPERATIONS
from sidecar.schemas import SCHEMAS
from tests.support.celery_worker import Worker
from tests.support.deadline import eventually
from tests.support.needed import need
from tests.support.processes import Process
from tests.support.prometheus import SHIPPED, Prometheus, expressions_of, without_threshold
from tests.support.sidecar_process import Sidecar
from tests.support.starters import StartSidecar, StartWorker

DEPLOY = SHIPPED.parent
EXPORTER: JSON = json.loads((Path(__file__).parent / "support" / "celery_exporter.json").read_text())
# What needs a cluster, or a moment that does not last: no label of that name, tasks that wait for nothing.
NOTHING_TO_SHOW = (
    "label_values(celery_worker_up{}, cluster)",
    'label_values(celery_worker_up{cluster="$cluster"}, namespace)',
)
SECONDS = 60.0


def shipped_alerts() -> dict[str, str]:
    """The expressions of the alerts by their names."""
    groups: Any = yaml.safe_load((SHIPPED / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def promtool(*arguments: str) -> str:
    """Run Prometheus's own checker."""
    command = [need(shutil.which("promtool"), "promtool"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def test_the_shipped_files_are_right() -> None:
    """Configuration and alerts are what Prometheus takes."""
    promtool("check", "config", str(SHIPPED / "scrape.yml"))
    promtool("check", "rules", str(SHIPPED / "alerts.yml"))


def test_alerts_fire(tmp_path: Path) -> None:
    """When a queue backs up, nobody takes from one, a worker goes or a task is lost, somebody is called."""
    series = {
        'celery_queue_length{job="celery",instance="s",queue_name="mail"}': "200x30",
        'celery_active_worker_count{job="celery",instance="s",queue_name="mail"}': "0x30",
        'celery_worker_up{job="celery",hostname="here"}': "0x30",
        'celery_task_lost_total{job="celery",queue_name="mail",name="app.send"}': "_x25 1x5",
        'celery_task_failed_total{job="celery",queue_name="mail",name="app.send",exception="E"}': "0+1x30",
        'celery_oldest_waiting_seconds{job="celery"}': "601x30",
        'celery_worker_events_given_up{job="celery",hostname="here"}': "3x30",
        'up{job="sidecar",instance="s"}': "0x30",
        'sidecar_redis_up{job="sidecar",instance="s"}': "0x30",
        'sidecar_drift_corrections_total{job="sidecar",instance="s",of="log"}': "0x20 1x10",
        'sidecar_streams_refused_total{job="sidecar",instance="s",reason="streams"}': "0+1x30",
    }
    test = {
        "rule_files": [str(SHIPPED / "alerts.yml")],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    {
                        "expr": 'count by (alertname) (ALERTS{alertstate="firing"}) * 0 + 1',
                        "eval_time": "30m",
                        "exp_samples": [
                            {"labels": f'{{alertname="{name}"}}', "value": 1} for name in shipped_alerts()
                        ],
                    }
                ],
            }
        ],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(test))
    promtool("test", "rules", str(tmp_path / "test.yml"))


@pytest.fixture
def sidecar(start_sidecar: StartSidecar, start_worker: StartWorker) -> Sidecar:
    """A sidecar beside a worker."""
    sidecar = start_sidecar()
    start(start_worker, "one@here", "celery")
    return sidecar


@pytest.fixture
def prometheus(sidecar: Sidecar, processes: list[Process], tmp_path: Path) -> Prometheus:
    """One that scrapes it."""
    need(shutil.which("prometheus"), "prometheus")
    server = Prometheus(tmp_path, f"127.0.0.1:{sidecar.port}")
    processes.append(server)
    return server


def start(start_worker: StartWorker, name: str, queue: str) -> Worker:
    """Start a worker that is soon seen to be gone, and soon sees others gone."""
    leases = {"SIDECAR_LEASE_SECONDS": "3", "SIDECAR_LEASE_RENEW_SECONDS": "1"}
    return start_worker(app="tests.support.traps_app", hostname=name, arguments=("-Q", queue), env=leases)


def test_every_expression_has_data(
    prometheus: Prometheus, sidecar: Sidecar, start_worker: StartWorker, celery_app: Celery
) -> None:
    """Alerts and dashboards of celery-exporter as they were published, and those that are shipped here."""
    published = [*EXPORTER["dashboards"], *EXPORTER["variables"]]
    looked_at = map(without_threshold, [*EXPORTER["alerts"].values(), *shipped_alerts().values()])
    shown = expressions_of(DEPLOY / "grafana" / "celery.json")
    missing = [each for each in (*published, *looked_at, *shown) if each not in NOTHING_TO_SHOW]
    lose_a_task(sidecar, start(start_worker, "two@there", "doomed"), celery_app)
    deadline = time.monotonic() + SECONDS
    while missing and time.monotonic() < deadline:
        send_some_of_each(celery_app)
        missing = [each for each in missing if not prometheus.has_data(each)]
    assert [] == missing


def lose_a_task(sidecar: Sidecar, worker: Worker, app: Celery) -> None:
    """Kill a worker while it runs a task."""
    path = f"/api/v1/queue/tasks/{app.send_task('tests.sleep_for', (60,), queue='doomed').id}"
    eventually(lambda: sidecar.get(path).json()["status"] == "active")
    worker.kill()


def send_some_of_each(app: Celery) -> None:
    """Tasks that end in every way, and some that nobody takes."""
    for name in ("add", "add", "fail", "retry_once", "reject"):
        app.send_task(f"tests.{name}", (1, 2) if name == "add" else ())
    # Some sums are of tasks that have both ended well and failed.
    app.send_task("tests.add", (1, None))
    app.send_task("tests.add", (1, 2), expires=-1)
    app.send_task("tests.add", (1, 2), queue="nobody_takes_from")


def test_an_alert_of_a_queue_that_backs_up(prometheus: Prometheus, celery_app: Celery) -> None:
    """A hundred messages and one more wait: the shipped alert is on its way, and so is the exporter's."""
    for _ in range(101):
        celery_app.send_task("tests.add", (1, 2), queue="nobody_takes_from")
    eventually(lambda: prometheus.has_data(EXPORTER["alerts"]["CeleryHighQueueLength"]))

    def pending() -> set[str]:
        return {alert["labels"]["alertname"] for alert in prometheus.ask("alerts")["alerts"]}

    eventually(lambda: {"CeleryQueueBacksUp", "CeleryQueueWithoutWorker"} <= pending())


def test_keda_asks_what_is_answered() -> None:
    """The scaler asks a route that there is, for a member that its answer always has."""
    documents = list(yaml.safe_load_all((DEPLOY / "keda.yaml").read_text()))
    [scaled] = (each for each in documents if each["kind"] == "ScaledObject")
    [trigger] = scaled["spec"]["triggers"]
    [operation] = (each for each in OPERATIONS if trigger["metadata"]["url"].endswith(f":8000{each.path}"))
    assert trigger["metadata"]["valueLocation"] in SCHEMAS[operation.answers[0].schema]["required"]
    [authentication] = (each for each in documents if each["kind"] == "TriggerAuthentication")
    assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]
