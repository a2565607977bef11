"""The whole product on one machine: Redis, a Celery worker, a producer and the sidecar."""
