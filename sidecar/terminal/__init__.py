"""The commands for a terminal; `status` and `watch` need the standard library alone, which a worker has."""
