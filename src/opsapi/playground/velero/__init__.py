"""A stand-in for Velero: the controllers of velero.io/v1, and the storage that its backups lie in."""
