"""Outside systems that measure: the Prometheus HTTP API."""
