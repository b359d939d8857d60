"""Webhooks: events written in the transaction of their change, delivered signed, at least once."""
