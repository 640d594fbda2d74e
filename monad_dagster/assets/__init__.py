"""The assets room; see docs/architecture.md."""
