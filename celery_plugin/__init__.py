"""The plugin of a Celery worker: load it with ``celery worker -I celery_plugin`` and it watches.

The setting ``imports = ("celery_plugin",)`` and the environment variable
``CELERY_WORKER_INCLUDE=celery_plugin`` do the same.
"""

import sys

__version__ = "0.1.0"

# The sidecar imports the contract from here and must not pay for, or depend on, Celery; a worker that
# loads this module has imported Celery long before.
if "celery" in sys.modules:
    from celery_plugin.plugin import install

    install()
