"""The control plane: use cases of administrators, each one transaction."""
