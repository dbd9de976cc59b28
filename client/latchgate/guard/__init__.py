"""What the middleware of every framework has in common, without a framework and without I/O.

Where a request's key is (`credentials`), what a route requires (`requirements`, `routes`), the question that makes and
what its answer means (`checks`), and what a client is told (`refusals`, `limit_headers`). Users import it from
`latchgate.asgi`, `latchgate.fastapi`, `latchgate.wsgi` and `latchgate.interceptors`.
"""
