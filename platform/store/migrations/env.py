"""What Alembic runs: the revisions, on the connection and in the transaction that ``revisions.py`` hands over."""

from alembic import context

from slimfed.platform.store.schema import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
