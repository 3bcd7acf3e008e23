"""What the user is told of a server that fails, and what later stages remember of it."""

from contextlib import suppress

from lora_compare.errors import StorageError, without_credentials
from lora_compare.project.progress import Progress
from lora_compare.tracking.server import Server, remedy
from lora_compare.tracking.spool import Spool

RESTART = "start the server or correct MLFLOW_TRACKING_URI"
"""What may help where an error does not say more."""


def warn(server: Server, progress: Progress, error: Exception) -> None:
    """Say that a run waits here, and let the next stages not wait for the server."""
    known = remedy(error)
    then = f"{known}, then" if known else "when the server is back"
    progress.say(
        f"warning: MLflow at {server.shown} does not take this run ({first_line(error)}). "
        f"Nothing is lost: it waits in .tracking/spool; {then}: lora-compare sync"
    )
    remember_outage(server)


def remember_outage(server: Server) -> None:
    """Let the next stages not wait for a server that has just failed."""
    if server.database is None:
        with suppress(StorageError):  # on a full disk, they ask it again
            Spool(server.state).mark_away(server.shown)


def first_line(error: Exception) -> str:
    """Return what an error says, in one line without passwords."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    # MLflow's message goes on with the innards of the HTTP library, or a whole page of HTML.
    for rest in (" failed with exception ", ". Response body: "):
        line = line.partition(rest)[0]
    return without_credentials(line)[:200]
