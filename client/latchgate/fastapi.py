"""A dependency for FastAPI: what a path operation requires, and who calls it.

    from latchgate.fastapi import ApiKeys

    app = FastAPI()
    api_keys = ApiKeys(app, "127.0.0.1:50051")

    @app.get("/orders")
    def orders(caller: Annotated[Identity, Depends(api_keys.require("orders.read"))]) -> list[Order]: ...

Needs FastAPI, as `pip install latchgate[fastapi]` brings it. The identity is in `request.state.identity` as well.
"""

# Annotations are evaluated as they stand, as FastAPI reads those of a dependency that is an object.
from dataclasses import replace

from fastapi import FastAPI, HTTPException
from fastapi.openapi.models import APIKey, APIKeyIn
from fastapi.requests import HTTPConnection
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase

from latchgate.asgi import App, Connections, Message, Receive, Scope, Send, refuse, telling_limits
from latchgate.guard.credentials import HEADERS
from latchgate.guard.doors import GivenAsyncClient
from latchgate.guard.refusals import Refusal
from latchgate.guard.requirements import ANY_KEY, Requirement, requirement_of
from latchgate.results import Identity, Verification

__all__ = ["ANY_KEY", "ApiKeys", "NotAdmitted", "RequiredKey", "Requirement"]

# Where dependencies leave their decisions for the middleware around them, which tells the client of limits.
_DECISIONS = "latchgate.decisions"


class NotAdmitted(HTTPException):
    """A request that may not pass."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.status, dict(refusal.content), dict(refusal.headers))
        self.refusal = refusal


class RequiredKey(SecurityBase):
    """A dependency: the Identity of a key that satisfies a requirement, or the request ends with NotAdmitted."""

    def __init__(self, connections: Connections, requirement: Requirement) -> None:
        self.model = APIKey.model_validate({"in": APIKeyIn.header, "name": HEADERS[0]})
        self.scheme_name = "ApiKey"
        self._connections = connections
        self._requirement = requirement

    async def __call__(self, connection: HTTPConnection, scopes: SecurityScopes) -> Identity:
        """Ask Latchgate. scopes: what `Security(…, scopes=[…])` asks for besides; each is one more permission."""
        requirement = self._requirement
        if scopes.scopes:
            needed = filter(None, (requirement.permissions, *scopes.scopes))
            requirement = replace(requirement, permissions=" AND ".join(f"({one})" for one in needed))
        parts = {name: str(value) for name, value in connection.path_params.items()}
        asked = self._connections.asked(connection.scope)
        outcome = await self._connections.decide(asked, requirement, parts)
        decisions: list[Verification] = connection.scope.get(_DECISIONS, [])
        decisions.clear()
        if isinstance(outcome, Refusal):
            raise NotAdmitted(outcome)
        decisions.append(outcome)
        assert outcome.identity is not None, "who is let in is known"
        connection.state.identity = outcome.identity
        return outcome.identity


class ApiKeys:
    """What an application knows of API keys."""

    def __init__(
        self,
        app: FastAPI,
        client: GivenAsyncClient,
        *,
        client_ip_header: str | None = None,
    ) -> None:
        """app: whose path operations are to be protected, before it serves.

        client: the address of VerifyService, or what makes a client in the event loop that serves.
        client_ip_header: the header whose word on a client's address is taken, which a proxy of yours overwrites; None:
        the peer that the server reports.
        """
        self._connections = Connections(client, client_ip_header)
        app.add_middleware(_Around, connections=self._connections)
        app.add_exception_handler(NotAdmitted, _answer_to)  # type: ignore[arg-type]  # of this class alone

    def require(self, needs: str | Requirement = ANY_KEY) -> RequiredKey:
        """A dependency for `Depends` or `Security`.

        needs: an expression over permissions, or a Requirement; `{name}` in it stands for that path parameter.
        Raises ValueError for an expression that is empty.
        """
        requirement = requirement_of(needs)
        assert requirement is not None, "what is public depends on no key"
        return RequiredKey(self._connections, requirement)


class _Answer:
    """A refusal as FastAPI's routes send it."""

    def __init__(self, refusal: Refusal) -> None:
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await refuse(self._refusal, scope, receive, send)


async def _answer_to(connection: HTTPConnection, error: NotAdmitted) -> _Answer:
    return _Answer(error.refusal)


class _Around:
    """Tells clients where the limits of their keys stand, whatever a path operation returns."""

    def __init__(self, app: App, connections: Connections) -> None:
        self._app = app
        self._connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._connections.live(self._app, scope, receive, send)
            return
        decisions: list[Verification] = []

        async def telling(message: Message) -> None:
            await (telling_limits(send, decisions[-1]) if decisions else send)(message)

        await self._app({**scope, _DECISIONS: decisions}, receive, telling)
