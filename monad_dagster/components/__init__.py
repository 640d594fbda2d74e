"""The components room; see docs/architecture.md."""
