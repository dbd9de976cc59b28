"""`latchgate` whose decisions leave no trace, to see what that costs: `python -m benchmarks.forgetful serve`."""

from __future__ import annotations

from functools import partial
from typing import Any

from latchgate_server.bootstrap import data_plane
from latchgate_server.cli import main
from latchgate_server.core.usage import KeepsNoAccount
from latchgate_server.verify.verifier import Verifier


def _forgetful(verifier: Any, **parts: Any) -> Verifier:
    made: Verifier = verifier(**parts | {"usage": KeepsNoAccount()})
    return made


if __name__ == "__main__":
    vars(data_plane)["Verifier"] = partial(_forgetful, Verifier)
    main()
