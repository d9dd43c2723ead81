#!/usr/bin/env python3
"""The tokenizer's vectors, from the reference libraries.

Needs what requirements.txt names. Called with the model files that
`peerproof models pull` installed:

    interop/tokenizers/vectors.py check GEMMA.gguf SMOLLM2.gguf
    interop/tokenizers/vectors.py write GEMMA.gguf SMOLLM2.gguf

`check` recomputes every vector in vectors/engine/tokenizer and exits 1 where one differs;
`write` replaces them. Gemma's ids are those of the SentencePiece library on a model proto
built from the GGUF file's own vocabulary, SmolLM2's those of the tokenizers library on the
file's vocabulary and merges with the published split. The small models (small-*.json) are
trained here, on the texts below, and carry their vocabularies with them; training isn't
repeated by `check`, only encoding is. byte-level.json is one small byte-level vocabulary,
merged across all borders of words so that every rule of splitting gives other ids, under
every rule; where OpenAI's tiktoken can run a rule its ids must be the same.
"""

import io
import json
import pathlib
import random
import struct
import sys

import sentencepiece
import tiktoken
from sentencepiece import sentencepiece_model_pb2 as proto
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).resolve().parents[2] / "vectors/engine/tokenizer"
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

TEXTS = [
    "Hello world, it's 2026!",
    "The quick brown fox jumps over the lazy dog. THE QUICK BROWN FOX!",
    "we'll they've I'm don't HE'D you're it's 'sup ''tis O'Reilly's",
    "Größe, Straße, naïve café: œuvre, Ærøskøbing, żółć, ığüşöç",
    "Привет, как дела? Γειά σου Κόσμε. Здравей, свят!",
    "日本語のテキスト。中文文本，没有空格；한국어 문장입니다. ㍿㌔",
    "مرحبا بالعالم، كيف حالك؟ שלום עולם. سلام دنیا ۱۲۳",
    "สวัสดีชาวโลก ภาษาไทยไม่มีช่องว่าง नमस्ते दुनिया বাংলা தமிழ்",
    "🦀 🚀👩‍👩‍👧‍👦 emoji 🎉🎉 👍🏽 🇩🇪🇫🇷 ❤️ ☺ ♻️ 1️⃣",
    "e\u0301 n\u0303 Z\u0351\u036b\u0343a\u0302\u0323 combining, \u00e9 \u00f1 composed, \u212b \ufb01 \u2460",
    "  leading, trailing  \t\n\n  and   runs    of     spaces      ",
    "\n\n\nlines\r\n\r\n\tand\t\ttabs\r\v\f\u0085\u2028\u2029end",
    "\u00a0no-break\u202fnarrow\u2003em\u3000ideographic\u200bzero\ufeffbom\u2060joiner",
    'fn main() {\n    let x: Vec<u32> = (0..10).map(|i| i * 2).collect();\n\tprintln!("{x:?}");\n}\n',
    "def f(x):\n    return x ** 2  # kommentar\n\nclass A(B): pass",
    "<html><body><h1>Title</h1><p>text</p><table><tr><td>1</td></tr></table></body></html>",
    "1234567890 3.14159 1,000,000 0x1F ½ ٣ Ⅷ ² 12:34:56 2026-11-21 +49 (0)30",
    "<bos>user\n<start_of_turn>x<end_of_turn><eos><unk><|im_end|><s>[INST]</s><pad>",
    "control \x00\x01\x02\x1b[31m\x7f\x80\x9f characters",
    "a\u2581b\u2581\u2581c \u2581 d",
    "\u0e01\u0e33\u0301 \U00010348 \U0001F9D1\u200d\U0001F4BB \U000E0041 \U0010FFFD \ue000 \ufffd",
    "$$$ ### ... --- !!! ??? ((([[[{{{}}}]]])))) ====== ~~~~ ```rust``` **bold** __init__",
    "supercalifragilisticexpialidocious Donaudampfschifffahrtsgesellschaft pneumonoultramicroscopic",
    "https://example.org/a/b?c=d&e=%20#f user@example.org C:\\dir\\file.txt ../x",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "abababababababababababababab the the the thethethe",
    " ",
    "      ",
    "\n",
    "",
]


def random_texts(count):
    """Mixtures of pieces of the texts, joined at random places."""
    chance = random.Random(2026)
    everything = "".join(TEXTS)
    out = []
    for _ in range(count):
        pieces = []
        for _ in range(chance.randrange(1, 8)):
            at = chance.randrange(len(everything))
            pieces.append(everything[at : at + chance.randrange(1, 12)])
        out.append(chance.choice(["", " ", "  "]).join(pieces))
    return out


ALL = TEXTS + random_texts(170)


def read_gguf(path):
    """The metadata of a GGUF file."""
    with open(path, "rb") as file:
        source = io.BytesIO(file.read(64 << 20))
    codes = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

    def number(code):
        return struct.unpack("<" + code, source.read(struct.calcsize("<" + code)))[0]

    def value(kind):
        if kind == 8:
            return source.read(number("Q"))
        if kind == 9:
            kind, count = number("I"), number("Q")
            return [value(kind) for _ in range(count)]
        return number(codes[kind])

    source.seek(16)
    keys = {}
    for _ in range(number("Q")):
        key = value(8).decode()
        keys[key] = value(number("I"))
    return {k.removeprefix("tokenizer.ggml."): v for k, v in keys.items()}


def sentencepiece_of(pieces, method, prefix, unknown, join=False):
    """The library's processor for (text, score, class) pieces."""
    model = proto.ModelProto()
    for text, score, kind in pieces:
        piece = model.pieces.add()
        piece.piece, piece.score, piece.type = text.replace(" ", "\u2581"), score, kind
    model.pieces[unknown].type = UNKNOWN
    spec = model.trainer_spec
    spec.model_type = method
    spec.byte_fallback = any(kind == BYTE for _, _, kind in pieces)
    spec.unk_id, spec.unk_piece = unknown, model.pieces[unknown].piece
    spec.bos_id = spec.eos_id = spec.pad_id = -1
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = prefix
    model.normalizer_spec.remove_extra_whitespaces = join
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(model.SerializeToString())
    return processor


def gemma(path):
    keys = read_gguf(path)
    texts = [token.decode() for token in keys["tokens"]]
    pieces = list(zip(texts, keys["scores"], keys["token_type"]))
    processor = sentencepiece_of(pieces, 2, keys["add_space_prefix"], keys["unknown_token_id"])
    return {"texts": [[text, processor.encode(text)] for text in ALL]}


def smollm2(path):
    keys = read_gguf(path)
    tokens = [token.decode() for token in keys["tokens"]]
    merges = [tuple(merge.decode().split(" ", 1)) for merge in keys["merges"]]
    normal = {t: i for i, (t, kind) in enumerate(zip(tokens, keys["token_type"])) if kind == NORMAL}
    tokenizer = Tokenizer(models.BPE(vocab=normal, merges=merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    tokenizer.decoder = decoders.ByteLevel()
    return {"texts": [[text, tokenizer.encode(text).ids] for text in ALL]}


def trained(method, bytes_too):
    """A small vocabulary from the texts: BPE (2) or unigram (1)."""
    out = io.BytesIO()
    kind = {1: "unigram", 2: "bpe"}[method]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([t for t in ALL if "\x00" not in t]), model_writer=out,
        model_type=kind, vocab_size=700 if bytes_too else 560, byte_fallback=bytes_too,
        normalization_rule_name="identity", remove_extra_whitespaces=False,
        user_defined_symbols=["<h1>", "\n", "   ", "the"], hard_vocab_limit=False,
        character_coverage=0.98, num_threads=1, minloglevel=2,
    )
    model = proto.ModelProto()
    model.ParseFromString(out.getvalue())
    pieces = [[p.piece, p.score, p.type] for p in model.pieces]
    if method == 2:
        # Some pieces on the way to longer ones are only that.
        for piece in [p for p in pieces if p[2] == NORMAL and len(p[0]) == 2][::5]:
            piece[2] = UNUSED
    return pieces


def small(name, method, prefix, bytes_too, join=False):
    path = HERE / f"{name}.json"
    old = json.loads(path.read_text()) if path.exists() else {}
    pieces = old["pieces"] if sys.argv[1] == "check" else trained(method, bytes_too)
    processor = sentencepiece_of(pieces, method, prefix, 0, join)
    return {
        "model": {1: "t5", 2: "llama"}[method], "add_space_prefix": prefix,
        "remove_extra_whitespaces": join, "pieces": pieces,
        "texts": [[text, processor.encode(text)] for text in ALL],
    }


# The rules of splitting as the models' own tokenizer.json files have them.
ENDINGS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
LARGE = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
SMALL = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
CL100K = rf"{ENDINGS}|{LETTERS}|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{SPACES}"
QWEN2 = CL100K.replace("{1,3}", "")
O200K = (
    rf"{LARGE}*{SMALL}+{ENDINGS}?|{LARGE}+{SMALL}*{ENDINGS}?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{SPACES}"
)
TEKKEN = O200K.replace(f"{ENDINGS}?", "").replace("{1,3}", "")
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# Name in the file: pattern, whole words first, whether tiktoken runs it too.
RULES = {
    "gpt-2": (GPT2, False, True),
    "smollm": (None, False, False),
    "llama-bpe": (CL100K, True, True),
    "dbrx": (CL100K, False, True),
    "qwen2": (QWEN2, False, False),
    "gpt-4o": (O200K, False, True),
    "tekken": (TEKKEN, True, True),
}
CONTROL_TOKENS = ["<|im_start|>", "<|im_end|>", "<|im_", "[INST]"]
WHOLE_WORDS = [" jumps", "Hello", "xyz"]
CHATS = [
    "<|im_start|>user\nHello world<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|><|im_end|><|im_", "a<|im_start|", "x [INST] y[INST]z [INST", " <|im_end|> \n <|im_end|>\n\n",
    "2026<|im_end|>11 'll<|im_end|>'ll", "e\u0301<|im_end|>\u0301", "<|IM_END|>\U0001F980<|im_end|>\U0001F980",
]


def bare(pattern, whole_words, vocabulary, merges):
    """The tokenizers library's tokenizer under a rule; None is SmolLM's."""
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=whole_words))
    if pattern in (GPT2, None):
        words = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
        digits = [pre_tokenizers.Digits(individual_digits=True)] if pattern is None else []
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(digits + words)
    else:
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, words])
    if pattern == QWEN2:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in CONTROL_TOKENS])
    return tokenizer


def byte_level():
    """Every rule of splitting, over one vocabulary."""
    path = HERE / "byte-level.json"
    if sys.argv[1] == "check":
        old = json.loads(path.read_text())
        tokens = old["tokens"][: -len(CONTROL_TOKENS)]
        merges = [tuple(merge.split(" ")) for merge in old["merges"]]
    else:
        trainer = trainers.BpeTrainer(
            vocab_size=1100, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        )
        learner = Tokenizer(models.BPE())
        learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        learner.train_from_iterator(ALL * 2, trainer)
        model = json.loads(learner.to_str())["model"]
        tokens = sorted(model["vocab"], key=model["vocab"].get)
        merges = [tuple(merge) for merge in model["merges"]]
        tokens += [word.replace(" ", "\u0120") for word in WHOLE_WORDS if word not in tokens]
    vocabulary = {token: id for id, token in enumerate(tokens)}
    texts = TEXTS + random_texts(50)
    rules = {}
    for name, (pattern, whole_words, openai) in RULES.items():
        tokenizer = bare(pattern, whole_words, vocabulary, merges)
        rules[name] = [tokenizer.encode(text).ids for text in texts]
        rules[f"{name} chat"] = [tokenizer.encode(text).ids for text in CHATS]
        if openai:
            same(name, pattern, tokens, merges, texts)
    return {
        "tokens": tokens + CONTROL_TOKENS, "control": len(CONTROL_TOKENS), "chats": CHATS,
        "merges": [" ".join(merge) for merge in merges], "texts": texts, **rules,
    }


def same(name, pattern, tokens, merges, texts):
    """Exits where tiktoken splits or merges otherwise; for tokens that are merges only."""
    alphabet = {c: b for b, c in bytes_to_characters().items()}
    merged = tokens[: 256 + len(merges)]
    ranks = {bytes(alphabet[c] for c in token): id for id, token in enumerate(merged)}
    encoding = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    tokenizer = bare(pattern, False, {token: id for id, token in enumerate(merged)}, merges)
    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    for text in texts:
        if any(control in text for control in CONTROL_TOKENS):
            continue
        ours, theirs = tokenizer.encode(text).ids, encoding.encode(text)
        if ours != theirs:
            sys.exit(f"{name}: {text!r}: tokenizers {ours}, tiktoken {theirs}")


def bytes_to_characters():
    """GPT-2's alphabet."""
    itself = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in itself]
    return {byte: chr(byte) for byte in itself} | {byte: chr(256 + at) for at, byte in enumerate(others)}


def written(vectors):
    """One text a line."""
    rows_of = [key for key, value in vectors.items() if isinstance(value, list)]
    lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in vectors.items() if k not in rows_of]
    for key in rows_of:
        rows = ",\n".join(json.dumps(row, ensure_ascii=True) for row in vectors[key])
        lines.append(f'"{key}": [\n{rows}\n]')
    return "{" + ",\n".join(lines) + "}\n"


def main():
    if len(sys.argv) != 4 or sys.argv[1] not in ("check", "write"):
        sys.exit(__doc__)
    all_vectors = {
        "gemma3-270m": gemma(sys.argv[2]),
        "smollm2-135m": smollm2(sys.argv[3]),
        "byte-level": byte_level(),
        "small-bpe": small("small-bpe", 2, True, True),
        "small-bpe-without-bytes": small("small-bpe-without-bytes", 2, False, False),
        "small-unigram": small("small-unigram", 1, True, True),
        "small-unigram-joined": small("small-unigram-joined", 1, True, False, True),
    }
    differing = 0
    for name, vectors in all_vectors.items():
        path = HERE / f"{name}.json"
        if sys.argv[1] == "write":
            path.write_text(written(vectors))
        same = path.exists() and json.loads(path.read_text()) == json.loads(written(vectors))
        differing += not same
        print(f"{name}: {len(vectors['texts'])} texts, {'equal' if same else 'DIFFERENT'}")
    sys.exit(differing > 0)


if __name__ == "__main__":
    main()
