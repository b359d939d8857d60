"""A small Kubernetes in a Python process that speaks the real REST API. Knows nothing of the product but kit."""
