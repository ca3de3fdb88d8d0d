#!/usr/bin/env bash
# Build every image under the tag "test", then run a command that finds them (what `make test-containers` calls).
# Where BASE_IMAGE is not given and the Dockerfile's own can neither be found here nor pulled, one is made of
# Debian's packages.
set -euo pipefail
cd "$(dirname "$0")/.."
. docker/engine.sh
export IMAGE_REGISTRY=${IMAGE_REGISTRY:-localhost/latentrec} IMAGE_TAG=${IMAGE_TAG:-test}
if [ -z "${BASE_IMAGE:-}" ]; then
    BASE_IMAGE=$(sed -n 's/^ARG BASE_IMAGE=//p' docker/Dockerfile)
    if ! "$ENGINE" image inspect "$BASE_IMAGE" >/dev/null 2>&1 &&
        ! timeout 60 "$ENGINE" pull --quiet "$BASE_IMAGE" >/dev/null 2>&1; then
        BASE_IMAGE=$IMAGE_REGISTRY/base:bookworm
        docker/base.sh "$BASE_IMAGE"
    fi
fi
export BASE_IMAGE
docker/build.sh
exec "$@"
