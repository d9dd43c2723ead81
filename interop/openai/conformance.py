"""Asks a running node what the official Python client can ask.

    python conformance.py http://127.0.0.1:8311/v1 --model smollm2-135m

Every check talks to the node at the given URL; nothing is simulated. The first
thing that is not as docs/openai.md says ends the run with status 1 and one
line that says what was expected and what came. `--full` adds the checks that
need somebody who can recompute an answer; `--cheat` makes one check only, of a
provider that is known to compute something else than the model.
"""

import argparse
import asyncio
import json
import math
import sys
import time
import urllib.error
import urllib.request

import openai

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
TOKENS = 24
PATIENCE_S = 30


class Wrong(Exception):
    """Something is not as documented."""


def same(what, got, wanted):
    if got != wanted:
        raise Wrong(f"{what}: expected {wanted!r}, got {got!r}")


def holds(what, condition):
    if not condition:
        raise Wrong(what)


def refused(what, kind, code, param, call):
    """Expects an error of a class, a code and a parameter; returns it."""
    try:
        call()
    except kind as error:
        same(f"{what}: code", error.code, code)
        same(f"{what}: param", error.param, param)
        holds(f"{what}: the error has a request id", error.request_id)
        return error
    except openai.APIError as error:
        raise Wrong(f"{what}: expected {kind.__name__}, got {error!r}") from error
    raise Wrong(f"{what}: expected {kind.__name__}, got an answer")


class Run:
    def __init__(self, options):
        self.base = options.base_url.rstrip("/")
        self.root = self.base.removesuffix("/v1")
        self.model = options.model
        self.key = options.api_key
        self.full = options.full
        self.cheat = options.cheat
        self.client = openai.OpenAI(
            base_url=self.base, api_key=self.key or "any", max_retries=0, timeout=120
        )
        self._plain = None

    def chat(self, **options):
        options = {"messages": QUESTION, "temperature": 0, "max_tokens": TOKENS} | options
        return self.client.chat.completions.create(model=self.model, **options)

    def completion(self, **options):
        options = {"prompt": "Once upon a time", "temperature": 0, "max_tokens": TOKENS} | options
        return self.client.completions.create(model=self.model, **options)

    @property
    def plain(self):
        """The greedy answer that others are compared with."""
        if self._plain is None:
            self._plain = self.chat()
        return self._plain

    def page(self, path, body=None, headers=None):
        """Status, headers and text of a bare request."""
        headers = dict(headers or {})
        if self.key:
            headers.setdefault("authorization", f"Bearer {self.key}")
        request = urllib.request.Request(self.root + path, data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
                return response.status, response.headers, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read().decode()

    def metric(self, series):
        for line in self.page("/metrics")[2].splitlines():
            if line.startswith(series + " "):
                return float(line.rsplit(" ", 1)[1])
        return 0.0


# Each check is a function; its first line of documentation is what it promises.


def check_ready(run):
    """/health, /ready and /metrics answer."""
    same("/health", run.page("/health")[0], 200)
    status, _, body = run.page("/ready")
    same(f"/ready: {body}", status, 200)
    holds("/metrics counts requests", "peerproof_http_requests_total{" in run.page("/metrics")[2])


def check_models(run):
    """Models are listed, and found by name and by id."""
    models = run.client.models.list().data
    mine = [model for model in models if model.id == run.model]
    same(f"models named {run.model} among {[m.id for m in models]}", len(mine), 1)
    same("object", mine[0].object, "model")
    holds("created is a whole number", isinstance(mine[0].created, int))
    same("retrieve by name", run.client.models.retrieve(run.model).id, run.model)
    digest = mine[0].peerproof["model_id"]
    same("retrieve by id", run.client.models.retrieve(digest).peerproof["model_id"], digest)
    refused(
        "retrieve an unknown model with slashes",
        openai.NotFoundError,
        "model_not_found",
        "model",
        lambda: run.client.models.retrieve("nobody/serves/this"),
    )


def check_chat(run):
    """A whole chat answer has every field, a receipt and honest counts."""
    raw = run.client.chat.completions.with_raw_response.create(
        model=run.model, messages=QUESTION, temperature=0, max_tokens=TOKENS
    )
    answer = raw.parse()
    same("object", answer.object, "chat.completion")
    same("model", answer.model, run.model)
    same("choices", len(answer.choices), 1)
    choice = answer.choices[0]
    same("index", choice.index, 0)
    same("role", choice.message.role, "assistant")
    holds("the answer has text", choice.message.content)
    same("refusal", choice.message.refusal, None)
    same("logprobs", choice.logprobs, None)
    holds("finish_reason", choice.finish_reason in ("stop", "length"))
    usage = answer.usage
    same("total_tokens", usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)
    holds("prompt_tokens", usage.prompt_tokens > 0)
    holds("completion_tokens", 0 < usage.completion_tokens <= TOKENS)
    holds("system_fingerprint", answer.system_fingerprint)
    proof = answer.peerproof
    same("receipt header", raw.headers.get("x-peerproof-receipt"), proof["receipt_id"])
    holds("x-request-id", raw.headers.get("x-request-id"))
    same("receipt id, hex digits", len(proof["receipt_id"]), 64)
    holds("the report names a level", proof["verification"]["level"])
    keys = json.loads(raw.text)["choices"][0]
    for key in ("logprobs", "finish_reason"):
        holds(f"the key {key} is always there", key in keys)
    holds("the key refusal is always there", "refusal" in keys["message"])


def check_stream(run):
    """A stream gives the same text, one opening and one finish."""
    chunks = list(run.chat(stream=True))
    for field in ("id", "created", "model", "object", "system_fingerprint"):
        same(f"different values of {field}", len({getattr(c, field) for c in chunks}), 1)
    same("object", chunks[0].object, "chat.completion.chunk")
    same("role of the first delta", chunks[0].choices[0].delta.role, "assistant")
    same("roles", sum(bool(c.choices[0].delta.role) for c in chunks), 1)
    ends = [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason]
    same("finish reasons", ends, [run.plain.choices[0].finish_reason])
    same("the finish is last", bool(chunks[-1].choices[0].finish_reason), True)
    text = "".join(c.choices[0].delta.content or "" for c in chunks)
    same("text", text, run.plain.choices[0].message.content)
    holds("no usage unasked", all(c.usage is None for c in chunks))
    holds("the last chunk carries the receipt", chunks[-1].peerproof["receipt_id"])
    holds(
        "no empty pieces",
        all(c.choices[0].delta.content for c in chunks[1:-1]),
    )


def check_stream_bytes(run):
    """On the wire a stream is data lines, blank lines and a last [DONE]."""
    body = {"model": run.model, "messages": QUESTION, "max_tokens": 4, "stream": True}
    headers = {"content-type": "application/json"}
    status, answered, text = run.page("/v1/chat/completions", json.dumps(body).encode(), headers)
    same("status", status, 200)
    same("content type", answered.get_content_type(), "text/event-stream")
    events = text.split("\n\n")
    same("after the last event", events.pop(), "")
    same("last event", events.pop(), "data: [DONE]")
    for event in events:
        if not event.startswith(":"):
            holds(f"a data line: {event!r}", event.startswith("data: {"))
            holds("choices is never missing", "choices" in json.loads(event[len("data: ") :]))


def check_stream_usage(run):
    """Usage comes in one last chunk without choices, if asked for."""
    chunks = list(run.chat(stream=True, stream_options={"include_usage": True}))
    same("choices of the last chunk", chunks[-1].choices, [])
    same("usage", chunks[-1].usage.model_dump(), run.plain.usage.model_dump())
    holds("earlier chunks have none", all(c.usage is None for c in chunks[:-1]))
    ends = [c for c in chunks if c.choices and c.choices[0].finish_reason]
    same("chunks with a finish reason", len(ends), 1)


def check_limits(run):
    """Both names of the token limit end an answer with `length`."""
    for name in ("max_tokens", "max_completion_tokens"):
        options = {"max_tokens": openai.omit, name: 3}
        answer = run.chat(**options)
        same(f"{name}: finish_reason", answer.choices[0].finish_reason, "length")
        same(f"{name}: completion_tokens", answer.usage.completion_tokens, 3)


def check_stop(run):
    """Stop strings end an answer, stay out of it, and cross token borders."""
    text = run.plain.choices[0].message.content
    holds(f"a text long enough to stop in: {text!r}", len(text) > 12)
    stop = text[7:11]
    wanted = text[: text.index(stop)]
    for stops in (stop, [stop], ["never in the text", stop]):
        answer = run.chat(stop=stops)
        same(f"stop={stops!r}", answer.choices[0].message.content, wanted)
        same(f"stop={stops!r}: finish_reason", answer.choices[0].finish_reason, "stop")
    pieces = [c.choices[0].delta.content or "" for c in run.chat(stop=stop, stream=True)]
    same("stop in a stream", "".join(pieces), wanted)
    # Half of one token and half of the next.
    reported = run.chat(logprobs=True).choices[0].logprobs.content
    longer = (i for i in range(2, len(reported) - 1) if len(reported[i].token) > 2 < len(reported[i + 1].token))
    at = next(longer, None)
    holds(f"two long tokens side by side: {[entry.token for entry in reported]}", at is not None)
    stop = reported[at].token[-2:] + reported[at + 1].token[:2]
    answer = run.chat(stop=[stop])
    same(f"stop across tokens, {stop!r}", answer.choices[0].message.content, text[: text.index(stop)])
    same(f"stop across tokens, {stop!r}: finish_reason", answer.choices[0].finish_reason, "stop")


def check_seed(run):
    """A seed makes a sampled answer reproducible; another seed gives another."""
    sampled = {"temperature": 1.0, "top_p": 0.95}

    def text(seed):
        answer = run.chat(seed=seed, **sampled)
        return answer.choices[0].message.content, answer.system_fingerprint

    first = text(7)
    same("the same seed", text(7), first)
    holds("other seeds give other texts", len({text(seed) for seed in (7, 8, 9, 10)}) > 1)
    same("greedy twice", run.chat().choices[0].message.content, run.plain.choices[0].message.content)
    same("top_k of 1 is greedy", run.chat(temperature=1, extra_body={"top_k": 1}).choices[0].message.content,
         run.plain.choices[0].message.content)


def named(schema):
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def check_structure(run):
    """JSON mode and schemas hold the text, whole and streamed, and an audit agrees."""
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}, "year": {"type": "integer", "minimum": 1, "maximum": 99}},
        "required": ["city", "year"],
        "additionalProperties": False,
    }
    options = {"response_format": named(schema), "max_tokens": 200}
    answer = run.chat(**options)
    same("finish_reason", answer.choices[0].finish_reason, "stop")
    value = json.loads(answer.choices[0].message.content)
    same("members in the schema's order", list(value), ["city", "year"])
    holds("a value of the enum", value["city"] in ("Paris", "Rome"))
    holds("an integer in range", isinstance(value["year"], int) and 1 <= value["year"] <= 99)
    pieces = [c.choices[0].delta.content or "" for c in run.chat(stream=True, **options)]
    same("streamed", "".join(pieces), answer.choices[0].message.content)
    text = run.chat(response_format={"type": "json_object"}).choices[0].message.content
    holds("JSON mode", text.startswith("{"))
    if run.full:
        audited = run.chat(**options, extra_body={"verification": {"level": "full"}})
        same("audited", audited.peerproof["verification"]["audited"], True)


def check_rules(run):
    """Penalties, biases and min-p change the answer as they say."""
    words = {"model": run.model, "prompt": "la la la la la la la la", "max_tokens": 12, "temperature": 0}

    def text(**extra):
        return run.client.completions.create(**{**words, **extra}).choices[0].text

    plain = text()
    same("rules that are off", text(presence_penalty=0, frequency_penalty=0, logit_bias={},
                                    extra_body={"repetition_penalty": 1, "min_p": 0}), plain)
    penalised = (
        text(frequency_penalty=2),
        text(presence_penalty=2),
        text(extra_body={"repetition_penalty": 1.5}),
    )
    holds(f"penalties change {plain!r}: {penalised}", any(other != plain for other in penalised))
    wanted = text(logit_bias={"504": 100}, max_tokens=3)
    same("logit_bias repeats one token", len(set(wanted[i * len(wanted) // 3:(i + 1) * len(wanted) // 3] for i in range(3))), 1)
    same("min_p of 1 is greedy", text(temperature=1, extra_body={"min_p": 1}), plain)


def check_probabilities(run):
    """logprobs say how likely tokens were, in the shape of each endpoint."""
    choice = run.chat(logprobs=True, top_logprobs=3).choices[0]
    content = choice.logprobs.content
    text = b"".join(bytes(entry.bytes) for entry in content).decode()
    holds("the tokens are the text", text.startswith(choice.message.content))
    for entry in content:
        same("likeliest tokens", len(entry.top_logprobs), 3)
        same("greedy takes the likeliest", entry.token, entry.top_logprobs[0].token)
        figures = [one.logprob for one in entry.top_logprobs]
        holds(f"in order: {figures}", figures == sorted(figures, reverse=True) and figures[0] <= 0)
        holds("they are shares of one", sum(map(math.exp, figures)) < 1.0001)
    alone = run.chat(logprobs=True).choices[0].logprobs.content
    same("without likeliest", [entry.top_logprobs for entry in alone], [[] for _ in content])
    same("the same figures", [e.logprob for e in alone], [e.logprob for e in content])
    chunks = run.chat(logprobs=True, top_logprobs=3, stream=True)
    parts = [c.choices[0].logprobs.content for c in chunks if c.choices[0].logprobs]
    same("streamed", [e.model_dump() for part in parts for e in part], [e.model_dump() for e in content])
    warm = run.chat(logprobs=True, temperature=1, seed=5, n=2)
    for one in warm.choices:
        holds("one report a token", 0 < len(one.logprobs.content) <= TOKENS)
    one = run.completion(logprobs=2).choices[0]
    lists = one.logprobs
    same("tokens of a completion", "".join(lists.tokens)[: len(one.text)], one.text)
    for name in ("token_logprobs", "top_logprobs", "text_offset"):
        same(f"entries of {name}", len(getattr(lists, name)), len(lists.tokens))
    same("the first offset", lists.text_offset[0], 0)
    same("the second offset", lists.text_offset[1], len(lists.tokens[0]))
    same("named likeliest", lists.top_logprobs[0][lists.tokens[0]], lists.token_logprobs[0])
    if run.full:
        checked = run.chat(logprobs=True, top_logprobs=3, extra_body={"verification": {"level": "full"}})
        same("audited", checked.peerproof["verification"]["audited"], True)
        same("audited reports", len(checked.choices[0].logprobs.content), len(content))


def check_choices(run):
    """n gives that many choices; the first is what n=1 gives."""
    options = {"temperature": 1.0, "seed": 11}
    one = run.chat(**options)
    two = run.chat(n=2, **options)
    same("indices", [c.index for c in two.choices], [0, 1])
    same("the first choice", two.choices[0].message.content, one.choices[0].message.content)
    same("prompt tokens count once", two.usage.prompt_tokens, one.usage.prompt_tokens)
    chunks = list(run.chat(n=2, stream=True, **options))
    for index in (0, 1):
        mine = [c.choices[0] for c in chunks if c.choices[0].index == index]
        text = "".join(c.delta.content or "" for c in mine)
        same(f"streamed choice {index}", text, two.choices[index].message.content)
        same(f"ends of choice {index}", sum(bool(c.finish_reason) for c in mine), 1)


def check_messages(run):
    """Parts are text, developer is system, unknown fields are ignored."""
    parts = [{"role": "user", "content": [{"type": "text", "text": QUESTION[0]["content"]}]}]
    answer = run.chat(messages=parts, extra_body={"an_unknown_field": {"deep": [1]}})
    same("content parts", answer.choices[0].message.content, run.plain.choices[0].message.content)

    def with_role(role):
        turns = [{"role": role, "content": "Answer in one word."}, *QUESTION]
        return run.chat(messages=turns).choices[0].message.content

    same("developer", with_role("developer"), with_role("system"))
    turns = [*QUESTION, {"role": "assistant", "content": "Paris."}, {"role": "user", "content": "And of Italy?"}]
    holds("a second turn", run.chat(messages=turns).choices[0].message.content)


def check_completions(run):
    """Text completions, whole and streamed, of text, tokens and several prompts."""
    whole = run.completion()
    same("object", whole.object, "text_completion")
    holds("text", whole.choices[0].text)
    chunks = list(run.completion(stream=True))
    same("streamed text", "".join(c.choices[0].text for c in chunks), whole.choices[0].text)
    same("ends", sum(bool(c.choices[0].finish_reason) for c in chunks), 1)
    several = run.completion(prompt=["Once upon a time", "The sea is"])
    same("several prompts", [c.index for c in several.choices], [0, 1])
    same("the first of several", several.choices[0].text, whole.choices[0].text)
    tokens = run.completion(prompt=[1, 2, 3], max_tokens=2)
    same("tokens of a prompt of token ids", tokens.usage.prompt_tokens, 3)


def check_embeddings(run):
    """Embeddings of texts and token ids, as numbers and in the SDK's own encoding."""
    def embed(value, **options):
        return run.client.embeddings.create(model=run.model, input=value, **options)

    # Unless told otherwise, the SDK asks for base64 and decodes it.
    both = embed(["A cat on a sofa.", "A law about leases."])
    same("order", [one.index for one in both.data], [0, 1])
    vector = both.data[0].embedding
    holds("length one", abs(sum(x * x for x in vector) - 1) < 1e-4)
    plain = embed("A cat on a sofa.", encoding_format="float")
    same("numbers and base64", plain.data[0].embedding, vector)
    same("usage", plain.usage.total_tokens, plain.usage.prompt_tokens)
    holds("tokens", plain.usage.prompt_tokens > 3)
    short = embed("A cat on a sofa.", dimensions=32).data[0].embedding
    same("dimensions", len(short), 32)
    holds("length one again", abs(sum(x * x for x in short) - 1) < 1e-4)
    ids = embed([1, 2, 3])
    same("tokens of a list of ids", ids.usage.prompt_tokens, 3)
    lists = embed([[1, 2, 3], [4]])
    same("lists of ids", [len(one.embedding) for one in lists.data], [len(vector)] * 2)
    same("the same ids", lists.data[0].embedding, ids.data[0].embedding)
    refused("no input", openai.BadRequestError, "invalid_value", "input", lambda: embed([]))


def check_errors(run):
    """Errors have the right class, code and parameter."""
    bad = openai.BadRequestError
    unsupported, value = "unsupported_parameter", "invalid_value"
    refused("an unknown model", openai.NotFoundError, "model_not_found", "model",
            lambda: run.client.chat.completions.create(model="nobody-serves-this", messages=QUESTION))
    refused("temperature", bad, value, "temperature", lambda: run.chat(temperature=3))
    refused("top_p", bad, value, "top_p", lambda: run.chat(top_p=1.5))
    refused("n", bad, value, "n", lambda: run.chat(n=99))
    refused("no messages", bad, value, "messages", lambda: run.chat(messages=[]))
    refused("an empty prompt", bad, value, "prompt", lambda: run.completion(prompt=""))
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    refused("tools", bad, unsupported, "tools", lambda: run.chat(tools=[tool]))
    schema = {"type": "string", "minLength": 3, "maxLength": 2}
    refused("a schema that nothing satisfies", bad, value, "response_format",
            lambda: run.chat(response_format=named(schema)))
    refused("top_logprobs", bad, value, "top_logprobs", lambda: run.chat(top_logprobs=2))
    refused("too many logprobs", bad, value, "logprobs", lambda: run.completion(logprobs=21))
    refused("penalties", bad, value, "frequency_penalty", lambda: run.chat(frequency_penalty=3))
    refused("biases", bad, value, "logit_bias.7", lambda: run.chat(logit_bias={"7": 101}))
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
    refused("an image", bad, unsupported, "messages[0].content[0].type", lambda: run.chat(messages=image))
    refused("a misspelt check", bad, unsupported, "verification.levle",
            lambda: run.chat(extra_body={"verification": {"levle": "full"}}))
    long = [{"role": "user", "content": "word " * 40_000}]
    error = refused("a long prompt", bad, "context_length_exceeded", "messages",
                    lambda: run.chat(messages=long))
    holds("agents parse the wording", "maximum context length is" in str(error))
    refused("a long prompt, streamed", bad, "context_length_exceeded", "messages",
            lambda: run.chat(messages=long, stream=True))
    status, _, text = run.page("/v1/chat/completions", b"{")
    same("status of broken JSON", status, 400)
    same("code of broken JSON", json.loads(text)["error"]["code"], "invalid_json")
    status, _, text = run.page("/v1/chat/completions", b'{"model":"\xff"}')
    same("status of invalid UTF-8", status, 400)
    same("an unknown endpoint", run.page("/v1/nothing")[0], 404)


def check_access(run):
    """Foreign hosts and pages are refused; so is a wrong key if one is set."""
    same("a rebound host", run.page("/v1/models", headers={"host": "rebound.example"})[0], 403)
    same("a foreign page", run.page("/v1/models", headers={"origin": "https://evil.example"})[0], 403)
    if run.key:
        stranger = run.client.with_options(api_key="not-the-right-key")
        refused("a wrong key", openai.AuthenticationError, "invalid_api_key", None, stranger.models.list)


def check_cancel(run):
    """Closing a stream stops the job."""
    cancelled = 'peerproof_answers_total{outcome="cancelled"}'
    before = run.metric(cancelled)
    stream = run.chat(stream=True, max_tokens=1000, temperature=1.0, seed=3)
    for _, _chunk in zip(range(3), stream):
        pass
    stream.close()
    deadline = time.monotonic() + PATIENCE_S
    while run.metric(cancelled) <= before or run.metric("peerproof_answers_in_flight") > 0:
        holds("a closed stream is counted as cancelled", time.monotonic() < deadline)
        time.sleep(0.05)
    while run.metric("peerproof_jobs_asking") > 0:
        holds("the node lets go of the job", time.monotonic() < deadline)
        time.sleep(0.05)


def check_parallel(run):
    """Eight answers at once are eight times the same greedy answer."""

    async def all_at_once():
        async with openai.AsyncOpenAI(
            base_url=run.base, api_key=run.key or "any", max_retries=2, timeout=120
        ) as client:
            asks = [
                client.chat.completions.create(
                    model=run.model, messages=QUESTION, temperature=0, max_tokens=TOKENS
                )
                for _ in range(8)
            ]
            return await asyncio.gather(*asks)

    texts = {answer.choices[0].message.content for answer in asyncio.run(all_at_once())}
    same("texts", texts, {run.plain.choices[0].message.content})


def check_verification(run):
    """The level asked for is the level reported; `full` means recomputed."""
    def report(verification):
        return run.chat(extra_body={"verification": verification}).peerproof["verification"]

    same("receipt", report({"level": "receipt"})["level"], "receipt")
    if run.full:
        full = report({"level": "full"})
        same("full", full["level"], "full")
        same(f"full is audited: {full}", full["audited"], True)
        chunks = list(run.chat(stream=True, extra_body={"verification": {"level": "full"}}))
        same("streamed and audited", chunks[-1].peerproof["verification"]["audited"], True)


def check_cheat(run):
    """A false answer ends in an error, leaves evidence, and its author is not asked again."""
    steered = {"verification": {"level": "full"}, "provider": {"only": [run.cheat]}}
    finished = []
    try:
        for chunk in run.chat(stream=True, extra_body=steered):
            finished += [choice.finish_reason for choice in chunk.choices if choice.finish_reason]
        raise Wrong("the false answer was accepted")
    except openai.APIError as error:
        same("code", error.code, "verification_failed")
        with open(error.body["evidence"], "rb") as evidence:
            holds("the evidence file is not empty", evidence.read())
    same("finish reasons of a false answer", finished, [])
    again = refused(
        "the same provider again",
        openai.InternalServerError,
        "no_provider",
        None,
        lambda: run.chat(extra_body=steered),
    )
    same("status", again.status_code, 503)
    holds("retry-after", again.response.headers.get("retry-after"))


CHECKS = [
    check_ready,
    check_models,
    check_chat,
    check_stream,
    check_stream_bytes,
    check_stream_usage,
    check_limits,
    check_stop,
    check_seed,
    check_structure,
    check_rules,
    check_probabilities,
    check_choices,
    check_messages,
    check_completions,
    check_embeddings,
    check_errors,
    check_access,
    check_verification,
    check_parallel,
    check_cancel,
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base_url", help="ends in /v1")
    parser.add_argument("--model", required=True, help="a name from /v1/models")
    parser.add_argument("--api-key", default="", help="the node's key, if it has one")
    parser.add_argument("--full", action="store_true", help="somebody can recompute answers")
    parser.add_argument("--cheat", metavar="PEER", help="check only how this provider is refused")
    run = Run(parser.parse_args())
    print(f"openai {openai.__version__} against {run.base}")
    for check in [check_cheat] if run.cheat else CHECKS:
        began = time.monotonic()
        try:
            check(run)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is wrong
            reason = str(error) if isinstance(error, Wrong) else repr(error)
            print(f"FAILED {check.__name__}: {reason}", flush=True)
            return 1
        took = (time.monotonic() - began) * 1000
        print(f"ok {took:6.0f} ms  {check.__doc__.splitlines()[0]}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
