"""Redis as users have it: behind Sentinels, in a Cluster, over TLS. Run by `make test-matrix`."""
