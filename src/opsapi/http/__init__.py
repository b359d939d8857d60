"""Serves the endpoints' declarations over HTTP: guard, decoding, envelope, OpenAPI and the server itself."""
