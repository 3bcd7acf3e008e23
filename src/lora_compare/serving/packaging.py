"""A method as a model in MLflow's format: code, weights, signature and requirements, no pickle."""

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from lora_compare.serving.bundles import PACKAGE, SERVED_MODEL, Bundle

REQUIREMENTS = (
    "mlflow",
    "numpy",
    "pandas",
    "pydantic",
    "rich",
    "ruamel.yaml",
    "safetensors",
    "tiktoken",
    "tokenizers",
    "torch",
)
"""What the code of a served model imports; tests/pipeline/test_registry.py compares."""

NOT_SHIPPED = (
    "__pycache__",
    "cli",
    "comparison",
    "data",
    "exchange",
    "report",
    "tracking",
    "training",
)
"""What lies in the package and no served model imports."""

EXAMPLE = ["See you at seven then.", "You won a tablet! To collect your prize call 09098790503"]


@contextmanager
def written(bundle: Bundle, model: Any, run_id: str) -> Iterator[Path]:
    """Yield a folder with a method as an MLflow model: code, weights, signature, requirements.

    Args:
        bundle: The method.
        model: MLflow's logged model that it becomes.
        run_id: The method's run.
    """
    from mlflow import pyfunc
    from mlflow.models import Model

    with tempfile.TemporaryDirectory() as name:
        models, code, folder = (Path(name, part) for part in ("models", PACKAGE.name, "model"))
        for target, source in bundle.files.items():
            (models / target).parent.mkdir(parents=True, exist_ok=True)
            # A copy, not a link: DVC may have made the file read-only.
            shutil.copyfile(source, models / target)
        shutil.copytree(PACKAGE, code, ignore=shutil.ignore_patterns(*NOT_SHIPPED))
        pyfunc.save_model(
            folder,
            # Not the package's own: its place on this machine would stand in the model.
            python_model=str(code / SERVED_MODEL.relative_to(PACKAGE)),
            artifacts={"models": str(models)},
            code_paths=[str(code)],
            signature=signature(bundle.classes, bundle.method),
            input_example=(np.array(EXAMPLE, dtype=object), {"method": bundle.method}),
            pip_requirements=requirements(bundle.libraries),
            mlflow_model=Model(
                artifact_path=model.artifact_location,
                model_uuid=model.model_id,
                model_id=model.model_id,
                run_id=run_id,
            ),
        )
        yield folder


def signature(classes: Iterable[str], method: str) -> Any:
    """Return what goes in and comes out.

    Args:
        classes: Names of the classes.
        method: What the parameter `method` is where a request has none.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec

    chances = [ColSpec("double", f"probability_{name}") for name in classes]
    return ModelSignature(
        # Not a column: of two, MLflow would drop the second without a word. And not of strings: its
        # server would make text of a number, and the text None of null.
        inputs=Schema([TensorSpec(np.dtype(object), (-1,))]),
        outputs=Schema([ColSpec("string", "label"), ColSpec("double", "probability"), *chances]),
        params=ParamSchema([ParamSpec("method", "string", method)]),
    )


def requirements(libraries: Sequence[str] = ()) -> list[str]:
    """Return the packages that serving needs in the versions that are installed here.

    Args:
        libraries: Those that only some models need.

    A local part such as torch's +cpu is left out: it is of one index, and the version is the same.
    """
    return [f"{name}=={version(name).partition('+')[0]}" for name in (*REQUIREMENTS, *libraries)]
