"""Faults that can be injected into a world: into containers, images and nodes."""
