"""The README is held against the code: whoever reads it must find what is there, and nothing else."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from celery_plugin import contract
from celery_plugin.contract import Keys
from celery_plugin.counter_names import FAILED, FAILED_LABELS, LABELS
from celery_plugin.settings import Settings as PluginSettings
from sidecar.operations import OPERATIONS
from sidecar.settings import CLIENT_VARIABLES, SETTINGS
from sidecar.tally import FIGURES, Figure
from sidecar.task_metrics import COUNTED, GAUGES, HISTOGRAMS
from sidecar.terminal.commands import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("deploy/**/*.md")])
README = (ROOT / "README.md").read_text()


def table_after(heading: str) -> list[list[str]]:
    """The rows of the first table below a line, as cells."""
    text = README.split(heading, 1)[1]
    rows = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert rows, f"no table after {heading!r}"
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows[0].splitlines()[2:]]


def in_backquotes(text: str) -> list[str]:
    """What is set as code."""
    return re.findall(r"`([^`]+)`", text)


def test_every_setting_of_the_sidecar_is_listed_with_its_default() -> None:
    """The table of the sidecar's settings is the table of the code."""
    rows = [
        (in_backquotes(row[0])[0], in_backquotes(row[1])) for row in table_after("Of the sidecar, as flag")
    ]
    expected = [
        (setting.variable, [setting.default_text] if _is_value(setting.default_text) else [])
        for setting in SETTINGS
    ]
    assert expected == rows


def _is_value(text: str) -> bool:
    return not text.startswith(("the same", "none"))


def test_every_setting_of_the_plugin_is_listed_with_its_default() -> None:
    """The table of the plugin's settings is the table of the code."""
    rows = [(in_backquotes(row[0])[0], in_backquotes(row[1])) for row in table_after("Of the plugin, in the")]
    expected = [
        (f"SIDECAR_{field.name.upper()}", _default(field.default)) for field in fields(PluginSettings)
    ]
    assert expected == rows


def _default(value: object) -> list[str]:
    if value in (None, ()):
        return []
    if isinstance(value, tuple):
        return [",".join(value)]
    return [f"{value:g}" if isinstance(value, float) else str(value)]


def test_every_command_is_listed() -> None:
    """The table of the commands names each command."""
    listed = {in_backquotes(row[0])[0].split()[-1] for row in table_after("## Commands")}
    assert {"serve", "token", "health", *COMMANDS} == listed


def test_every_variable_of_the_client_is_listed() -> None:
    """The table of the commands that ask names each variable."""
    text = (ROOT / "docs" / "terminal.md").read_text()
    assert set(re.findall(r"^\| `(SIDECAR_\w+)`", text, re.MULTILINE)) == set(CLIENT_VARIABLES)


def listed_routes() -> set[str]:
    """The paths of the table of the routes."""
    return {in_backquotes(row[0])[0].split()[-1] for row in table_after("## Routes")}


def test_every_route_is_listed() -> None:
    """The table of the routes names each route of the application."""
    front_end = {"/", "/static/{path:path}"}
    assert {operation.path for operation in OPERATIONS} | front_end == listed_routes()


def test_every_metric_is_listed_with_its_kind_and_labels() -> None:
    """The table of the metrics is what the code makes."""
    expected = {name: ("counter", FAILED_LABELS if name == FAILED else LABELS) for name in COUNTED}
    expected |= dict.fromkeys(HISTOGRAMS, ("histogram", LABELS))
    expected |= {name: ("gauge", labels) for name, (_, labels) in GAUGES.items()}
    expected |= {each.name: (kind_of(each), (each.label,) if each.label else ()) for each in FIGURES}
    expected["sidecar_build_info"] = ("gauge", ("version",))
    rows = table_after("## Metrics")
    listed = {in_backquotes(row[0])[0]: (row[1], tuple(in_backquotes(row[2]))) for row in rows}
    assert expected == listed


def kind_of(figure: Figure) -> str:
    """What Prometheus calls it."""
    return "histogram" if figure.bounds else "gauge" if figure.is_gauge else "counter"


def test_every_event_type_is_listed() -> None:
    """The table of the messages names each type of event."""
    types = {value for name, value in vars(contract.EventType).items() if name.isupper()}
    listed = {name for row in table_after("## Messages") for name in in_backquotes(row[0])}
    assert types == listed


def test_every_status_is_listed() -> None:
    """The table of the statuses names each status that an event can have."""
    listed = {in_backquotes(row[0])[0] for row in table_after("Times are seconds since the epoch")}
    assert set(contract.RANKS) == listed


@pytest.mark.parametrize("message", [contract.QUEUE_STATUS_FIELDS, contract.TASK_STATUS_FIELDS])
def test_every_promised_field_is_in_the_example(message: tuple[str, ...]) -> None:
    """The examples of the messages have every field that is always there."""
    examples = re.search(r"```json\n(.*?)```", README, re.DOTALL)
    assert examples
    assert set(message) <= set(re.findall(r'"(\w+)":', examples[1]))


def test_every_key_that_is_written_is_listed() -> None:
    """The table of Redis names each key and channel that the code writes."""
    keys = Keys()
    used = (ROOT / "celery_plugin" / "script.py").read_text()
    names = {getattr(keys, name) for name in re.findall(r"keys\.(\w+)", used)}
    listed = {name for row in table_after("## In Redis") for name in in_backquotes(row[0])}
    assert names == listed


def test_every_test_that_is_named_exists() -> None:
    """No promise points to a test that is not there."""
    named = set(re.findall(r"tests/test_\w+\.py", README))
    assert named
    assert [] == [name for name in sorted(named) if not (ROOT / name).exists()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    """No link into the project is dead, neither its file nor its heading."""
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", document.read_text()) if "://" not in target]
    assert [] == [target for target in targets if not _is_there(document, *target.partition("#")[::2])]


def _is_there(document: Path, name: str, heading: str) -> bool:
    file = (document.parent / name).resolve() if name else document
    return file.exists() and (not heading or heading in _headings(file.read_text()))


def _headings(text: str) -> set[str]:
    """The headings as GitHub names them in links."""
    lines = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in lines}


def test_every_make_target_that_is_named_exists() -> None:
    """The commands of README and CONTRIBUTING are in the Makefile."""
    makefile = (ROOT / "Makefile").read_text()
    text = README + (ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"^\$ make ([\w-]+)|`make ([\w-]+)", text, re.MULTILINE))
    targets = {first or second for first, second in named}
    assert targets
    assert [] == [target for target in sorted(targets) if f"\n{target}:" not in makefile]
