"""Whether the tracking server is there and takes runs."""

from lora_compare.cli.doctor.findings import Finding, Project, ok, trouble, warning
from lora_compare.errors import UserError


def server(project: Project) -> Finding:
    """Ask the tracking server whether it is well, and whether it may be written to."""
    from lora_compare.tracking.health import examine, own_version
    from lora_compare.tracking.server import Server

    configured = Server.configured(project.paths)
    if configured is None:
        return warning(
            "tracking is off: no run is shown in MLflow", "unset LORA_COMPARE_TRACKING", server=None
        )
    shown = configured.shown
    try:
        health = examine(configured, project.params.tracking.experiment)
    except UserError as error:
        return trouble(f"{shown}: {error.what} {error.actual}", error.next, server=shown)
    known = {"server": shown, "version": health.version, "experiment": health.experiment}
    if not health.exists:
        return ok(f"{shown}, which the first run makes", **known)
    own = own_version()
    what = f"{shown} answers and takes runs"
    if health.version is None:
        return ok(f"{what} (MLflow {own})" if not configured.is_remote else what, **known)
    if health.version.split(".")[0] != own.split(".")[0]:
        return warning(
            f"{what}, but runs MLflow {health.version}, this project {own}",
            f"update the server to MLflow {own.split('.')[0]}",
            **known,
        )
    return ok(f"{what} (MLflow {health.version}; here {own})", **known)
