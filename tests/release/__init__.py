"""What a release has; `make release-check`."""
