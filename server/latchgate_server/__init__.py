"""Latchgate: the server and its command line."""

import os

# gRPC's fork handlers cannot work beside its own threads, and only complain when PostgreSQL's tools are started.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
