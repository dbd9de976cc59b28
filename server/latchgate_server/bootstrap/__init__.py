"""The only composition root: what is built from what, and in which order it starts and stops."""

from latchgate_server.bootstrap.database import CONNECTIONS
from latchgate_server.bootstrap.process import Addresses, check_audit_log, initialize, recover, run_server

__all__ = ["CONNECTIONS", "Addresses", "check_audit_log", "initialize", "recover", "run_server"]
