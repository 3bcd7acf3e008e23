"""The process that delivers the letters of a project's stages to its tracking store."""

import sys

from lora_compare.project.paths import Paths
from lora_compare.tracking import postman

COMMAND = (sys.executable, "-m", "lora_compare.cli.postman")


def hire(paths: Paths) -> None:
    """Start that process where none runs.

    Args:
        paths: The folder that a stage runs in.
    """
    postman.hire(paths, COMMAND)


def main() -> None:
    """Deliver the letters of the project in the current folder, and end when there are none."""
    from lora_compare.serving.publication import prepare_models, registering
    from lora_compare.tracking.server import Server
    from lora_compare.tracking.store import prepare

    server = Server.configured(Paths.here())
    if server is None:
        return

    def get_ready() -> None:
        prepare(server)
        prepare_models()

    postman.serve(server, get_ready, registering(server))
    postman.leave()


if __name__ == "__main__":
    main()
