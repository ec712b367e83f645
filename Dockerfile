# One small image, two entry points: `--target server` (the default) and `--target agent` share every layer.
#
#   docker build -t veldaio/velda-apiserver .
#   docker build -t veldaio/agent --target agent .
#   docker buildx build --platform linux/amd64,linux/arm64 -t veldaio/velda-apiserver .
#
# BASE is any image with Python 3.11 or later as `python3`, libstdc++ and, to build in, a shell; UV is any with the uv
# binary at /uv. Nothing is run in an image of another architecture: arm64 is built on amd64, without emulation.
# Two builds of the same sources give the same files; SOURCE_DATE_EPOCH is what their times are.

ARG BASE=docker.io/library/python:3.11.14-slim-bookworm
ARG UV=ghcr.io/astral-sh/uv:0.13.9

FROM --platform=$BUILDPLATFORM ${UV} AS uv

FROM --platform=$BUILDPLATFORM ${BASE} AS build
ARG TARGETARCH=amd64
ENV UV_PROJECT_ENVIRONMENT=/opt/velda/venv \
    UV_PYTHON_PREFERENCE=only-system \
    UV_LINK_MODE=copy \
    UV_NO_PROGRESS=1 \
    # Behind a proxy with a CA of its own, mount that over /etc/ssl/certs for the build.
    UV_SYSTEM_CERTS=1 \
    # Sets are written to a .pyc in the order of their hashes.
    PYTHONHASHSEED=0
WORKDIR /opt/velda/lib
COPY pyproject.toml uv.lock ./
# Of the kubernetes package's 120 MB all but 2 are models and calls that we make by ourselves; it loads them when asked.
RUN --mount=type=bind,from=uv,source=/uv,target=/usr/local/bin/uv \
    --mount=type=cache,target=/root/.cache/uv \
    case "${TARGETARCH}" in amd64) machine=x86_64 ;; arm64) machine=aarch64 ;; *) machine="${TARGETARCH}" ;; esac && \
    uv sync --locked --no-dev --no-install-project --no-build --python-platform "${machine}-manylinux_2_28" && \
    find "${UV_PROJECT_ENVIRONMENT}" -path '*/kubernetes/*client/models/*' ! -name __init__.py -type f -delete && \
    find "${UV_PROJECT_ENVIRONMENT}" -path '*/kubernetes/*client/api/*' ! -name __init__.py -type f -delete && \
    uv export --locked --no-dev --format cyclonedx1.5 --quiet --output-file /opt/velda/sbom.cdx.json && \
    # The two lines that differ between two exports; both are optional.
    sed -i -e '/"serialNumber":/d' -e '/"timestamp":/d' /opt/velda/sbom.cdx.json && \
    rm pyproject.toml uv.lock "${UV_PROJECT_ENVIRONMENT}/.lock" && \
    python3 -m compileall -q --invalidation-mode unchecked-hash "${UV_PROJECT_ENVIRONMENT}"
COPY certs certs
COPY crd crd
COPY app app
# A .pyc that names its source by hash stays valid whatever the files' times are.
ARG SOURCE_DATE_EPOCH=0
RUN python3 -m compileall -q --invalidation-mode unchecked-hash . && \
    echo 'velda:x:65532:65532:velda:/tmp:/usr/sbin/nologin' >> /etc/passwd && echo 'velda:x:65532:' >> /etc/group && \
    find /opt/velda /etc/passwd /etc/group -exec touch --no-dereference --date="@${SOURCE_DATE_EPOCH}" {} +

FROM ${BASE} AS runtime
COPY --from=build /etc/passwd /etc/group /etc/
COPY --from=build /opt/velda/venv /opt/velda/venv
COPY --from=build /opt/velda/lib /opt/velda/lib
# What the image has of others' Python packages, with their hashes, for scanners.
COPY --from=build /opt/velda/sbom.cdx.json /opt/velda/sbom.cdx.json
# The root file system may be read-only: nothing is written beside the code, and logs leave at once.
ENV PATH=/opt/velda/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    # Also for a user that /etc/passwd does not know: whoever may read the kubeconfig.
    HOME=/tmp \
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
EXPOSE 8443 8444 50051
ENTRYPOINT ["python", "-m", "app"]
