# One small image, two entry points: `--target server` (the default) and `--target agent` share every layer.
#
#   docker build -t veldaio/velda-apiserver .
#   docker build -t veldaio/agent --target agent .
#
# BASE is any image with a shell, libstdc++ and Python 3.11 or later as `python3`; UV is any with the uv binary at /uv.

ARG BASE=docker.io/library/python:3.11.14-slim-bookworm
ARG UV=ghcr.io/astral-sh/uv:0.13.9

FROM ${UV} AS uv

FROM ${BASE} AS build
ENV UV_PROJECT_ENVIRONMENT=/opt/velda/venv \
    UV_PYTHON_PREFERENCE=only-system \
    UV_LINK_MODE=copy \
    UV_NO_PROGRESS=1 \
    # Behind a proxy with a CA of its own, mount that over /etc/ssl/certs for the build.
    UV_SYSTEM_CERTS=1 \
    # A .pyc that names its source by hash stays valid whatever the layer's timestamps are.
    UV_COMPILE_BYTECODE=1 \
    PYC_INVALIDATION_MODE=UNCHECKED_HASH
WORKDIR /opt/velda/lib
COPY pyproject.toml uv.lock ./
RUN --mount=type=bind,from=uv,source=/uv,target=/usr/local/bin/uv \
    --mount=type=cache,target=/root/.cache/uv \
    uv sync --locked --no-dev --no-install-project
COPY certs certs
COPY crd crd
COPY app app
RUN python3 -m compileall -q --invalidation-mode unchecked-hash app certs crd && rm pyproject.toml uv.lock

FROM ${BASE} AS runtime
RUN echo 'velda:x:65532:65532:velda:/tmp:/usr/sbin/nologin' >> /etc/passwd && echo 'velda:x:65532:' >> /etc/group
COPY --from=build /opt/velda/venv /opt/velda/venv
COPY --from=build /opt/velda/lib /opt/velda/lib
# The root file system may be read-only: nothing is written beside the code, and logs leave at once.
ENV PATH=/opt/velda/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONPATH=/opt/velda/lib \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="velda-apiserver" \
      org.opencontainers.image.description="Scales pools of Velda worker agents on Kubernetes and hands sessions to them" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

FROM runtime AS agent
ENTRYPOINT ["python", "-m", "app", "agent"]

FROM runtime AS server
EXPOSE 8443 50051
ENTRYPOINT ["python", "-m", "app"]
