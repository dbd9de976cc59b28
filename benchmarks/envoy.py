"""Row envoy: requests through Envoy, without authorization, with Envoy's own api_key_auth, and with Latchgate."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from benchmarks.house import ADDRESS, Bench, decisions_are
from benchmarks.load import Shape
from benchmarks.measure import Cost, Subject, in_turn
from benchmarks.report import Figure
from tests.support import envoy as support
from tests.support.envoy import Config, Envoy

_PATH = "/admin"  # the route with a permission of its own
_NEEDS = "orders.read AND (orders.export OR admin.all) AND NOT orders.frozen"
_OWN = {
    "@type": "type.googleapis.com/envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuth",
    "key_sources": [{"header": "x-api-key"}],
}


def run(bench: Bench, wanted: Collection[str]) -> Sequence[Figure]:
    """Measure the row. Each request carries one hot key."""
    key_string = bench.hot[0].key_string
    # Few enough at once that none of them is refused.
    shape = Shape(processes=4, streams=4, headers=(f"x-api-key: {key_string}", f"x-client-ip: {ADDRESS}"))
    with ExitStack() as stack:
        servers = {
            transport: stack.enter_context(bench.server(transport, client_ip_header="x-client-ip"))
            for transport in ("native", "grpcio")
        }
        bench.progress("starting Envoy")
        addresses = {transport: server.verify_address for transport, server in servers.items()}
        envoy = stack.enter_context(Envoy(_config(key_string, addresses)))

        def subject(name: str, listener: str, pid: int) -> Subject:
            check = partial(decisions_are, servers[listener], "ALLOW") if listener in servers else _unchecked
            return Subject(name, f"127.0.0.1:{envoy.port(listener)}", [pid], [b"x"], _PATH, shape, check)

        subjects = [
            subject("alone", "alone", envoy.pid),
            subject("own", "own", envoy.pid),
            subject("asking", "native", envoy.pid),
            *(subject(transport, transport, server.pid) for transport, server in servers.items()),
        ]
        return _figures(in_turn(subjects, bench.options.rounds, bench.options.seconds, bench.progress))


def _unchecked() -> Callable[[int], None]:
    return lambda _: None


def _replace_authorization(listener: Config, instead: Sequence[Config]) -> None:
    for route in support.routes(listener):
        route.pop("typed_per_filter_config", None)
    filters = support.manager(listener)["http_filters"]
    filters[:] = [*instead, *(one for one in filters if one["name"] != support.EXT_AUTHZ)]


def _config(key_string: str, addresses: Mapping[str, str]) -> Config:
    """Listeners without authorization, with Envoy's own, and one for each Latchgate. Envoy itself is the upstream."""
    config = support.bootstrap("127.0.0.1:1", addresses["native"])
    support.add_cluster(config, "latchgate", "grpcio", addresses["grpcio"])
    (api,) = config["static_resources"]["listeners"]
    for route in support.routes(api):
        del route["route"]
        route["direct_response"] = {"status": 200}
    per_route: Any = support.routes(api)[1]["typed_per_filter_config"][support.EXT_AUTHZ]
    per_route["check_settings"]["context_extensions"]["permissions"] = _NEEDS
    filters = support.manager(api)["http_filters"]
    # The load says itself where its clients are.
    filters[:] = [one for one in filters if "header_mutation" not in one["name"]]
    # What is measured is work, not patience.
    support.ext_authz(api)["grpc_service"]["timeout"] = "10s"
    own = {**_OWN, "credentials": [{"key": key_string, "client": "bench"}]}
    _replace_authorization(support.add_listener(config, "alone"), [])
    _replace_authorization(
        support.add_listener(config, "own"), [{"name": "envoy.filters.http.api_key_auth", "typed_config": own}]
    )
    support.add_listener(config, "native")
    support.add_listener(config, "grpcio", "grpcio")
    return config


def _figures(costs: Mapping[str, Cost]) -> Sequence[Figure]:
    ratio = costs["grpcio"].cpu / costs["native"].cpu
    return [
        _cost("Envoy without authorization", costs["alone"]),
        _cost("Envoy with its own api_key_auth", costs["own"]),
        _cost("Envoy that asks Latchgate on native", costs["asking"]),
        _cost("Latchgate on native, a check", costs["native"]),
        _cost("Latchgate on grpcio, a check", costs["grpcio"]),
        Figure("envoy", "checks on native, rate in that of grpc.aio", ratio, "", "more than 2", ratio > 2),
    ]


def _cost(what: str, cost: Cost) -> Figure:
    beside = f"{cost.rate:,.0f} requests a second here"
    return Figure("envoy", what, cost.microseconds, "µs CPU a request", beside=beside)
