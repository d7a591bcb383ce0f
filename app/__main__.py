"""``neverseen``: the command line of the service.

What is refused becomes one line on standard error, and exit code 2; nothing is changed then.
"""

from __future__ import annotations

import typer
from pydantic import ValidationError
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from app.commands import attributions, audit, datasets, keys, predict, privacy, samples, serve, sketches, subsets
from app.commands.backup import backup
from app.commands.calibration import calibration
from app.commands.demo import demo
from app.commands.worker import worker
from app.db import migrate
from app.errors import FULL, AppError, is_full
from app.settings import Settings
from engine.errors import EngineError
from engine.terminal import refuse
from engine.threads import use_one_thread

app = typer.Typer(
    name="neverseen",
    help="What would the model be without these documents?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(demo)
app.command()(serve.serve)
app.command()(predict.predict)
app.command()(attributions.attributions)
app.command()(calibration)
app.command()(samples.samples)
app.command()(backup)
app.command()(worker)
app.add_typer(datasets.app, name="datasets")
app.add_typer(subsets.app, name="subsets")
app.add_typer(sketches.app, name="sketches")
app.add_typer(keys.app, name="keys")
app.add_typer(audit.app, name="audit")
app.add_typer(privacy.app, name="privacy")

database = typer.Typer(help="The catalog's database.", no_args_is_help=True)
app.add_typer(database, name="db")


@database.command()
def upgrade() -> None:
    """Bring the database to this version's schema."""
    migrate(Settings().database_url)


def main() -> None:
    """Run the command line."""
    use_one_thread()
    try:
        app()
    except (AppError, EngineError) as error:
        refuse(str(error))
    except OperationalError as error:
        if is_full(error):
            refuse(FULL)
        refuse("The catalog's database can't be reached, or is busy. Is NEVERSEEN_DATABASE_URL right, and does it run?")
    except SQLAlchemyError as error:
        refuse(f"The catalog can't be used: {type(error).__name__}. Is NEVERSEEN_DATABASE_URL right?")
    except OSError as error:
        refuse(f"A file or directory can't be used: {error.strerror}.")
    except ValidationError as error:  # of the settings
        refuse("; ".join(f"NEVERSEEN_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()))


if __name__ == "__main__":
    main()
