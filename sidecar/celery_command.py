"""``celery -A proj sidecar …``: the commands for a terminal, which find their addresses in the app.

Celery loads this module whatever it is called for, a worker too. So it imports nothing of ours before a
command is run: ``celery_plugin`` watches the worker that imports it, and that is for its owner to say.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from celery_plugin.state_redis import Place

PROGRAM: Final = "celery sidecar"
# Of `app.conf`, beside what the plugin reads there.
_SETTINGS: Final = {"sidecar_url": "SIDECAR_URL", "sidecar_token_file": "SIDECAR_TOKEN_FILE"}
_ANYTHING: Final = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


@click.group("sidecar", help="Watch the queue: what the sidecar tells, and what may be wrong.")
def sidecar() -> None:
    """Hold the commands."""


def _add(name: str, text: str) -> None:
    @sidecar.command(name, help=text, context_settings=dict(_ANYTHING))
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    @click.pass_context
    def command(context: click.Context, arguments: tuple[str, ...]) -> None:
        sys.exit(_run(context.obj.app, name, arguments))


_add("status", "Print the figures of now.")
_add("watch", "Watch the queue live.")
_add("doctor", "Look for what is wrong, and say what to do.")


def _run(app: Any, name: str, arguments: tuple[str, ...]) -> int:
    from sidecar.cli import report
    from sidecar.settings import BadSettings, typos
    from sidecar.terminal.commands import run_alone
    from sidecar.terminal.output import tell_mistake

    # What the app says of Redis is the worker's, which writes.
    more = ("--as-worker",) if name == "doctor" else ()
    try:
        environ = settings_of(app, os.environ) if name == "doctor" else _given(app, os.environ)
        return run_alone(PROGRAM, name, (*more, *arguments), environ)
    except BadSettings as error:
        return report(error.mistakes, typos(os.environ))
    except ModuleNotFoundError as error:
        # Kombu's transports import what their brokers need.
        return tell_mistake(f"{error.name} is not installed here, and this needs it")


def settings_of(app: Any, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that the app's own settings come to; those of the environment win; raises BadSettings."""
    from celery_plugin.settings import SettingsError, load
    from celery_plugin.state_redis import find_redis
    from sidecar.settings import BadSettings

    try:
        settings = load(app.conf, environ)
    except SettingsError as error:
        raise BadSettings(str(error).split("; ")) from None
    try:
        connection = app.connection_for_read()
    except ValueError:
        # Its text may have a piece of the password.
        raise BadSettings(
            ["the broker_url of the app cannot be read: is what is special in it %xx?"]
        ) from None
    broker = find_redis(app)
    found = {"SIDECAR_PREFIX": settings.prefix, "SIDECAR_QUEUES": _queues(app)}
    # `find_redis` answers with the result backend where the broker is none.
    if connection.transport.driver_type == "redis" and broker is not None:
        found["SIDECAR_BROKER_URL"] = url_of(broker)
    else:
        found["SIDECAR_BROKER_URL"] = connection.as_uri(include_password=True)
    if settings.redis_url:
        found["SIDECAR_REDIS_URL"] = settings.redis_url
    elif broker is not None:
        found["SIDECAR_REDIS_URL"] = url_of(broker)
    elif not environ.get("SIDECAR_REDIS_URL"):
        raise BadSettings(["neither broker nor result backend of the app is Redis: set SIDECAR_REDIS_URL"])
    return found | _given(app, environ)


def url_of(place: Place) -> str:
    """Write what Celery knows of TLS and of Sentinels into the URL."""
    from urllib.parse import urlencode

    from celery_plugin.redis_servers import Sentinels, url_of_sentinels
    from celery_plugin.redis_urls import certificate_requirement, options_of

    known = options_of("rediss")
    options = {
        name: certificate_requirement(value.name) if hasattr(value, "name") else str(value)
        for name, value in place.tls.items()
        if name in known and value is not None
    }
    if isinstance(place.servers, Sentinels):
        return url_of_sentinels(place.servers, place.url, options)
    separator = "&" if "?" in place.url else "?"
    return f"{place.url}{separator}{urlencode(options)}" if options else place.url


def _given(app: Any, environ: Mapping[str, str]) -> dict[str, str]:
    """What is given by name, in the app's settings or, which wins, in the environment."""
    conf = {variable: str(app.conf.get(name) or "") for name, variable in _SETTINGS.items()}
    given = {name: value for name, value in environ.items() if value.strip()}
    if "SIDECAR_TOKEN" in given:
        del conf["SIDECAR_TOKEN_FILE"]
    return conf | given


def _queues(app: Any) -> str:
    # One with a comma in its name cannot be given; it is found where a worker consumes it.
    return ",".join(sorted(name for name in app.amqp.queues if "," not in name and name.isprintable()))
