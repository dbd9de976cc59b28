"""Latchgate: the server and its command line."""

import os

# gRPC's fork handlers cannot work beside its own threads, and only complain when PostgreSQL's tools are started.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
# gRPC reads it when it is imported, which is below here. Its own lines, one for each failed handshake of any stranger's
# and in no form of ours, are for those who ask for them: GRPC_VERBOSITY=INFO.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
