#!/usr/bin/env bash
# Has logs judged by the Go project's own transparency-log packages, and a log with one
# changed byte refused. Needs Go and its package golang.org/x/mod, which Debian carries
# as golang-go and golang-golang-x-mod-dev.
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
