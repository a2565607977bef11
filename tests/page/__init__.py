"""The viewer in a real browser, on a real sidecar and Redis."""
