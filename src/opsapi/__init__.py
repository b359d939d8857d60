"""opsapi: the guarded control surface between AI agents and Kubernetes."""

__version__ = "0.1.0"
