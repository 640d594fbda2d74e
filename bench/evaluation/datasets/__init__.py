"""The data sets, one reader each; `catalogue` names them with their cut-offs and tasks."""
