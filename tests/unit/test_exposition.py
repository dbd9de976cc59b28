"""The server of `/metrics`: it answers while it is wanted, and holds up nobody who stops."""

from __future__ import annotations

import time
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry

from latchgate_server.exposition import metrics_server


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "0.0.0.0:0"])
def test_it_ends_at_once(listen: str) -> None:
    quickest = 10.0
    for _ in range(5):
        with metrics_server(listen, CollectorRegistry()) as address:
            port = address.rpartition(":")[2]
            with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
                assert page.status == 200
            began = time.monotonic()
        quickest = min(quickest, time.monotonic() - began)
        with pytest.raises(URLError):
            urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10)
    assert quickest < 0.3, "it would end by itself in half a second"
