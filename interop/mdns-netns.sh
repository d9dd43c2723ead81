#!/bin/sh
# Two machines on one cable, made of two network namespaces: do they find each
# other without being told an address?
#
#   sudo interop/mdns-netns.sh target/release/peerproof [model] [question]
#
# One namespace provides a model, the other asks. Neither has a route to the
# outside, so the model must be in the cache already. Needs root and iproute2;
# removes everything it made, also when it is interrupted.
set -eu

binary=$(readlink -f "${1:?usage: $0 <path of the binary> [model] [question]}")
model=${2:-smollm2-135m}
question=${3:-What is the capital of France?}

tag=$$
provider_ns="ppp$tag"
router_ns="ppr$tag"
homes=$(mktemp -d)
provider_pid=

cleanup() {
    status=$?
    trap - EXIT INT TERM
    if [ -n "$provider_pid" ]; then
        kill "$provider_pid" 2>/dev/null || true
        wait "$provider_pid" 2>/dev/null || true
    fi
    ip netns del "$provider_ns" 2>/dev/null || true
    ip netns del "$router_ns" 2>/dev/null || true
    if [ "$status" -ne 0 ] && [ -f "$homes/provider.log" ]; then
        echo "--- the provider said:" >&2
        cat "$homes/provider.log" >&2
    fi
    rm -rf "$homes"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

plug() {
    ip netns add "$provider_ns"
    ip netns add "$router_ns"
    ip link add veth0 netns "$provider_ns" type veth peer name veth0 netns "$router_ns"
    host=1
    for ns in "$provider_ns" "$router_ns"; do
        ip -n "$ns" address add "10.112.0.$host/24" dev veth0
        ip -n "$ns" link set lo up
        ip -n "$ns" link set veth0 up multicast on
        ip -n "$ns" route add 224.0.0.0/4 dev veth0
        host=$((host + 1))
    done
}

plug
# Replaced by the program itself, so that the process to end is the one that is known.
(
    export PEERPROOF_HOME="$homes/provider"
    exec ip netns exec "$provider_ns" "$binary" provide --model "$model"
) >"$homes/provider.log" 2>&1 &
provider_pid=$!

# The asker searches while the provider is still loading; it has a minute.
PEERPROOF_HOME="$homes/router" ip netns exec "$router_ns" \
    timeout 60 "$binary" ask --model "$model" "$question"
echo "ok: found, asked and answered over multicast"
