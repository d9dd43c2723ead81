#!/usr/bin/env bash
# Has logs judged by the Go project's own transparency-log packages, and a log with one
# changed byte refused; then the log of a running node, over HTTP, cosigned by another one.
# Needs Go and its package golang.org/x/mod, which Debian carries as golang-go and
# golang-golang-x-mod-dev, and the default model (peerproof models pull). PEERPROOF names a
# built program to use; `dumped` as an argument leaves the running node out.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

export GO111MODULE=off GOFLAGS= GOCACHE="$folder/cache" GOPATH="${GOPATH:-/usr/share/gocode}"
go build -o "$folder/judge" interop/log/judge.go
for entries in 1 256 257 1500 70000; do
  cargo run --quiet --release --locked -p peerproof-log --example dump -- "$folder/$entries" "$entries"
  "$folder/judge" "$folder/$entries"
done

refused() {
  cp -r "$folder/1500" "$folder/changed"
  python3 - "$folder/changed/$1" <<'PY'
import pathlib
import sys

file = pathlib.Path(sys.argv[1])
data = bytearray(file.read_bytes())
data[len(data) // 2] ^= 1
file.write_bytes(data)
PY
  if "$folder/judge" "$folder/changed" 2>"$folder/reason"; then
    echo "a changed byte in $1 was accepted" >&2
    exit 1
  fi
  echo "$1 with a changed byte is refused: $(head -c 100 "$folder/reason")"
  rm -r "$folder/changed"
}
for path in checkpoint earlier tile/0/002 tile/1/000.p/5 tile/entries/003; do
  refused "$path"
done

[ "${1:-}" != dumped ] || exit 0
program=${PEERPROOF:-}
if [ -z "$program" ]; then
  cargo build --quiet --release --locked -p peerproof-cli
  program=${CARGO_TARGET_DIR:-target}/release/peerproof
fi
# Each node's first line says where it is; both end with this script.
node() {
  local name=$1
  shift
  "$program" "$@" --home "$folder/$name" --json >"$folder/$name.out" 2>"$folder/$name.err" &
  nodes+=($!)
  for _ in $(seq 600); do
    [ -s "$folder/$name.out" ] && return
    sleep 0.1
  done
  echo "$name did not start: $(cat "$folder/$name.err")" >&2
  exit 1
}
of() { python3 -c 'import json, sys; print(eval("j" + sys.argv[2], {"j": json.loads(open(sys.argv[1]).readline())}))' "$folder/$1.out" "$2"; }
nodes=()
trap 'kill "${nodes[@]}" 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
loopback=(--set network.loopback=true --set network.mdns=false --set log.witness_every_s=1)
node witness audit "${loopback[@]}"
node provider provide "${loopback[@]}" --peer "$(of witness '["addresses"][0]')"
url=$(of provider '["api"]')
for word in one two three; do
  "$program" ask --home "$folder/asker" "${loopback[@]}" --peer "$(of provider '["addresses"][0]')" \
    --max-tokens 2 "Say $word." >/dev/null
done
for _ in $(seq 300); do
  if "$folder/judge" "$url/log" "$(of provider '["peer"]')" "$(of witness '["peer"]')" 2>"$folder/reason"; then
    exit 0
  fi
  sleep 0.1
done
echo "the log of the running node is refused: $(cat "$folder/reason")" >&2
exit 1
