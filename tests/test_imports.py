"""Who may import whom, and why: the order of the modules is the way that data goes."""

import ast
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Every module, also those still to come. One that is not here fails the tests: put it in, then see
# which line of RULES it belongs to.
MODULES = {
    "sidecar": {
        "__init__",
        "__main__",
        "access",
        "access_settings",
        "addresses",
        "amqp",
        "api_docs",
        "app",
        "assets",
        "audience",
        "auth_keys",
        "backlog",
        "beginning",
        "bindings",
        "broker",
        "bundle",
        "catching_up",
        "celery_command",
        "census",
        "cli",
        "collector",
        "connections",
        "control",
        "cors",
        "credentials",
        "denials",
        "depths",
        "doctor",
        "doctor.broker",
        "doctor.command",
        "doctor.findings",
        "doctor.redis_server",
        "doctor.rights",
        "doctor.workers",
        "drain",
        "event_log",
        "feed",
        "figures",
        "filters",
        "forms",
        "freed",
        "front",
        "guard",
        "headers",
        "heads",
        "history",
        "hosts",
        "http_protocol",
        "json_schema",
        "limits",
        "listening",
        "located",
        "log_setup",
        "lost",
        "messages",
        "health",
        "metrics",
        "mint",
        "openapi",
        "operations",
        "pages",
        "parameters",
        "paths",
        "pending",
        "principal",
        "problems",
        "processes",
        "pulse",
        "pump",
        "queries",
        "queues",
        "rates",
        "request_ids",
        "request_limits",
        "request_log",
        "routing",
        "schemas",
        "rests",
        "scope",
        "scoped",
        "scoped_status",
        "server",
        "sessions",
        "setting_values",
        "settings",
        "shorten",
        "snapshot",
        "state",
        "status",
        "store",
        "stream",
        "subjects",
        "subscriber",
        "tally",
        "task_beginning",
        "task_metrics",
        "tasks",
        "terminal",
        "terminal.asking",
        "terminal.commands",
        "terminal.follow",
        "terminal.frame",
        "terminal.lines",
        "terminal.live",
        "terminal.output",
        "terminal.picture",
        "terminal.plain",
        "terminal.screen",
        "terminal.status",
        "terminal.target",
        "terminal.text",
        "terminal.watch",
        "tickets",
        "together",
        "tokens",
        "tracking",
        "turns",
        "urls",
        "viewer",
        "waiting_lists",
        "wanted",
    },
    "celery_plugin": {
        "__init__",
        "askers",
        "capture",
        "connections",
        "contract",
        "counter_names",
        "counting",
        "delivery",
        "depths",
        "dispatcher",
        "ends",
        "events",
        "held",
        "located",
        "meter",
        "native",
        "operations",
        "outbox",
        "pace",
        "plugin",
        "progress",
        "progress_meta",
        "progress_reporter",
        "queues",
        "record",
        "redact",
        "redact_names",
        "redact_reading",
        "redact_urls",
        "redis_servers",
        "redis_urls",
        "requests",
        "runs",
        "script",
        "search",
        "settings",
        "state_redis",
        "texts",
        "trouble",
        "worker",
        "writer",
    },
}


def names(package: str, *without: str) -> frozenset[str]:
    """Name the modules of a package as they are imported."""
    dotted = {name: package if name == "__init__" else f"{package}.{name}" for name in MODULES[package]}
    return frozenset(dotted.values()) - set(without)


SIDECAR = names("sidecar")
PLUGIN = names("celery_plugin")
TERMINAL = frozenset(name for name in SIDECAR if name.startswith(("sidecar.terminal", "sidecar.doctor")))
CONTRACT = "celery_plugin.contract"
COUNTER_NAMES = "celery_plugin.counter_names"
REDIS_URLS = "celery_plugin.redis_urls"
REDIS_SERVERS = "celery_plugin.redis_servers"
ASKING = {"celery_plugin.askers", "celery_plugin.meter"}
NATIVE = "celery_plugin.native"
CAPTURE = "celery_plugin.capture"
REDACTION = {f"celery_plugin.{name}" for name in ("redact", "redact_names", "redact_reading", "redact_urls")}
PLUGIN_SETTINGS = "celery_plugin.settings"
# What worker and sidecar both load.
SHARED = {
    CONTRACT,
    COUNTER_NAMES,
    REDIS_URLS,
    REDIS_SERVERS,
    CAPTURE,
    *REDACTION,
    PLUGIN_SETTINGS,
    *ASKING,
    NATIVE,
}


@dataclass(frozen=True)
class Rule:
    """Says who alone may import these modules and what is below them."""

    imported: frozenset[str]
    by: frozenset[str]
    why: str


def only(imported: set[str] | frozenset[str], by: set[str] | frozenset[str], why: str) -> Rule:
    """Make a rule of plain sets."""
    return Rule(frozenset(imported), frozenset(by), why)


# For each import the rule that names the longest part of it holds; what no rule names nobody may import.
RULES = [
    only(
        {CONTRACT},
        SIDECAR | PLUGIN,
        "the contract is what both sides agree on, so both may read it",
    ),
    only(
        {COUNTER_NAMES},
        {"sidecar.task_metrics"} | (PLUGIN - {CONTRACT}),
        "what one counts the other shows, under the same names and in the same buckets",
    ),
    only(
        {REDIS_URLS},
        {"sidecar.celery_command", "sidecar.connections", "sidecar.urls"} | (PLUGIN - {CONTRACT}),
        "both read Celery's URL of a Redis, and one that only one of them understood would split the picture",
    ),
    only(
        {REDIS_SERVERS},
        {
            "sidecar.celery_command",
            "sidecar.doctor.command",
            "sidecar.doctor.redis_server",
            "sidecar.connections",
            "sidecar.located",
            "sidecar.settings",
            "sidecar.store",
            "sidecar.urls",
        }
        | (PLUGIN - {CONTRACT, REDIS_URLS}),
        "both find the master and the node by the same questions, or they would look at different servers",
    ),
    only(
        {CAPTURE},
        {"sidecar.messages", "sidecar.pending", "sidecar.server"} | (PLUGIN - {CONTRACT}),
        "a task that waits is redacted by the very code that redacts one that a worker has",
    ),
    only(
        {PLUGIN_SETTINGS},
        {"sidecar.settings", "sidecar.celery_command"} | (PLUGIN - {CONTRACT}),
        "what is shown of a task is one setting, with one default and one reading, for both",
    ),
    only(
        ASKING,
        {"sidecar.amqp", "sidecar.doctor.broker"} | (PLUGIN - {CONTRACT, REDIS_URLS}),
        "whoever asks an AMQP broker gives it up after the same silence, and spares its log alike",
    ),
    only(
        {"celery_plugin.state_redis"},
        {"sidecar.celery_command"} | (PLUGIN - {CONTRACT, REDIS_URLS}),
        "where the state is, Celery's app says to the plugin and to who looks at it from a terminal",
    ),
    only(
        {"click"},
        {"sidecar.celery_command"},
        "it comes with Celery, which the sidecar itself does not need",
    ),
    only(
        PLUGIN - {CONTRACT},
        PLUGIN - {CONTRACT, REDIS_URLS},
        "the sidecar knows the plugin only by what it writes, and the contract is below everything",
    ),
    only(
        SIDECAR - {"sidecar.app"},
        SIDECAR,
        "a worker must not load the server, whose dependencies it does not have",
    ),
    only(
        {"sidecar.app"},
        {"sidecar.server"},
        "app wires the parts together; a part that imported it would close a circle",
    ),
    only(
        {"celery", "kombu", "billiard"},
        (PLUGIN - {CONTRACT, REDIS_URLS}) | {"sidecar.amqp", "sidecar.doctor.broker"},
        "the sidecar runs without application code and must start without Celery; a broker is asked with it",
    ),
    only(
        {"redis"},
        {
            "sidecar.doctor.broker",
            "sidecar.doctor.command",
            "sidecar.doctor.redis_server",
            "sidecar.doctor.rights",
            "sidecar.bindings",
            "sidecar.broker",
            "sidecar.connections",
            "sidecar.located",
            "sidecar.pending",
            "sidecar.server",
            "sidecar.store",
            "sidecar.subscriber",
            "sidecar.tracking",
            "sidecar.waiting_lists",
            "celery_plugin.connections",
            "celery_plugin.located",
            "celery_plugin.script",
            "celery_plugin.ends",
            "celery_plugin.delivery",
            "celery_plugin.search",
            "celery_plugin.trouble",
            "celery_plugin.writer",
        },
        "who talks to Redis is few, so that an outage is handled in few places",
    ),
    only(
        {"cryptography"},
        {"sidecar.auth_keys"},
        "only a public key needs it, and who has secrets alone does not have it",
    ),
    only(
        {"prometheus_client"},
        {"sidecar.metrics", "sidecar.task_metrics"},
        "the pieces of the sidecar count in numbers of their own, which several processes can share",
    ),
    only(
        {"jwt"},
        {"sidecar.auth_keys", "sidecar.tickets", "sidecar.tokens"},
        "who reads and signs tokens is few, so that no token is read without its checks",
    ),
    only(
        {"anyio", "sse_starlette", "starlette", "uvicorn"},
        SIDECAR
        - {
            "sidecar.access_settings",
            "sidecar.auth_keys",
            "sidecar.cli",
            "sidecar.log_setup",
            "sidecar.health",
            "sidecar.mint",
            "sidecar.request_ids",
            "sidecar.setting_values",
            "sidecar.settings",
            "sidecar.urls",
        }
        - TERMINAL,
        "a worker does not have them, and a mistake in the settings is told before they are loaded",
    ),
]


def existing_modules() -> dict[str, Path]:
    """Find the modules that there are."""
    files = [file for package in MODULES for file in sorted((ROOT / package).rglob("*.py"))]
    return {module_name(file): file for file in files}


def module_name(file: Path) -> str:
    """Say how a file is imported."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(file: Path) -> set[str]:
    """Find what a file imports."""
    return imports_in(file.read_text(encoding="utf-8"), file.parent.relative_to(ROOT).parts)


def imports_in(source: str, package: tuple[str, ...]) -> set[str]:
    """Find every import, also inside functions and under ``TYPE_CHECKING``, without the standard library."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= imported_from(node, package)
    return {name for name in found if name.partition(".")[0] not in sys.stdlib_module_names}


def imported_from(node: ast.ImportFrom, package: tuple[str, ...]) -> set[str]:
    """Tell what one ``from`` line imports: ``from sidecar import app`` is ``sidecar.app``."""
    above = package[: len(package) - node.level + 1] if node.level else ()
    base = ".".join([*above, *([node.module] if node.module else [])])
    submodules = {f"{base}.{alias.name}" for alias in node.names} & (SIDECAR | PLUGIN)
    others = any(f"{base}.{alias.name}" not in submodules for alias in node.names)
    return submodules | ({base} if others else set())


def rule_of(name: str) -> Rule | None:
    """Find the rule that names the longest part of an import."""
    parts = name.split(".")
    starts = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next((rule for start in starts for rule in RULES if start in rule.imported), None)


@pytest.mark.parametrize(("module", "file"), existing_modules().items(), ids=existing_modules())
def test_module_is_listed(module: str, file: Path) -> None:
    """Every module stands in the table, so that somebody has thought about what it may import."""
    assert module in SIDECAR | PLUGIN, (
        f"list {file.stem!r} of {file.relative_to(ROOT)} in MODULES of {__file__}"
    )


@pytest.mark.parametrize(("module", "file"), existing_modules().items(), ids=existing_modules())
def test_imports(module: str, file: Path) -> None:
    """A module imports only what it may."""
    for name in sorted(imports_of(file)):
        rule = rule_of(name)
        assert rule is not None, (
            f"{module} imports {name}, which no line of RULES in {__file__} allows to anybody"
        )
        assert module in rule.by, f"{module} must not import {name}: {rule.why} (RULES in {__file__})"


@pytest.mark.parametrize("module", sorted(SHARED))
def test_what_both_sides_load_needs_only_the_standard_library(module: str) -> None:
    """What worker and sidecar both load imports nothing but the standard library."""
    assert set() == imports_of(existing_modules()[module]) - SHARED


def test_rules_name_modules_of_the_table() -> None:
    """No rule speaks of a module that the table does not have."""
    assert set() == {module for rule in RULES for module in rule.by} - SIDECAR - PLUGIN


@pytest.mark.parametrize(
    ("expected", "line"),
    [
        ({"sidecar.app"}, "import sidecar.app"),
        ({"sidecar.app"}, "from sidecar import app"),
        ({"sidecar.app"}, "from . import app"),
        ({"sidecar.app"}, "from .app import make"),
        ({"sidecar", "sidecar.app"}, "from sidecar import app, __doc__"),
        ({"redis.asyncio"}, "def f():\n    from redis.asyncio import Redis"),
        (set(), "import json, os.path"),
    ],
)
def test_every_form_of_import_is_seen(expected: set[str], line: str) -> None:
    """However an import is written, it is found."""
    assert expected == imports_in(line, ("sidecar",))
