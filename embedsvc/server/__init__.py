"""The HTTP server: `create_app` makes it, one file per group of routes."""
