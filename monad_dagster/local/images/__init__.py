"""Image repositories: the OCI registry, its store and the statements on it."""
