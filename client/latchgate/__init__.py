"""Latchgate's client: generated stubs under `latchgate.v1`."""
