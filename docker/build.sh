#!/usr/bin/env bash
# Build every component image, and MLflow's, with docker or podman; with --push, push them and write images.lock.json.
#   IMAGE_REGISTRY, IMAGE_TAG   names of the images (as the pipelines are compiled)
#   BASE_IMAGE, TORCH_VARIANT   build arguments of docker/Dockerfile
#   ENGINE                      docker or podman; default: the first that is there
#   PIP_CONF, CA_BUNDLE         files that pip needs on this machine; they stay out of the images
#   BUILD_ARGS                  further words for `build`, such as --network=host
set -euo pipefail
cd "$(dirname "$0")/.."
fail() { echo "error: $*" >&2; exit 2; }

engine=${ENGINE:-$(command -v podman >/dev/null && echo podman || { command -v docker >/dev/null && echo docker || true; })}
[ -n "$engine" ] || fail "neither podman nor docker is on the PATH; install one of them, or give ENGINE="
command -v "$engine" >/dev/null || fail "ENGINE is '$engine', which is not on the PATH"
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' latentrec/__init__.py)
registry=${IMAGE_REGISTRY:-localhost/latentrec} tag=${IMAGE_TAG:-$version}
[ "$tag" != latest ] || fail "IMAGE_TAG is 'latest', which names another image tomorrow; use a version or git sha"
torch=$(sed -n 's/^TORCH_VERSION := //p' Makefile)
sha=$(git rev-parse HEAD 2>/dev/null || echo unknown)
[ -z "$(git status --porcelain --untracked-files=no 2>/dev/null)" ] || sha="$sha-dirty"
push=false
[ "${1:-}" != --push ] || push=true
$push && [[ "$registry" == localhost/* ]] && fail "IMAGE_REGISTRY is '$registry', to which nothing can be pushed; give IMAGE_REGISTRY="

secrets=()
[ -z "${PIP_CONF:-}" ] || secrets+=(--secret "id=pip_conf,src=$PIP_CONF")
[ -z "${CA_BUNDLE:-}" ] || secrets+=(--secret "id=ca_bundle,src=$CA_BUNDLE")
digests=()
for name in preflight data-prep train evaluate register mlflow; do
    image="$registry/$name:$tag"
    echo "== $image"
    # shellcheck disable=SC2086
    DOCKER_BUILDKIT=1 "$engine" build --file docker/Dockerfile --target "$name" --tag "$image" \
        --build-arg BASE_IMAGE="${BASE_IMAGE:-python:3.11-slim}" \
        --build-arg TORCH_VERSION="$torch" --build-arg TORCH_VARIANT="${TORCH_VARIANT:-cpu}" \
        --build-arg GIT_SHA="$sha" --build-arg VERSION="$version" "${secrets[@]}" ${BUILD_ARGS:-} .
    if $push; then
        "$engine" push "$image"
        digest=$("$engine" inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$image" |
            grep -m 1 -F "$registry/$name@") || fail "$engine tells no digest of $image after the push"
        digests+=("\"$name\": \"${digest##*@}\"")
    fi
done
"$engine" images --filter "reference=$registry/*:$tag" --format 'table {{.Repository}}\t{{.Tag}}\t{{.Size}}'
if $push; then
    joined=$(IFS=,; echo "${digests[*]}")
    printf '{"registry": "%s", "tag": "%s", "git_sha": "%s", "digests": {%s}}\n' "$registry" "$tag" "$sha" "$joined" \
        > "${IMAGE_LOCK:-images.lock.json}"
    echo "digests: ${IMAGE_LOCK:-images.lock.json}"
fi
