"""Medians of all programs' figures, and their ratios, from the folder that run.sh fills."""

import json
import pathlib
import statistics
import sys


def llama(path):
    for run in json.loads(path.read_text()):
        prompt, decode = run["n_prompt"], run["n_gen"]
        what = f"prefill {prompt}" if prompt else f"decode {decode}"
        yield f"{what}, threads {run['n_threads']}", run["avg_ts"]


def batch(path):
    for line in path.read_text().splitlines():
        if line.startswith("{"):
            run = json.loads(line)
            what = f"batch {run['pl']}", f"threads {run['n_threads']}"
            yield f"{what[0]}, prompts and answers, {what[1]}", run["speed"]
            yield f"{what[0]}, answers, {what[1]}", run["speed_tg"]


def candle(path):
    for line in path.read_text().splitlines():
        run = json.loads(line)
        yield run["name"], run["rate"]


def peerproof(path):
    for figure in json.loads(path.read_text())["figures"]:
        yield figure["name"], figure["median"]


def gather(folder, name, read):
    rates = {}
    for path in sorted(folder.glob(name)):
        for what, rate in read(path):
            rates.setdefault(what, []).append(rate)
    return rates


def spread(values):
    return f"{statistics.median(values):.1f} ({min(values):.1f} … {max(values):.1f})"


def ratio(ours, theirs):
    return statistics.median(ours) / statistics.median(theirs)


def main():
    folder = pathlib.Path(sys.argv[1])
    theirs = gather(folder, "llama-*.json", llama) | gather(folder, "batch-*.jsonl", batch)
    others = gather(folder, "candle-*.jsonl", candle)
    ours = gather(folder, "peerproof-*.json", peerproof)
    names = f"{'llama.cpp':>26} {'candle':>26} {'peerproof':>26}"
    print(f"{'tokens/s, medians':42} {names} {'/ llama.cpp':>11} {'/ candle':>8}  goal")
    for what in sorted(ours.keys() & theirs.keys()):
        a, b = theirs[what], ours[what]
        goal = 1.3 if what.startswith("decode") else 2.0
        met = "met" if ratio(b, a) >= goal else "missed"
        candles, over = "", ""
        if what in others:
            candles, over = spread(others[what]), f"{ratio(b, others[what]):.2f}"
        figures = f"{spread(a):>26} {candles:>26} {spread(b):>26}"
        print(f"{what:42} {figures} {ratio(b, a):11.2f} {over:>8}  ≥ {goal}: {met}")


if __name__ == "__main__":
    main()
