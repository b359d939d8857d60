"""Serves the endpoints' declarations over HTTP; the only package (but for the playground's server) that imports Starlette."""
