#!/bin/sh
# Runs llama.cpp and Peerproof on one GGUF file in turns, and prints the ratios of their medians.
#
#   benches/peers/run.sh [MODEL.gguf]
#
# ROUNDS       how often each is measured (default 5)
# LLAMA_BENCH  a llama-bench to use instead of building one
#
# Without LLAMA_BENCH, llama.cpp is built from the source package of llama-cpp-python for this
# very processor, once, in the user's cache. Needs cargo, python3 with pip, cmake and a C++ compiler.
set -eu

VERSION=0.3.36
ROUNDS=${ROUNDS:-5}
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/peerproof
MODEL=${1:-$CACHE/models/smollm2-135m.gguf}
ROOT=$(cd "$(dirname "$0")/../.." && pwd)

build_llama_bench() {
    folder=$CACHE/peers/llama-cpp-$VERSION
    LLAMA_BENCH=$folder/build/bin/llama-bench
    [ -x "$LLAMA_BENCH" ] && return
    mkdir -p "$folder"
    python3 -m pip download --no-deps --no-binary llama-cpp-python \
        -d "$folder" "llama-cpp-python==$VERSION" >&2
    tar -xzf "$folder"/llama_cpp_python-*.tar.gz -C "$folder" --strip-components 1
    cmake -S "$folder/vendor/llama.cpp" -B "$folder/build" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
        -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF >&2
    cmake --build "$folder/build" --target llama-bench -j "$(nproc)" >&2
}

[ -f "$MODEL" ] || { echo "no $MODEL; run: peerproof models pull smollm2-135m" >&2; exit 1; }
[ -n "${LLAMA_BENCH:-}" ] || build_llama_bench
(cd "$ROOT" && cargo build --release --quiet -p peerproof-cli)
PEERPROOF=${CARGO_TARGET_DIR:-$ROOT/target}/release/peerproof

results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
round=1
while [ "$round" -le "$ROUNDS" ]; do
    echo "round $round of $ROUNDS" >&2
    "$LLAMA_BENCH" -m "$MODEL" -p 128,512 -n 128 -t 1,2 -r 1 -o json >"$results/llama-$round.json" 2>"$results/log" \
        || { cat "$results/log" >&2; exit 1; }
    "$PEERPROOF" bench engine --model "$MODEL" --speed-only --runs 1 --json >"$results/peerproof-$round.json" 2>"$results/log" \
        || { cat "$results/log" >&2; exit 1; }
    round=$((round + 1))
done
python3 "$(dirname "$0")/ratios.py" "$results"
