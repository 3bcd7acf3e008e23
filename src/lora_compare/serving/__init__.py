"""Methods over one base in memory, and as models in MLflow."""
