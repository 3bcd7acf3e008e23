"""The page of an experiment in MLflow: its address, its description, the columns that matter.

MLflow keeps the columns of a page in the browser of each reader. A view that a reader shares is a
tag of the experiment, though, which the address names by its key; so there is one for everybody.
"""

import json
from collections.abc import Iterable, Mapping

from lora_compare.errors import UserError, without_credentials
from lora_compare.tracking.figures import ROW, VERDICT
from lora_compare.tracking.runs import BASE, DATA, PIPELINE, RunRecord
from lora_compare.tracking.server import RESTART, Server, first_line, remedy
from lora_compare.tracking.store import Store, connect, existing, troubles

VIEW = "lora-compare"
"""The key of the view in the address of the page."""

VIEW_NAME = "Methods by what matters"
"""What the menu Views of the page calls it."""

SHARED_VIEW = f"mlflow.sharedViewState.{VIEW}"
NOTE = "mlflow.note.content"

MOST_SETTINGS = 6
"""Settings beside them: more would push the figures out of sight."""

WIDTH = 150
"""Pixels of a column: enough for the name of its metric."""

NAME, NAME_WIDTH = "attributes.`Run Name`", 320
"""The column of the names and its pixels: enough for a pipeline's data set and base."""

INTRODUCTION = (
    "Fine-tuning methods on the same messages. Each pipeline run holds the runs of one state of "
    "the project: expand it with +, tick two methods, press Compare. Above: the last one."
)


def describe(store: Store, records: Iterable[RunRecord]) -> None:
    """Give an experiment the tags after a comparison that it has not, but for a reader's words.

    Args:
        store: The experiment.
        records: The runs of one state of the pipeline.
    """
    if tags := experiment_tags(records):
        for name, value in changes(store.tags(), tags).items():
            store.tag(name, value)


def experiment_tags(records: Iterable[RunRecord]) -> dict[str, str]:
    """Return the experiment's tags after a complete comparison; none before one.

    Args:
        records: The runs of one state of the pipeline.
    """
    records = list(records)
    verdicts = [r.description for r in records if r.stage == PIPELINE and r.description]
    if not verdicts:
        return {}
    methods = [record.params for record in records if record.stage == "method"]
    # The page shows the first line, and the rest on demand.
    tags = next(r.tags for r in records if r.stage == PIPELINE)
    last = f"The last one is of the data set {tags[DATA]} with the base model {tags[BASE]}."
    note = f"{verdicts[-1]}\n\n{last}\n\n{INTRODUCTION}"
    return {NOTE: note, SHARED_VIEW: _view(differing(methods))}


def changes(there: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str]:
    """Return those of the `wanted` tags that an experiment has not; a reader's own words stay.

    Args:
        there: The tags of the experiment.
        wanted: Those that `experiment_tags` returned.
    """
    note = there.get(NOTE, "")
    foreign = {NOTE} if note and not note.endswith(INTRODUCTION) else set()
    return {k: v for k, v in wanted.items() if there.get(k) != v and k not in foreign}


def differing(methods: Iterable[Mapping[str, str]]) -> list[str]:
    """Return the settings in which methods differ, in their order.

    Args:
        methods: The settings of each method, as its run shows them.
    """
    methods = list(methods)
    keys = dict.fromkeys(key for settings in methods for key in settings)
    return [key for key in keys if len({settings.get(key) for settings in methods}) > 1]


def _view(settings: list[str]) -> str:
    """Return the state of MLflow's page of runs as MLflow 3 reads it from a saved view.

    With its name around it, the menu Views lists it too. The times of its making sort that menu:
    they are none, so that the tag is the same for the same methods.
    """
    columns = [*(f"metrics.`{key}`" for key in ROW.values()), f"tags.`{VERDICT}`"]
    columns += [f"params.`{key}`" for key in settings[:MOST_SETTINGS]]
    state = {
        "searchFilter": "",
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": [NAME, *columns],
        "columnWidths": {NAME: NAME_WIDTH, **dict.fromkeys(columns, WIDTH)},
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "FIRST_10_RUNS",
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": False,
        "groupBy": None,
        "groupsExpanded": {},
        "autoRefreshEnabled": True,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "globalLineChartConfig": {
            "xAxisKey": "step",
            "lineSmoothness": 0,
            "selectedXAxisMetricKey": "",
        },
    }
    view = {"name": VIEW_NAME, "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)}
    return json.dumps(view)


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


def address_of_runs(server: str, experiment: str, view: str | None = None) -> str:
    """Return the page of an experiment's runs.

    MLflow 3 opens an experiment for agents, without any run, unless the address says otherwise.

    Args:
        server: The address of MLflow's server.
        experiment: Id of the experiment.
        view: Key of a shared view of the page, which the experiment must have.
    """
    page = f"#/experiments/{experiment}/runs?workflowType=machine_learning"
    page += f"&viewStateShareKey={view}" if view else ""
    return f"{without_credentials(server).rstrip('/')}/{page}"
