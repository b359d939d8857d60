"""Incidents: what is wrong, who knows, and what was done about it."""
