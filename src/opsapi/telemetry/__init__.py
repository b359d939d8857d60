"""Telemetry: measured usage and traffic behind one port of domain questions; what was not observed is null."""
