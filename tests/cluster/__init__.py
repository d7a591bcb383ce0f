"""Builds and serving on Ray clusters of this machine: run by `make test-cluster`."""
