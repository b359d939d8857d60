"""Workspaces: which clusters there are, what they hold (the inventory), what their overview and nodes say."""
