"""Serve it: ``python -m tests.support.django_site PORT DATABASE``."""

from __future__ import annotations

import sys
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIServer, make_server

import django
from django.conf import settings
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application

from deploy.demo.ports import HOST

APPS = ("auth", "contenttypes", "sessions")


class _Server(ThreadingMixIn, WSGIServer):
    # A browser opens connections before it needs them.
    daemon_threads = True


def main(port: str, database: str) -> None:
    """Make the tables, and answer."""
    settings.configure(
        ALLOWED_HOSTS=[HOST],
        DEBUG_PROPAGATE_EXCEPTIONS=True,
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": database}},
        INSTALLED_APPS=[*(f"django.contrib.{app}" for app in APPS), "tests.support.django_site"],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        # Their tables at once, not step by step as they came about.
        MIGRATION_MODULES=dict.fromkeys(APPS),
        ROOT_URLCONF="tests.support.django_site.urls",
        SECRET_KEY="a secret of the tests",
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
    )
    django.setup()
    call_command("migrate", run_syncdb=True, verbosity=0)
    with make_server(HOST, int(port), get_wsgi_application(), server_class=_Server) as server:
        print("ready", flush=True)
        server.serve_forever()


main(*sys.argv[1:])
