"""Workspace operations by the clock: each tick begins one, whichever replica sees it first."""
