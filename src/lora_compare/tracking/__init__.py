"""MLflow looks on: one run per method, one per other stage, under one per pipeline state."""
