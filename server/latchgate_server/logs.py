"""The log: what a line looks like, and how lines get there."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog


def configure_logging(level: str, format_: str, stream: TextIO = sys.stderr) -> None:
    """Set up the log: one line of JSON for each event, or columns for people.

    level: `debug` to `error`. format_: `json`, `console`, or `auto`, which is `console` on a terminal.
    Tracebacks never show the values of variables: one of them could be a secret.
    """
    console = format_ == "console" or (format_ == "auto" and stream.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if console
        else structlog.processors.JSONRenderer()
    )
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if not console:
        processors.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*processors, renderer],
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_ToStructlog()], force=True)
    set_log_level(level)


def set_log_level(level: str) -> None:
    """Log from this level on: `debug` to `error`."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(threshold))
    # What libraries log goes the same way, from WARNING on: below that they may print what they were given.
    logging.getLogger().setLevel(max(threshold, logging.WARNING))


# What grpcio logs of strangers. Metadata that is no UTF-8: all of it, and it may be a credential. And a traceback for
# each message that does not parse and each answer whose client has gone, so that a byte sent is a kilobyte logged.
_OF_STRANGERS = (
    "Invalid encoding on",
    "Unexpected [DecodeError] raised by servicer method",
    "ExecuteBatchError raised in core by servicer method",
)
_LIBRARY = "grpc._cython.cygrpc"


class _ToStructlog(logging.Handler):
    """Hands the standard library's log records to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record under the name of its logger."""
        if record.name == _LIBRARY and record.getMessage().startswith(_OF_STRANGERS):
            return
        log = structlog.get_logger(record.name)
        log.log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info)
