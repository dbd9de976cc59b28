"""The only composition root: what is built from what, and in which order it starts and stops."""

from latchgate_server.bootstrap.access import certificate_files, check_certificates
from latchgate_server.bootstrap.database import CONNECTIONS
from latchgate_server.bootstrap.limit_store import check_limit_store, open_limit_store
from latchgate_server.bootstrap.process import (
    Addresses,
    check_audit_log,
    check_start,
    initialize,
    recover,
    run_server,
)

__all__ = [
    "CONNECTIONS",
    "Addresses",
    "certificate_files",
    "check_audit_log",
    "check_certificates",
    "check_limit_store",
    "check_start",
    "initialize",
    "open_limit_store",
    "recover",
    "run_server",
]
