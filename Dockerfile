# The image of a Latchgate server: docker build -t latchgate .
# tests/e2e/test_dockerfile.py holds this file against the tree.

FROM python:3.13-slim AS builder
WORKDIR /build
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev
# What builds goes into the builder's own Python, with what the compiler asks types of: the environment that is copied has
# no use for it.
COPY requirements/bootstrap.lock requirements/compile.lock requirements/server.lock requirements/
RUN pip install --no-cache-dir --require-hashes -r requirements/bootstrap.lock \
    && uv pip install --system --no-cache --require-hashes -r requirements/compile.lock -r requirements/server.lock
RUN python -m venv --without-pip /opt/latchgate \
    && uv pip sync --python /opt/latchgate/bin/python --no-cache --compile-bytecode \
        --require-hashes requirements/server.lock
COPY client client
COPY server server
COPY supply supply
# The server with its hot path compiled, and Argon2 for the processor that it will run on.
RUN pip install --no-cache-dir --no-deps --no-build-isolation ./client \
    && HATCH_BUILD_HOOK_ENABLE_MYPYC=1 \
        pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir wheels ./client ./server \
    && uv pip install --python /opt/latchgate/bin/python --no-cache --compile-bytecode --no-deps wheels/*.whl \
    && python -m supply.argon2 "$(/opt/latchgate/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

FROM python:3.13-slim
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin latchgate
COPY --from=builder /opt/latchgate /opt/latchgate
ENV PATH=/opt/latchgate/bin:$PATH
# Where latchgate.toml is looked for, if one is mounted.
WORKDIR /etc/latchgate
# A number, so that an orchestrator sees without the image's passwd that it is not root.
USER 10001:10001
# VerifyService with Envoy's service, AdminService, metrics. They listen on loopback unless LATCHGATE_VERIFY_LISTEN,
# LATCHGATE_ADMIN_LISTEN and LATCHGATE_METRICS_LISTEN say otherwise, and beyond it only with TLS or `serve --insecure`.
EXPOSE 50051 50052 9464
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["latchgate", "health"]
ENTRYPOINT ["latchgate"]
CMD ["serve"]
