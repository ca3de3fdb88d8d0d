#!/usr/bin/env bash
# The base image of a build: prints its name, once it is there.
# usage: docker/base.sh            the Dockerfile's own if this machine has it or can pull it, else a made one
#        docker/base.sh IMAGE      make IMAGE of Debian's packages (unless it is there); then BASE_IMAGE=IMAGE
# Making one needs root and debootstrap, no image registry, and takes a minute or two.
set -euo pipefail
cd "$(dirname "$0")/.."
. docker/engine.sh
image=${1:-}
if [ -z "$image" ]; then
    image=$(sed -n 's/^ARG BASE_IMAGE=//p' docker/Dockerfile)
    if "$ENGINE" image inspect "$image" >/dev/null 2>&1 ||
        timeout 60 "$ENGINE" pull --quiet "$image" >/dev/null 2>&1; then
        echo "$image"
        exit 0
    fi
    image=localhost/latentrec/base:bookworm
fi
if ! "$ENGINE" image inspect "$image" >/dev/null 2>&1; then
    [ "$(id -u)" = 0 ] || fail "debootstrap needs root; or give a BASE_IMAGE that can be pulled"
    command -v debootstrap >/dev/null || fail "debootstrap is not on the PATH; or give a BASE_IMAGE that can be pulled"
    folder=$(mktemp -d)
    trap 'rm -rf --one-file-system "$folder"' EXIT
    echo "== base image $image from Debian's packages" >&2
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$folder/root" \
        > "$folder/log" 2>&1 || { tail -n 20 "$folder/log" >&2; fail "debootstrap failed"; }
    for unused in var/cache/apt var/lib/apt/lists usr/share/doc usr/share/man usr/share/locale usr/share/info; do
        find "$folder/root/$unused" -mindepth 1 -delete
    done
    tar --directory "$folder/root" --numeric-owner --create . |
        "$ENGINE" import --change 'CMD ["sh"]' - "$image" >&2
fi
echo "$image"
