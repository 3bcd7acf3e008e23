"""What the machine does while it trains, where the user asks MLflow for it."""

from collections.abc import Callable
from typing import Any, cast

from lora_compare.tracking.server import Server


def watch_system(server: Server, run_id: str) -> Callable[[], None] | None:
    """Log use of CPU, memory, disk, network and GPU to a run, where MLflow is told to.

    MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=true tells it; MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL is
    the time between two values in seconds.

    Args:
        server: The tracking server.
        run_id: The run.

    Returns:
        What ends it; None where it is not wanted.
    """
    from mlflow import environment_variables

    wanted: Any = environment_variables.MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING
    if not wanted.get():
        return None
    from mlflow.system_metrics import system_metrics_monitor

    make: Any = system_metrics_monitor.SystemMetricsMonitor
    monitor = make(run_id, tracking_uri=server.uri)
    monitor.start()
    return cast(Callable[[], None], monitor.finish)
