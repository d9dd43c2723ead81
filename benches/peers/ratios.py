"""Medians of both programs' figures, and their ratios, from the folder that run.sh fills."""

import json
import pathlib
import statistics
import sys


def llama(path):
    for run in json.loads(path.read_text()):
        prompt, decode = run["n_prompt"], run["n_gen"]
        what = f"prefill {prompt}" if prompt else f"decode {decode}"
        yield f"{what}, threads {run['n_threads']}", run["avg_ts"]


def peerproof(path):
    for figure in json.loads(path.read_text())["figures"]:
        yield figure["name"], figure["median"]


def gather(folder, name, read):
    rates = {}
    for path in sorted(folder.glob(f"{name}-*.json")):
        for what, rate in read(path):
            rates.setdefault(what, []).append(rate)
    return rates


def main():
    folder = pathlib.Path(sys.argv[1])
    theirs, ours = gather(folder, "llama", llama), gather(folder, "peerproof", peerproof)
    print(f"{'tokens/s, medians':26} {'llama.cpp':>10} {'peerproof':>10} {'ratio':>7} {'goal':>6}")
    for what in sorted(ours.keys() & theirs.keys()):
        a, b = statistics.median(theirs[what]), statistics.median(ours[what])
        goal = 1.3 if what.startswith("decode") else 2.0
        met = "met" if b / a >= goal else "missed"
        print(f"{what:26} {a:10.1f} {b:10.1f} {b / a:7.2f} {'≥ ' + str(goal):>6} {met}")


if __name__ == "__main__":
    main()
