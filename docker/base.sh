#!/usr/bin/env bash
# Make a base image where no image registry can be reached, from Debian's packages: Debian and its Python,
# nothing else. Needs root and debootstrap; takes a minute or two. An image of that name is left as it is.
# usage: docker/base.sh IMAGE          then: make images BASE_IMAGE=IMAGE
set -euo pipefail
cd "$(dirname "$0")/.."
. docker/engine.sh
image=${1:?the name of the image to make, such as localhost/python:3.11-bookworm}
if "$ENGINE" image inspect "$image" >/dev/null 2>&1; then exit 0; fi
[ "$(id -u)" = 0 ] || fail "docker/base.sh needs root (debootstrap does); or give a BASE_IMAGE that can be pulled"
command -v debootstrap >/dev/null || fail "debootstrap is not on the PATH; install it, or give a BASE_IMAGE that can be pulled"

folder=$(mktemp -d)
trap 'rm -rf --one-file-system "$folder"' EXIT
echo "== base image $image from Debian's packages"
debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$folder/root" > "$folder/log" ||
    { tail -n 20 "$folder/log" >&2; fail "debootstrap failed"; }
for unused in var/cache/apt var/lib/apt/lists usr/share/doc usr/share/man usr/share/locale usr/share/info; do
    find "$folder/root/$unused" -mindepth 1 -delete
done
tar --directory "$folder/root" --numeric-owner --create . | "$ENGINE" import --change 'CMD ["sh"]' - "$image"
