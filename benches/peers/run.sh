#!/bin/sh
# Runs llama.cpp, candle and Peerproof on the same GGUF file in turns, and prints the ratios of
# their medians: one prompt, one answer, and 8 and 32 of both at once (without candle, whose
# quantised models answer one at a time).
#
#   benches/peers/run.sh [--quick] [MODEL.gguf]
#
# ROUNDS  how often each is measured (default 5; --quick: 1)
# LLAMA   a folder with llama-bench and llama-batched-bench, instead of building them
# CANDLE  a program made of the folder candle beside this file, instead of building it; 0: leave
#         candle out
#
# Needs cargo, python3 with pip, cmake and a C++ compiler.
set -eu

HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
. "$HERE/llama.sh"
[ "${1:-}" != --quick ] || { ROUNDS=1; shift; }
ROUNDS=${ROUNDS:-5}
MODEL=${1:-$CACHE/models/smollm2-135m.gguf}

[ -f "$MODEL" ] || { echo "no $MODEL; run: peerproof models pull" >&2; exit 1; }
build_llama llama-bench llama-batched-bench
(cd "$ROOT" && cargo build --release --quiet -p peerproof-cli)
CANDLE=${CANDLE:-}
if [ -z "$CANDLE" ]; then
    # For this very processor, as llama.cpp is: candle chooses its kernels when it is compiled.
    (cd "$HERE/candle" && RUSTFLAGS="-C target-cpu=native" CARGO_TARGET_DIR="$CACHE/peers/candle" \
        cargo build --release --locked --quiet)
    CANDLE=$CACHE/peers/candle/release/peerproof-peers-candle
fi
PEERPROOF=${CARGO_TARGET_DIR:-$ROOT/target}/release/peerproof

results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
# What is quiet when it works and says why when it doesn't.
measure() {
    out=$1
    shift
    "$@" >"$out" 2>"$results/log" || { cat "$results/log" >&2; exit 1; }
}
round=1
while [ "$round" -le "$ROUNDS" ]; do
    echo "round $round of $ROUNDS" >&2
    measure "$results/llama-$round.json" "$LLAMA/llama-bench" -m "$MODEL" -p 128,512 -n 128 -t 1,2 -r 1 -o json
    for threads in 1 2; do
        measure "$results/batch-$round-$threads.jsonl" "$LLAMA/llama-batched-bench" -m "$MODEL" -c 8192 \
            -npp 128 -ntg 64 -npl 8,32 -t "$threads" -tb "$threads" --output-format jsonl
    done
    if [ "$CANDLE" != 0 ]; then
        for threads in 1 2; do
            measure "$results/candle-$round-$threads.jsonl" \
                env "RAYON_NUM_THREADS=$threads" "$CANDLE" "$MODEL"
        done
    fi
    measure "$results/peerproof-$round.json" "$PEERPROOF" bench engine --model "$MODEL" --speed-only --runs 1 --json
    round=$((round + 1))
done
python3 "$HERE/ratios.py" "$results"
