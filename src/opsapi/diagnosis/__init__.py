"""Diagnosis: pure analyzers over objects, events and figures; every finding cites its evidence."""
