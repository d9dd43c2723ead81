#!/bin/sh
# Holds Peerproof and llama.cpp against the same float pass, on the same tokens of the same file.
#
#   benches/peers/quality.sh [MODEL.gguf] [TOKENS]
#
# `peerproof bench quality` computes the float pass and writes its probabilities into a pipe, from
# which llama-perplexity reads them beside its own run of the file. llama.cpp's tool takes the
# second half of each context: the row to compare with is the one named so.
#
# The text is compared in pieces of a few contexts, and what each gave is kept in the user's cache,
# so that a run that was stopped goes on where it was; quality.py adds the pieces up.
#
# LLAMA   a folder with llama-perplexity, instead of building it
# PIECES  the folder for what pieces gave, instead of one named after file and program; an empty
#         one begins anew
set -eu

CONTEXT=512
CONTEXTS_A_PIECE=7
HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
. "$HERE/llama.sh"
MODEL=${1:-$CACHE/models/smollm2-135m.gguf}
TOKENS=${2:-50000}

build_llama llama-perplexity
if [ -z "${PEERPROOF:-}" ]; then
    (cd "$ROOT" && cargo build --release --quiet -p peerproof-cli)
    PEERPROOF=${CARGO_TARGET_DIR:-$ROOT/target}/release/peerproof
fi
# Another program or file gives other figures.
of=$(cat "$PEERPROOF" "$LLAMA/llama-perplexity" "$MODEL" | sha256sum | cut -c 1-16)
PIECES=${PIECES:-$CACHE/peers/quality/$(basename "$MODEL" .gguf)-$of}
mkdir -p "$PIECES"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
contexts=$(((TOKENS + CONTEXT - 1) / CONTEXT))
skip=0
while [ "$skip" -lt "$contexts" ]; do
    count=$((contexts - skip))
    [ "$count" -le "$CONTEXTS_A_PIECE" ] || count=$CONTEXTS_A_PIECE
    piece=$PIECES/$skip-$count
    if [ ! -f "$piece.json" ]; then
        echo "contexts $((skip + 1)) to $((skip + count)) of $contexts" >&2
        rm -f "$work/base"
        mkfifo "$work/base"
        "$LLAMA/llama-perplexity" -m "$MODEL" --kl-divergence --kl-divergence-base "$work/base" \
            -c "$CONTEXT" -b "$CONTEXT" -t 1 >"$piece.llama" 2>"$work/log" &
        llama=$!
        # Without a writer llama.cpp's tool would wait for ever.
        "$PEERPROOF" bench quality --model "$MODEL" --tokens $((count * CONTEXT)) --skip "$skip" \
            --chunk "$CONTEXT" --base "$work/base" --json >"$work/json" \
            || { kill "$llama"; exit 1; }
        wait "$llama" || { tail "$work/log" >&2; exit 1; }
        mv "$work/json" "$piece.json"
    fi
    skip=$((skip + count))
done
python3 "$HERE/quality.py" "$PIECES" "$contexts"
