"""Looks at the workers that have been seen: are they alive, with which plugin, and are their clocks right."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import Any, Final

from celery_plugin.contract import JSON, PROTOCOL
from sidecar.doctor.findings import ERROR, NOTE, OK, WARNING, Findings, listed
from sidecar.store import Leases, Store, StoreUnavailable

SKEW_WARN_SECONDS: Final = 1.0
_LOAD_IT: Final = (
    "load the plugin: CELERY_WORKER_INCLUDE=celery_plugin, worker -I celery_plugin, or imports in app.conf; "
    "and look for celery_plugin in the worker's log"
)


async def check_workers(store: Store, findings: Findings) -> list[JSON]:
    """Look at every worker; return the records of those that live."""
    try:
        records = [record for record in map(_read, await store.workers()) if record]
        leases = await store.leases()
    except StoreUnavailable as error:
        findings.add(ERROR, "workers", f"they cannot be read: {error}")
        return []
    alive = [record for record in records if leases.run(str(record.get("worker_id")))]
    if alive:
        findings.add(OK, "workers", f"alive: {listed(_name(each) for each in alive)}")
    else:
        findings.add(WARNING, "workers", "no worker with the plugin is alive under this prefix", _LOAD_IT)
    _check_dead(records, leases, findings)
    _check_plugins(alive, findings)
    _check_clocks(alive, findings)
    _check_given_up(alive, findings)
    return alive


def _check_dead(records: list[JSON], leases: Leases, findings: Findings) -> None:
    dead = [each for each in records if each.get("status") != "offline"]
    dead = [each for each in dead if not leases.run(str(each.get("worker_id")))]
    if dead:
        findings.add(
            WARNING,
            "workers",
            f"silent without having said goodbye: {listed(_name(each) for each in dead)}",
            "they were killed, or cannot reach Redis any more; their tasks are shown as lost",
        )


def _check_plugins(alive: list[JSON], findings: Findings) -> None:
    versions: Counter[str] = Counter()
    other = [each for each in alive if each.get("protocol", PROTOCOL) != PROTOCOL]
    for each in alive:
        versions[
            f"plugin {each.get('plugin_version', '?')} with Celery {each.get('celery_version', '?')}"
        ] += 1
    if other:
        findings.add(
            ERROR,
            "plugin",
            f"it speaks another protocol than {PROTOCOL}, that of this sidecar: {listed(map(_name, other))}",
            "install the same celery-sidecar on both sides; sidecars first",
        )
    if versions:
        words = ", ".join(f"{count} × {name}" for name, count in sorted(versions.items()))
        plugins = {str(each.get("plugin_version", "?")) for each in alive}
        level = NOTE if len(plugins) > 1 and not other else OK
        findings.add(level, "plugin", words, "workers have different versions" if level == NOTE else "")


def _check_clocks(alive: list[JSON], findings: Findings) -> None:
    wrong: defaultdict[str, list[str]] = defaultdict(list)
    known = [each for each in alive if isinstance(each.get("clock_ahead_s"), int | float)]
    for each in known:
        if abs(each["clock_ahead_s"]) > SKEW_WARN_SECONDS:
            wrong["ahead of" if each["clock_ahead_s"] > 0 else "behind"].append(
                f"{_name(each)} by {abs(each['clock_ahead_s']):.1f} s"
            )
    for how, names in wrong.items():
        findings.add(
            WARNING,
            "clock",
            f"workers {how} Redis's clock when they began: {listed(names)}",
            "keep all clocks by NTP: times and durations are shown wrong",
        )
    if known and not wrong:
        findings.add(
            OK, "clock", f"the workers' clocks differ from Redis's by less than {SKEW_WARN_SECONDS:g} s"
        )


def _check_given_up(alive: list[JSON], findings: Findings) -> None:
    lacking = [each for each in alive if each.get("gave_up")]
    if lacking:
        findings.add(
            WARNING,
            "workers",
            f"gave up events while Redis was away or refused them: {listed(map(_name, lacking))}",
            "the worker's log says why",
        )


def _name(record: JSON) -> str:
    return str(record.get("worker"))


def _read(record: bytes) -> JSON | None:
    try:
        found: Any = json.loads(record)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
