"""Playbooks: the operations that a workspace can be asked for, from diagnosis to verified effect."""
