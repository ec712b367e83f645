"""velda-apiserver: scales pools of Velda worker agents on Kubernetes and hands sessions to them."""

__version__ = "0.1.0"
