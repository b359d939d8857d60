"""Encryption of what the database keeps of others' secrets."""
