#!/bin/sh
# Every fuzz target for a bounded number of inputs, and all regressions: about half a
# minute on two cores. Another seed than 1 is the first argument.
set -eu
here=$(dirname "$(readlink -f "$0")")
cd "$here/.."
seed=${1:-1}
cargo build --quiet --release --locked --package peerproof-fuzz
for target in gguf tokenizer template kademlia ranges; do
    set -- fuzz/regressions/"$target"/*
    [ ! -e "$1" ] || "$here/run" "$target" --replay "$@"
done
"$here/run" gguf --seed "$seed" --count 60000 &
gguf=$!
"$here/run" tokenizer --seed "$seed" --count 30000
"$here/run" template --seed "$seed" --count 200000
"$here/run" kademlia --seed "$seed" --count 200000
"$here/run" ranges --seed "$seed" --count 100000
wait "$gguf"
