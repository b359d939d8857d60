"""Alembic's entry: runs the migrations on the connection, and in the transaction, that the application opened."""

from alembic import context

from opsapi.adapters.sql.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
context.run_migrations()
