# To be sourced: finds docker or podman (ENGINE), and makes podman work on a machine without systemd.
fail() { echo "error: $*" >&2; exit 2; }

ENGINE=${ENGINE:-$(command -v podman >/dev/null && echo podman || { command -v docker >/dev/null && echo docker || true; })}
[ -n "$ENGINE" ] || fail "neither podman nor docker is on the PATH; install one of them, or give ENGINE="
command -v "$ENGINE" >/dev/null || fail "ENGINE is '$ENGINE', which is not on the PATH"
if [ "$ENGINE" = podman ] && [ ! -d /run/systemd/system ]; then
    export CONTAINERS_CONF=${CONTAINERS_CONF:-$PWD/docker/containers.conf}
    BUILD_ARGS="--network=host ${BUILD_ARGS:-}"
fi
export ENGINE
