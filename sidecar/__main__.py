"""Run ``python -m sidecar``, which is ``celery-sidecar``."""

import sys

from sidecar.cli import main

if __name__ == "__main__":
    sys.exit(main())
