"""How Alembic runs the migrations: all in one transaction, on the database it is handed or that of the settings.

`app.db.migrate` hands over a URL; on Alembic's own command line the settings decide.
"""

from alembic import context

from app.db import connect, writing
from app.settings import Settings
from app.tables import Table


def run() -> None:
    """Run the migrations that Alembic asked for."""
    if context.is_offline_mode():
        raise SystemExit("Migrations look at the database they change: leave out --sql.")
    url = context.config.attributes.get("url") or Settings().database_url
    database = connect(url, enforce_foreign_keys=False, in_time=False)
    try:
        # Processes that start on the same empty SQLite file take turns.
        with writing(database).begin() as connection:
            context.configure(
                connection=connection,
                target_metadata=Table.metadata,
                render_as_batch=connection.dialect.name == "sqlite",  # SQLite can't alter constraints
                transactional_ddl=True,  # which SQLite can do, the way we connect
                compare_server_default=True,
            )
            with context.begin_transaction():
                context.run_migrations()
    finally:
        database.dispose()


run()
