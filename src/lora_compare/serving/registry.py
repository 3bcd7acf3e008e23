"""MLflow's model registry: every method as a model to serve, the best one as its champion."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lora_compare.serving.bundles import NAME, Bundle
from lora_compare.serving.packaging import written
from lora_compare.tracking.diary import CONTENT, Diary
from lora_compare.tracking.store import Store

ALIAS = "champion"
"""The alias of the version to serve: models:/NAME@champion."""

METHOD = "lora_compare.method"
MODEL_VERSIONS = "mlflow.modelVersions"
"""The tag by which MLflow's pages lead from a logged model to its registered version. Its server
sets it; a database that is written without a server does not."""

FIGURES = ("test/accuracy", "test/f1", "params/trainable", "artifact/bytes", "cost/train_seconds")
"""The metrics of a run that MLflow's table of models shows too."""

MOST_MODELS = 1000
"""Registered models that are looked at; MLflow gives no more at once."""


class Registry:
    """The registered models of this program; they are called `lora-compare-DATA-BASE-METHOD`.

    Args:
        store: The experiment to which the models' runs belong.
    """

    def __init__(self, store: Store) -> None:
        self._store, self._client = store, store.client
        self._experiment = store.experiment
        pattern = NAME.format("%", "%", "%")
        found = self._client.search_registered_models(f"name LIKE '{pattern}'", MOST_MODELS)
        # Somebody else's model may have such a name too: its aliases are none of ours.
        self._aliases = {m.name: dict(m.aliases) if METHOD in m.tags else {} for m in found}
        self._tags = {m.name: dict(m.tags) for m in found}

    def version(self, bundle: Bundle) -> Any | None:
        """Return the registered version with that content, or None: its files decide."""
        whole = (v for v in self._versions(bundle) if not self._is_lost(bundle, v.source))
        return next(whole, None)

    def _versions(self, bundle: Bundle) -> list[Any]:
        """Return the versions that are said to have that content."""
        query = f"name = '{bundle.name}' AND tags.`{CONTENT}` = '{bundle.key}'"
        return self._client.search_model_versions(query) if bundle.name in self._aliases else []

    def _is_lost(self, bundle: Bundle, place: str) -> bool:
        """Return whether files of a model are not where it is said to be."""
        sizes = {f"artifacts/models/{k}": path.stat().st_size for k, path in bundle.files.items()}
        return bool(self._store.lost(place, {"MLmodel": None, **sizes}))

    def register(self, bundle: Bundle, run_id: str, own_id: str) -> Any:
        """Return a version of a method's model, which is shown with the method's run.

        It is a new one, but where only the files of a known one were lost.

        Args:
            bundle: The method.
            run_id: The method's run.
            own_id: The run of the training that the model is of; the same where there is one only.
        """
        if bundle.name not in self._aliases:
            tags = {METHOD: bundle.method, **bundle.subject}
            self._client.create_registered_model(bundle.name, tags=tags)
            self._aliases[bundle.name], self._tags[bundle.name] = {}, tags
        model = self._logged(bundle, run_id)
        self._link(bundle, run_id, own_id, model.model_id)
        for known in self._versions(bundle):
            if known.source == model.artifact_location:
                return known
        made = self._client.create_model_version(
            name=bundle.name,
            # Its place, not its name: a database would ask MLflow's global server for that.
            source=model.artifact_location,
            run_id=run_id,
            model_id=model.model_id,
            tags={CONTENT: bundle.key, METHOD: bundle.method, **_seed_tags(bundle)},
            description=bundle.description,
            await_creation_for=0,
        )
        shown = json.dumps([{"name": bundle.name, "version": int(made.version)}])
        self._client.set_logged_model_tags(model.model_id, {MODEL_VERSIONS: shown})
        return made

    def _logged(self, bundle: Bundle, run_id: str) -> Any:
        """Return the model with its files; one that was cut off while it came is replaced.

        Files that a finished one has lost are brought again.
        """
        query = f"tags.`{CONTENT}` = '{bundle.key}'"
        for found in self._client.search_logged_models([self._experiment], query):
            if found.status == "READY" and found.source_run_id == run_id:
                if self._is_lost(bundle, found.artifact_location):
                    self._upload(bundle, found, run_id)
                return found
            self._client.delete_logged_model(found.model_id)
        model = self._client.create_logged_model(
            self._experiment,
            name=bundle.method,
            source_run_id=run_id,
            tags={CONTENT: bundle.key, **_seed_tags(bundle)},
            params=dict(bundle.record.params),
            model_type="classifier",
        )
        self._upload(bundle, model, run_id)
        return self._client.finalize_logged_model(model.model_id, "READY")

    def _upload(self, bundle: Bundle, model: Any, run_id: str) -> None:
        with written(bundle, model, run_id) as folder:
            self._client.log_model_artifacts(model.model_id, str(folder))

    def _link(self, bundle: Bundle, run_id: str, own_id: str, model_id: str) -> None:
        """Show a model on its method's page, and its training's main figures on the model's.

        What the training's own run does not have, such as its price, is the method's.
        """
        from mlflow.entities import LoggedModelOutput, Metric

        run = self._client.get_run(run_id)
        if model_id in {output.model_id for output in run.outputs.model_outputs}:
            return
        # The baselines share a run, in which a figure has its baseline's name before it.
        missing = [*FIGURES, *(f"{bundle.method}/{key}" for key in FIGURES)]
        for source in dict.fromkeys((own_id, run_id)):
            metrics = (run if source == run_id else self._client.get_run(source)).data.metrics
            there = [key for key in missing if key in metrics]
            known = [m for key in there for m in self._client.get_metric_history(source, key)]
            # With the times that they have: to the run itself, this adds nothing.
            figures = [Metric(m.key, m.value, m.timestamp, m.step, model_id) for m in known]
            self._client.log_batch(source, figures)
            missing = [key for key in missing if key not in there]
        self._client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])

    def describe(self, bundle: Bundle, made: Any) -> None:
        """Give a version the description of today."""
        if made.description != bundle.description:
            self._client.update_model_version(bundle.name, made.version, bundle.description)

    def crown(self, bundle: Bundle, made: Any) -> None:
        """Make a version the one champion of its data set and base model."""
        if str(self._aliases[bundle.name].get(ALIAS)) != str(made.version):
            self._client.set_registered_model_alias(bundle.name, ALIAS, made.version)
        # Only then, so that there is a champion at every moment.
        for name, aliases in self._aliases.items():
            same = bundle.subject.items() <= self._tags[name].items()
            if same and name != bundle.name and ALIAS in aliases:
                self._client.delete_registered_model_alias(name, ALIAS)


def _seed_tags(bundle: Bundle) -> dict[str, str]:
    return bundle.seed.tags if bundle.seed else {}


@dataclass(frozen=True)
class Registered:
    """What became of models; each is named with its version, such as `lora-compare-lora 2`.

    Attributes:
        new: Those that were registered.
        known: Those that had been before.
        too_large: Names of those that are registered on request only.
        champion: The one to serve; None where none is known or it is not registered.
    """

    new: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    too_large: tuple[str, ...] = ()
    champion: str | None = None

    @property
    def lines(self) -> list[str]:
        """What to tell of it: nothing where nothing is new."""
        lines = []
        if self.new:
            best = f"; champion: {self.champion}" if self.champion else ""
            lines.append(f"registered in MLflow: {', '.join(self.new)}{best}")
        if self.too_large:
            lines.append(
                f"too large to be registered unasked: {', '.join(self.too_large)}; "
                "to do it: lora-compare register"
            )
        return lines


def register_all(
    store: Store, diary: Diary, models: Iterable[Bundle], limit: float, crown: bool
) -> Registered:
    """Register what is not registered yet; running it again changes nothing.

    Args:
        store: The experiment.
        diary: Where the methods' runs are found.
        models: The methods.
        limit: Bytes above which a model is left to `lora-compare register`.
        crown: Whether their comparison names the project's champion. It does not in the
            temporary copy in which DVC runs a queued experiment.
    """
    models = list(models)
    if not models:
        return Registered()
    registry = Registry(store)
    names: dict[str, list[str]] = {"new": [], "known": [], "too_large": []}
    champion = None
    for bundle in models:
        made = registry.version(bundle)
        if made is None and bundle.size > limit:
            names["too_large"].append(bundle.name)
            continue
        kind = "known" if made else "new"
        if made is None:
            run_id, own_id = diary.id_of(bundle.record.key), diary.id_of(bundle.own.key)
            assert run_id is not None, "a method's run is published before its model"
            assert own_id is not None, "and so is its training's"
            made = registry.register(bundle, run_id, own_id)
        names[kind].append(f"{bundle.name} {made.version}")
        if crown:
            registry.describe(bundle, made)
            if bundle.is_champion:
                registry.crown(bundle, made)
                champion = names[kind][-1]
    return Registered(**{kind: tuple(found) for kind, found in names.items()}, champion=champion)
