"""Backups: what can be brought back, proved before it is needed."""
