"""Objects, roles, grants and parameters: the catalog and the statements on it."""
