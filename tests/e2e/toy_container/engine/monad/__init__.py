"""The toy engine: a package to be packed into the image."""
