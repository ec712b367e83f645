"""What we read from the Kubernetes API, as partial msgspec structs: unknown fields are skipped, not kept."""
