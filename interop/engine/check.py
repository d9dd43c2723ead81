#!/usr/bin/env python3
"""Recomputes the golden digests from the model files, in integers, and compares.

    check.py [--prompts N] [--tokens N] [--decode] [--tables] [MODEL …]

MODEL is the name of a file in vectors/engine/golden; without one, all of them
are checked. `--prompts` and `--tokens` bound the run: the first N prompts, the
first N tokens of each answer. The tokens of an answer are read at once, as one
text, and what each position draws is compared with the one that follows; with
`--decode` they are drawn one after the other instead, all prompts in a batch.
`--tables` checks vectors/engine/tables.txt and choices.txt first.

Model files are looked for as the Rust tests do: in peerproof/models of the
user's cache. The first difference ends the run with status 1 and says model,
prompt, position and field, with a digest of the keys of each layer; the Rust
test `explain` of crates/engine/tests/golden.rs prints the same lines.
"""

import argparse
import json
import os
import pathlib
import sys
import time

import numpy as np
from blake3 import blake3

import leaves as proof
import tables
from choose import History, Rules, draw, report
from forward import Model, Sequence
from gguf import Gguf

VECTORS = pathlib.Path(__file__).resolve().parents[2] / "vectors" / "engine"
ARITHMETIC = 1


class Differs(Exception):
    """The two implementations disagree."""


class Answer:
    """One golden prompt on its way through this implementation."""

    def __init__(self, golden, number, tokens, layers):
        entry = golden["prompts"][number]
        self.number, self.entry = number, entry
        self.offer = bytes.fromhex(golden["offer"])
        self.seed = bytes.fromhex(entry["seed"])
        self.golden = entry["answer"][:tokens]
        self.rules = Rules.of(entry["sampling"])
        self.history = History(entry["prompt"])
        self.sequence = Sequence(layers)
        self.answer, self.leaves = [], []

    def undrawn(self):
        """How many of the next positions draw nothing."""
        return max(len(self.entry["prompt"]) - 1 - len(self.leaves), 0)

    def settle(self, tokens, states, logits):
        """Takes the states of the next tokens, and the logits of those that draw."""
        drawing = self.undrawn()
        for i, token in enumerate(tokens):
            state = proof.state_digest(self.offer, states[i])
            drawn = self.drawn(logits[i - drawing]) if i >= drawing else None
            position = len(self.leaves)
            self.leaves.append(proof.leaf(position, token, state, drawn))
            self.compare(position, state, drawn)

    def drawn(self, logits):
        number = draw(self.seed, len(self.answer)) if self.rules.temperature_q16 else 0
        following = self.rules.choose(logits, self.history, number)
        self.answer.append(following)
        self.history.push(following)
        return proof.logits_digest(self.offer, logits), number, following

    def compare(self, position, state, drawn):
        leaf, expected = self.leaves[-1].hex(), self.entry["leaves"].split()[position]
        following = self.golden[len(self.answer) - 1] if drawn else None
        if leaf.startswith(expected) and (drawn is None or drawn[2] == following):
            return
        lines = [f"prompt {self.number}, position {position}: leaf {leaf}, expected {expected}…"]
        lines += self.sequence.key_digests(position)
        lines.append(f"state {state.hex()}")
        if drawn:
            lines.append(f"logits {drawn[0].hex()}")
            lines.append(f"number {drawn[1]}")
            lines.append(f"next token {drawn[2]}, expected {following}")
        raise Differs("\n  ".join(lines))

    def finish(self):
        """Compares what covers the whole answer."""
        if len(self.answer) < len(self.entry["answer"]):
            return
        closing = proof.closing(proof.STOP_LENGTH, len(self.answer), self.entry["text"])
        root = proof.root([*self.leaves, closing]).hex()
        for field, got in (("digest", digest(self.leaves)), ("root", root)):
            if got != self.entry[field]:
                raise Differs(f"prompt {self.number}: {field} {got}, not {self.entry[field]}")


def digest(hashes):
    return blake3(b"".join(hashes)).hexdigest()


def read_at_once(model, answer):
    tokens = answer.entry["prompt"] + answer.golden[:-1]
    states = model.forward([(answer.sequence, tokens)])
    answer.settle(tokens, states, model.logits(states[answer.undrawn() :]))


def decode(model, answers):
    for answer in answers:
        tokens = answer.entry["prompt"]
        states = model.forward([(answer.sequence, tokens)])
        answer.settle(tokens, states, model.logits(states[-1:]))
    for _ in range(len(answers[0].golden) - 1):
        states = model.forward([(a.sequence, a.answer[-1:]) for a in answers])
        logits = model.logits(states)
        for i, answer in enumerate(answers):
            answer.settle(answer.answer[-1:], states[i : i + 1], logits[i : i + 1])


def check_model(name, options):
    golden = json.loads((VECTORS / "golden" / f"{name}.json").read_text())
    path = model_file(name)
    got = blake3(path.read_bytes()).hexdigest()
    if (golden["model"], golden["arithmetic"]) != (got, ARITHMETIC):
        raise Differs(f"{path} is {got}, arithmetic {ARITHMETIC}; the digests are of another")
    count = min(options.prompts or len(golden["prompts"]), len(golden["prompts"]))
    tokens = options.tokens or golden["tokens"]
    longest = max(len(entry["prompt"]) for entry in golden["prompts"])
    model = Model(Gguf(path), longest + tokens)
    answers = [Answer(golden, i, tokens, len(model.layers)) for i in range(count)]
    if options.decode:
        decode(model, answers)
    for answer in answers:
        if not options.decode:
            read_at_once(model, answer)
        answer.finish()
    everything = digest([bytes.fromhex(entry["digest"]) for entry in golden["prompts"]])
    if everything != golden["digest"]:
        raise Differs(f"digest {everything}, not {golden['digest']}")
    return sum(len(answer.leaves) for answer in answers), count


def model_file(name):
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(cache) / "peerproof" / "models" / f"{name}.gguf"


def pinned(name):
    lines = (VECTORS / name).read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


def check_tables():
    for line in pinned("tables.txt"):
        name, expected = line.split()
        got = blake3(table_bytes(name)).hexdigest()
        if got != expected:
            raise Differs(f"table {name}: {got}, expected {expected}")
    return len(pinned("tables.txt"))


def table_bytes(name):
    whole = {"exp": tables.EXP, "wide-exp": tables.WIDE, "logistic": tables.SIG[:1024]}
    whole |= {"gelu": tables.GELU[:1024], "ln": tables.LN}
    if name in whole:
        return whole[name].astype("<u4").tobytes()
    kind, base, dimensions, positions = name.split("-")
    if kind != "rope":
        raise Differs(f"table {name} is unknown")
    turns = tables.frequencies(float(base), int(dimensions))
    return np.stack(tables.rope_table(turns, int(positions)), axis=-1).astype("<i2").tobytes()


def check_choices():
    """Each row of choices.txt, whose comments say what its parts are."""
    i = np.arange(4096, dtype=np.int64)
    logits = i * 7919 % 10007 - i % 13 * 300
    for line in pinned("choices.txt"):
        asked, expected = line.split(": ")
        got = row_of_choices(logits, asked.split())
        if got != expected:
            raise Differs(f"choices of {asked}: {got}, expected {expected}")
    return len(pinned("choices.txt"))


def row_of_choices(logits, asked):
    if len(asked) == 1:
        chosen, likeliest = report(logits, int(asked[0]), 5)
        return " ".join([str(chosen), *(f"{token}:{value}" for token, value in likeliest)])
    if len(asked) == 3:
        return drawn_in_turn(logits, Rules(*map(int, asked)), History([]), 8)
    pairs = [] if asked[7] == "-" else asked[7].split(",")
    bias = [tuple(map(int, pair.split(":"))) for pair in pairs]
    history = History([1040, 2617, 17])
    history.push(2459)
    history.push(2459)
    return drawn_in_turn(logits, Rules(*map(int, asked[:7]), bias), history, 12)


def drawn_in_turn(logits, rules, history, steps):
    tokens = []
    for step in range(steps):
        tokens.append(rules.choose(logits, history, draw(bytes([7] * 32), step)))
        history.push(tokens[-1])
    return " ".join(map(str, tokens))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--prompts", type=int, help="only the first N prompts")
    parser.add_argument("--tokens", type=int, help="only the first N tokens of each answer")
    parser.add_argument("--decode", action="store_true", help="draw tokens one after the other")
    parser.add_argument("--tables", action="store_true", help="check tables and choices as well")
    return parser.parse_args()


def main():
    options = arguments()
    names = options.models or sorted(p.stem for p in (VECTORS / "golden").glob("*.json"))
    place = "vectors"
    try:
        if options.tables:
            print(f"{check_tables()} tables and {check_choices()} rows of choices agree")
        for place in names:
            start = time.monotonic()
            leaves, prompts = check_model(place, options)
            took = time.monotonic() - start
            print(f"{place}: {leaves} leaves of {prompts} prompts agree ({took:.0f} s)", flush=True)
    except Differs as difference:
        sys.exit(f"{place}: {difference}")


if __name__ == "__main__":
    main()
