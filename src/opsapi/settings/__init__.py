"""The configuration: one YAML file and `OPSAPI_…` environment variables, validated whole at start."""
