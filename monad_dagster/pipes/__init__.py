"""The pipes room; see docs/architecture.md."""
