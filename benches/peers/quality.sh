#!/bin/sh
# Holds Peerproof and llama.cpp against the same float pass, on the same tokens of the same file.
#
#   benches/peers/quality.sh [MODEL.gguf] [TOKENS]
#
# `peerproof bench quality` computes the float pass and writes its probabilities into a pipe, from
# which llama-perplexity reads them beside its own run of the file. llama.cpp's tool takes the
# second half of each context: the row to compare with is the one named so.
#
# LLAMA  a folder with llama-perplexity, instead of building it
set -eu

HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
. "$HERE/llama.sh"
MODEL=${1:-$CACHE/models/smollm2-135m.gguf}
TOKENS=${2:-50000}

build_llama llama-perplexity
(cd "$ROOT" && cargo build --release --quiet -p peerproof-cli)
PEERPROOF=${CARGO_TARGET_DIR:-$ROOT/target}/release/peerproof

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkfifo "$work/base"
"$LLAMA/llama-perplexity" -m "$MODEL" --kl-divergence --kl-divergence-base "$work/base" \
    -c 512 -b 512 >"$work/llama" 2>&1 &
llama=$!
# Without a writer llama.cpp's tool would wait for ever.
"$PEERPROOF" bench quality --model "$MODEL" --tokens "$TOKENS" --chunk 512 --base "$work/base" \
    || { kill "$llama"; exit 1; }
wait "$llama" || { tail "$work/llama" >&2; exit 1; }
echo
echo "llama.cpp, second halves:"
grep -E "^Mean PPL\(|Mean ln|Mean    KLD|Same top p" "$work/llama"
