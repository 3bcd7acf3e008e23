"""What MLflow runs to serve registered methods: stored beside their weights, run from there.

This is MLflow's "models from code": the file itself is the model, nothing is pickled. It runs
under another name, in a process that may have no project and no installed package; then the copy
of the package that is stored beside it is imported.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel


class ServedMethods(PythonModel):
    """The methods of one pipeline state; the request parameter `method` chooses among them."""

    def load_context(self, context: Any) -> None:
        """Load every method in the artifact `models`, a folder like the project's models/."""
        # Here, because what registers a model runs this file too, and needs no torch.
        from lora_compare.compute.device import choose_device
        from lora_compare.serving.classifiers import load_classifiers

        folder = Path(context.artifacts["models"])
        methods = {path.name: path for path in sorted(folder.iterdir()) if path.name != "base"}
        self._classifiers = load_classifiers(folder / "base", methods, choose_device("auto"))

    def predict(
        self,
        context: Any,  # noqa: ARG002 (MLflow gives it)
        model_input: np.ndarray,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Return label, probability, and one probability for each class, a row for each text.

        Args:
            context: What `load_context` got.
            model_input: The texts, one a row; MLflow has refused a table of several columns.
            params: `method`, by default the one that the model is registered as.

        Raises:
            MlflowException: The request is at fault; the server answers with status 400.
        """
        from lora_compare.errors import UserError

        try:
            texts = _texts(model_input)
            answers = self._classifiers.answer(texts, (params or {})["method"])
        except UserError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        rows = [
            {
                "label": answer.label,
                "probability": answer.probability,
                **{f"probability_{name}": p for name, p in answer.probabilities.items()},
            }
            for answer in answers
        ]
        return pd.DataFrame(rows)


def _texts(given: "np.ndarray[Any, np.dtype[Any]]") -> list[Any]:
    """Return the texts of a list, or of a list of rows of one text each."""
    from lora_compare.errors import RequestError

    if given.size != len(np.atleast_1d(given)):
        raise RequestError(
            "There is not one text in each row.",
            expected="a list of texts, or rows of one text each",
            actual=f"rows of {given[0].size} values",
        )
    return given.ravel().tolist()


set_model(ServedMethods())
