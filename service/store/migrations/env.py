"""Alembic's entry: runs on the connection that `service.store.database` hands over, inside its transaction."""

from alembic import context

from service.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
