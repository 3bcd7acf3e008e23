"""The page on which MLflow shows the runs of this project."""

from lora_compare.errors import UserError
from lora_compare.tracking.outage import RESTART, first_line
from lora_compare.tracking.server import Server, address_of_runs, remedy
from lora_compare.tracking.store import connect, existing, troubles
from lora_compare.tracking.view import SHARED_VIEW, VIEW


def page_of_runs(server: Server, experiment: str, port: int) -> str:
    """Return the address of an experiment's runs.

    A store on this machine gets the experiment where it is missing, so that there is a page
    before the first run; a server that others share is only asked.

    Args:
        server: The tracking server.
        experiment: Name of the experiment.
        port: Where MLflow's own server will listen on this machine, for a store that has none.

    Raises:
        UserError: The store does not answer, or has no such experiment.
    """
    try:
        # The first start of a store takes a lock that MLflow's own server does not know.
        opened = existing if server.is_remote else connect
        with opened(server, experiment) as store:
            if store is not None:
                address = server.uri if server.is_remote else f"http://127.0.0.1:{port}"
                view = VIEW if SHARED_VIEW in store.tags() else None
                return address_of_runs(address, store.experiment, view)
    except troubles() as error:
        raise UserError(
            "The tracking server does not answer.",
            where=server.shown,
            actual=first_line(error),
            next=f"{remedy(error) or RESTART}, then: lora-compare ui",
        ) from error
    raise UserError(
        "The tracking server has no runs of this project yet.",
        where=server.shown,
        expected=f"the experiment {experiment!r}, as tracking.experiment in params.yaml says",
        next="dvc repro; to show what is on disk: lora-compare sync",
    )
