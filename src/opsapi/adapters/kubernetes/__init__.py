"""Kubernetes: clusters read through a cache that reflectors keep equal to them, and written to with preconditions."""
