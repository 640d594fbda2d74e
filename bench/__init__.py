"""What `make bench` and `make evaluate` measure; nothing here is shipped in the package."""
