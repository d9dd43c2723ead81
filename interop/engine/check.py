#!/usr/bin/env python3
"""Recomputes the golden digests from the model files, in integers, and compares.

    check.py [--prompts N] [--tokens N] [--ruled N] [--decode] [--tables] [MODEL …]

MODEL is the name of a file in vectors/engine/golden; without one, all of them
are checked. `small` is the one whose model files are made from recipes.
`--prompts` and `--tokens` bound the run of other models: the first N prompts,
the first N tokens of each answer; `--ruled` how many of the prompts with every
rule of sampling are read. The tokens of an answer are read at once, as one
text, and what each position draws is compared with the one that follows; with
`--decode` they are drawn one after the other instead, all prompts in a batch.
`--tables` checks vectors/engine/tables.txt and choices.txt first.

Model files are looked for as the Rust tests do: in peerproof/models of the
user's cache. No mask of a constrained answer is made here: a mask is an input
of section 8. The first difference ends the run with status 1 and says model,
prompt, position and field, with a digest of the keys of each layer; the Rust
test `explain` of crates/engine/tests/golden prints the same lines.
"""

import argparse
import json
import os
import pathlib
import sys
import tempfile
import time

import numpy as np
from blake3 import blake3

import leaves as proof
import tables
from choose import History, Rules, draw, report
from forward import Model, Sequence
from gguf import Gguf
from recipe import file_of

VECTORS = pathlib.Path(__file__).resolve().parents[2] / "vectors" / "engine"
ARITHMETIC = 1
SMALL = "small"


class Differs(Exception):
    """The two implementations disagree."""


class Answer:
    """One golden prompt on its way through this implementation."""

    def __init__(self, offer, name, entry, tokens, layers):
        self.name, self.entry = name, entry
        self.offer = bytes.fromhex(offer)
        self.seed = bytes.fromhex(entry["seed"])
        self.golden = entry["answer"][:tokens]
        rules = dict(entry["sampling"])
        self.likeliest = rules.pop("logprobs", None)
        self.rules = Rules.of(rules)
        self.history = History(entry["prompt"])
        self.sequence = Sequence(layers)
        self.answer, self.leaves = [], []

    def undrawn(self):
        """How many of the next positions draw nothing."""
        return max(len(self.entry["prompt"]) - 1 - len(self.leaves), 0)

    def settle(self, tokens, states, entered, logits):
        """Takes states of the next tokens, the rows that entered their layers, and the
        logits of those that draw."""
        drawing = self.undrawn()
        for i, token in enumerate(tokens):
            state = proof.state_digest(self.offer, states[i])
            drawn = self.drawn(logits[i - drawing]) if i >= drawing else None
            position = len(self.leaves)
            layers = proof.layers_digest(entered[i])
            self.leaves.append(proof.leaf(position, token, state, layers, drawn))
            self.compare(position, state, layers, drawn)

    def drawn(self, logits):
        number = draw(self.seed, len(self.answer)) if self.rules.temperature_q16 else 0
        following = self.rules.choose(logits, self.history, number)
        if self.likeliest is not None:
            self.compare_report(logits, following)
        self.answer.append(following)
        self.history.push(following)
        return proof.logits_digest(self.offer, logits), number, following

    def compare_report(self, logits, following):
        step = len(self.answer)
        got, expected = report_row(logits, following, self.likeliest), self.entry["reported"][step]
        if got != expected:
            raise Differs(f"{self.name}, step {step}: reports {got}, expected {expected}")

    def compare(self, position, state, layers, drawn):
        leaf, expected = self.leaves[-1].hex(), self.entry["leaves"].split()[position]
        following = self.golden[len(self.answer) - 1] if drawn else None
        if leaf.startswith(expected) and (drawn is None or drawn[2] == following):
            return
        lines = [f"{self.name}, position {position}: leaf {leaf}, expected {expected}…"]
        lines += self.sequence.key_digests(position)
        lines += [f"layers {layers.hex()}", f"state {state.hex()}"]
        if drawn:
            lines.append(f"logits {drawn[0].hex()}")
            lines.append(f"number {drawn[1]}")
            lines.append(f"next token {drawn[2]}, expected {following}")
        raise Differs("\n  ".join(lines))

    def finish(self):
        """Compares what covers the whole answer."""
        if len(self.answer) < len(self.entry["answer"]):
            return
        kv_root = proof.kv_root(self.sequence.rows())
        text = self.entry["text"]
        closing = proof.closing(proof.STOP_LENGTH, len(self.answer), text, kv_root)
        root = proof.root([*self.leaves, closing]).hex()
        whole = digest([*self.leaves, kv_root])
        for field, got in (("kv_root", kv_root.hex()), ("digest", whole), ("root", root)):
            if got != self.entry[field]:
                raise Differs(f"{self.name}: {field} {got}, not {self.entry[field]}")


def digest(hashes):
    return blake3(b"".join(hashes)).hexdigest()


def read_at_once(model, answer):
    tokens = answer.entry["prompt"] + answer.golden[:-1]
    states, entered = model.forward([(answer.sequence, tokens)])
    answer.settle(tokens, states, entered, model.logits(states[answer.undrawn() :]))


def decode(model, answers):
    for answer in answers:
        tokens = answer.entry["prompt"]
        states, entered = model.forward([(answer.sequence, tokens)])
        answer.settle(tokens, states, entered, model.logits(states[-1:]))
    for _ in range(len(answers[0].golden) - 1):
        states, entered = model.forward([(a.sequence, a.answer[-1:]) for a in answers])
        logits = model.logits(states)
        for i, answer in enumerate(answers):
            own = slice(i, i + 1)
            answer.settle(answer.answer[-1:], states[own], entered[own], logits[own])


def follow(model, answers, decoded):
    """Runs answers in one of the two ways, and compares them."""
    if decoded:
        decode(model, answers)
    for answer in answers:
        if not decoded:
            read_at_once(model, answer)
        answer.finish()
    return sum(len(answer.leaves) for answer in answers)


def compare_whole(golden, entries):
    everything = digest([bytes.fromhex(entry["digest"]) for entry in entries])
    if everything != golden["digest"]:
        raise Differs(f"digest {everything}, not {golden['digest']}")


def golden_file(name):
    golden = json.loads((VECTORS / "golden" / f"{name}.json").read_text())
    if golden["arithmetic"] != ARITHMETIC:
        raise Differs(f"arithmetic {golden['arithmetic']}, not {ARITHMETIC}")
    return golden


def check_model(name, options):
    golden = golden_file(name)
    path = model_file(name)
    got = blake3(path.read_bytes()).hexdigest()
    if golden["model"] != got:
        raise Differs(f"{path} is {got}; the digests are of {golden['model']}")
    tokens = golden["tokens"] if options.tokens is None else options.tokens
    entries = golden["prompts"][: options.prompts] + golden["ruled"][: options.ruled]
    longest = max(len(entry["prompt"]) for entry in entries)
    model = Model(Gguf(path), longest + tokens)
    answers = [
        Answer(golden["offer"], f"prompt {number}", entry, tokens, len(model.layers))
        for number, entry in enumerate(golden["prompts"] + golden["ruled"])
        if any(entry is asked for asked in entries)
    ]
    leaves = follow(model, answers, options.decode)
    compare_whole(golden, golden["prompts"])
    return f"{leaves} leaves of {len(answers)} prompts"


def check_small(options):
    """Every small file, made from its recipe and read as any other."""
    golden = golden_file(SMALL)
    leaves = 0
    for made in golden["files"]:
        name = made["recipe"]["name"]
        content = file_of(made["recipe"])
        if blake3(content).hexdigest() != made["model"]:
            raise Differs(f"{name}: the recipe makes another file")
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            entry = made["prompt"]
            model = Model(Gguf(file.name), len(entry["prompt"]) + golden["tokens"])
        answer = Answer(golden["offer"], name, entry, golden["tokens"], len(model.layers))
        leaves += follow(model, [answer], options.decode)
    compare_whole(golden, [made["prompt"] for made in golden["files"]])
    return f"{leaves} leaves of {len(golden['files'])} small files"


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
        return report_row(logits, int(asked[0]), 5)
    if len(asked) == 3:
        return drawn_in_turn(logits, Rules(*map(int, asked)), History([]), 8)
    mask = np.arange(len(logits)) % 7 == 3 if asked[0] == "3mod7" else None
    asked = asked[-8:]
    pairs = [] if asked[7] == "-" else asked[7].split(",")
    bias = [tuple(map(int, pair.split(":"))) for pair in pairs]
    history = History([1040, 2617, 17])
    history.push(2459)
    history.push(2459)
    return drawn_in_turn(logits, Rules(*map(int, asked[:7]), bias), history, 12, mask)


def report_row(logits, chosen, count):
    own, likeliest = report(logits, chosen, count)
    return " ".join([str(own), *(f"{token}:{value}" for token, value in likeliest)])


def drawn_in_turn(logits, rules, history, steps, mask=None):
    tokens = []
    for step in range(steps):
        tokens.append(rules.choose(logits, history, draw(bytes([7] * 32), step), mask))
        history.push(tokens[-1])
    return " ".join(map(str, tokens))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--prompts", type=int, help="only the first N prompts")
    parser.add_argument("--tokens", type=int, help="only the first N tokens of each answer")
    parser.add_argument("--ruled", type=int, help="only the first N prompts with every rule")
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
            checked = check_small(options) if place == SMALL else check_model(place, options)
            took = time.monotonic() - start
            print(f"{place}: {checked} agree ({took:.0f} s)", flush=True)
    except Differs as difference:
        sys.exit(f"{place}: {difference}")


if __name__ == "__main__":
    main()
