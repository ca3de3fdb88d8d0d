#!/usr/bin/env bash
# Build every image under the tag "test", then run a command that finds them (what `make test-containers` calls).
set -euo pipefail
cd "$(dirname "$0")/.."
. docker/engine.sh
export IMAGE_REGISTRY=${IMAGE_REGISTRY:-localhost/latentrec} IMAGE_TAG=${IMAGE_TAG:-test}
BASE_IMAGE=${BASE_IMAGE:-$(.ci/base_image)}
export BASE_IMAGE
docker/build.sh
exec "$@"
