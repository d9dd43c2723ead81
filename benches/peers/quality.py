"""Adds up what quality.sh's pieces gave: means over all tokens, of both programs."""

import json
import math
import pathlib
import re
import sys

TAIL = "second halves: "
# What llama-perplexity prints, and whether a mean of it is one of logarithms.
LLAMA = {
    "perplexity": r"Mean PPL\(Q\) +: +([-0-9.]+)",
    "perplexity, float reference": r"Mean PPL\(base\) +: +([-0-9.]+)",
    "divergence (KL), mean": r"Mean +KLD: +([-0-9.]+)",
    "same most probable token": r"Same top p: +([-0-9.]+)",
}


def pieces(folder, contexts):
    """The pieces that make up the first so many contexts."""
    at = 0
    while at < contexts:
        found = [path for path in folder.glob(f"{at}-*.json")]
        if not found:
            sys.exit(f"no piece in {folder} begins at context {at}")
        yield found[0]
        at += int(found[0].stem.split("-")[1])


def figures(path, tail):
    """Ours: all predictions, or those of second halves."""
    medians = {f["name"]: f["median"] for f in json.loads(path.read_text())["figures"]}
    return {name: medians[tail + name] for name in ["tokens predicted", *LLAMA]}


def llama(path, tokens):
    text = path.with_suffix(".llama").read_text()
    found = {name: float(re.search(shape, text).group(1)) for name, shape in LLAMA.items()}
    return found | {"tokens predicted": tokens}


def total(parts):
    tokens = sum(part["tokens predicted"] for part in parts)

    def mean(name, of=float):
        return sum(of(part[name]) * part["tokens predicted"] for part in parts) / tokens

    return {
        "tokens": tokens,
        "perplexity": math.exp(mean("perplexity", math.log)),
        "reference": math.exp(mean("perplexity, float reference", math.log)),
        "divergence": mean("divergence (KL), mean"),
        "same": mean("same most probable token"),
    }


def main():
    folder, contexts = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    paths = list(pieces(folder, contexts))
    ours, halves = ([figures(path, tail) for path in paths] for tail in ["", TAIL])
    theirs = [llama(path, half["tokens predicted"]) for path, half in zip(paths, halves)]
    head = ["tokens", "perplexity", "float", "change", "KL, mean", "same best"]
    print(f"{'':32}" + "".join(f"{name:>12}" for name in head))
    rows = {"peerproof": ours, "peerproof, second halves": halves, "llama.cpp, second halves": theirs}
    for name, parts in rows.items():
        sum_ = total(parts)
        change = 100 * (sum_["perplexity"] / sum_["reference"] - 1)
        print(
            f"{name:32}{sum_['tokens']:12.0f}{sum_['perplexity']:12.4f}{sum_['reference']:12.4f}"
            f"{change:11.4f}%{sum_['divergence']:12.2e}{sum_['same']:11.2f}%"
        )


if __name__ == "__main__":
    main()
