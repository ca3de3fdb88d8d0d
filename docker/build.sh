#!/usr/bin/env bash
# Build every component image, and MLflow's, with docker or podman; with --push, push them and write images.lock.json.
#   IMAGE_REGISTRY, IMAGE_TAG   names of the images (as the pipelines are compiled)
#   BASE_IMAGE, TORCH_VARIANT   build arguments of docker/Dockerfile
#   ENGINE                      docker or podman; default: the first that is there
#   PIP_CONF, CA_BUNDLE         files that pip needs on this machine; they stay out of the images. Default: this
#                               machine's own pip configuration; podman also sees the local folders that it names
#   BUILD_ARGS, PUSH_ARGS       further words for `build` and `push`, such as --network=host, --tls-verify=false
set -euo pipefail
cd "$(dirname "$0")/.."
. docker/engine.sh

version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' latentrec/__init__.py)
registry=${IMAGE_REGISTRY:-localhost/latentrec} tag=${IMAGE_TAG:-$version}
[ "$tag" != latest ] || fail "IMAGE_TAG is 'latest', which names another image tomorrow; use a version or git sha"
torch=$(sed -n 's/^TORCH_VERSION := //p' Makefile)
sha=$(git rev-parse HEAD 2>/dev/null || echo unknown)
[ -z "$(git status --porcelain --untracked-files=no 2>/dev/null)" ] || sha="$sha-dirty"
push=false
[ "${1:-}" != --push ] || push=true
$push && [[ "$registry" == localhost/* ]] && fail "IMAGE_REGISTRY is '$registry', to which nothing can be pushed; give IMAGE_REGISTRY="

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
from_machine=()
if [ -z "${PIP_CONF:-}" ]; then
    PIP_CONF=$scratch/pip.conf
    python3 .ci/pip_conf.py "$PIP_CONF" > "$scratch/folders"
    if [ "$ENGINE" = podman ]; then
        while read -r folder; do
            [ -z "$folder" ] || from_machine+=(--volume "$folder:$folder:ro")
        done < "$scratch/folders"
    fi
fi
CA_BUNDLE=${CA_BUNDLE:-${PIP_CERT:-}}
from_machine+=(--secret "id=pip_conf,src=$PIP_CONF")
[ -z "$CA_BUNDLE" ] || from_machine+=(--secret "id=ca_bundle,src=$CA_BUNDLE")
digests=()
for name in ${IMAGES:-preflight data-prep train evaluate register mlflow}; do
    image="$registry/$name:$tag" variant=${TORCH_VARIANT:-cpu}
    case $name in preflight | register) variant=cpu ;; esac
    echo "== $image"
    # shellcheck disable=SC2086
    DOCKER_BUILDKIT=1 "$ENGINE" build --file docker/Dockerfile --target "$name" --tag "$image" \
        --build-arg BASE_IMAGE="${BASE_IMAGE:-python:3.11-slim}" \
        --build-arg TORCH_VERSION="$torch" --build-arg TORCH_VARIANT="$variant" --build-arg GIT_SHA="$sha" \
        "${from_machine[@]}" ${BUILD_ARGS:-} .
    if $push; then
        if [ "$ENGINE" = podman ]; then
            # Podman compresses while it pushes; the digest that it knows afterwards is still the uncompressed one's.
            # shellcheck disable=SC2086
            podman push ${PUSH_ARGS:-} --digestfile "$scratch/digest" "$image"
            digest=$(cat "$scratch/digest")
        else
            # shellcheck disable=SC2086
            "$ENGINE" push ${PUSH_ARGS:-} "$image"
            digest=$("$ENGINE" inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$image" |
                grep -m 1 -F "$registry/$name@") || fail "$ENGINE tells no digest of $image after the push"
        fi
        digests+=("\"$name\": \"${digest##*@}\"")
    fi
done
"$ENGINE" images --filter "reference=$registry/*:$tag" --format 'table {{.Repository}}\t{{.Tag}}\t{{.Size}}'
if $push; then
    joined=$(IFS=,; echo "${digests[*]}")
    printf '{"registry": "%s", "tag": "%s", "git_sha": "%s", "digests": {%s}}\n' "$registry" "$tag" "$sha" "$joined" \
        > "${IMAGE_LOCK:-images.lock.json}"
    echo "digests: ${IMAGE_LOCK:-images.lock.json}"
fi
