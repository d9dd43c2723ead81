//! The bytes are those of the specification.
//!
//! `vectors/proof/transcript.json` is what `docs/spec/proof.md` gives; the
//! script beside it computes it again in another language, from the page alone.
//! After a deliberate change of the specification, run these tests with
//! `PEERPROOF_BLESS=1`, then the script.
#![allow(clippy::disallowed_methods, reason = "a test reads and writes its vectors")]

use std::path::PathBuf;

use peerproof_proof::audit::recompute;
use peerproof_proof::cells::{kv_layer, kv_page, kv_root, layers_digest};
use peerproof_proof::challenge::positions;
use peerproof_proof::lottery::Ticket;
use peerproof_proof::receipt::{output_hash, shown_hash, text_hash};
use peerproof_proof::seed::draw;
use peerproof_proof::transcript::Transcript;
use peerproof_proof::{Tree, closing_hash, leaf_hash, logits_digest, sampling_seed, state_digest};
use peerproof_wire::{
    ChatMessage, Constraint, Digest, Drawn, Form, Leaf, LogitBias, Offer, Prompt, Sampling, Signed,
    Stop, TokenLogprobs,
};
use serde_json::{Value, json};

use crate::support::{Toy, auditor, offer, serve, sign};

fn hex(digest: &Digest) -> String {
    digest.to_string()
}

fn key() -> Digest {
    Digest::from_bytes([0x0f; 32])
}

/// A row that any language makes: every 32-bit pattern comes up sooner or later.
fn row(length: u32) -> Vec<i32> {
    (0..length).map(|index| index.wrapping_mul(2_654_435_761) as i32).collect()
}

fn rows() -> Value {
    [0, 1, 3, 576, 4_096, 4_097, 49_152]
        .map(|length| {
            json!({
                "length": length,
                "state": hex(&state_digest(&key(), &row(length))),
                "logits": hex(&logits_digest(&key(), &row(length))),
            })
        })
        .to_vec()
        .into()
}

/// A model of two layers whose rows have 576 integers, after 100 positions of 780 bytes a row.
fn cells() -> Value {
    let bytes: Vec<u8> = row(100 * 195).iter().flat_map(|value| value.to_le_bytes()).collect();
    let pages: Vec<Digest> = bytes.chunks(64 * 780).map(kv_page).collect();
    let layers = [kv_layer(0, 100, &pages), kv_layer(1, 100, &pages)];
    json!({
        "layers": hex(&layers_digest(&row(2 * 576))),
        "pages": pages.iter().map(hex).collect::<Vec<_>>(),
        "kv_layers": layers.iter().map(hex).collect::<Vec<_>>(),
        "kv_root": hex(&kv_root(&layers)),
    })
}

fn leaf(position: u32, is_drawn: bool) -> Leaf {
    let drawn = Drawn {
        logits: Digest::from_bytes([position as u8 + 100; 32]),
        draw: 0x0123_4567_89ab_cdef + u64::from(position),
        next: position * 7 + 1,
    };
    Leaf {
        position,
        token: position * 1_000,
        state: Digest::from_bytes([position as u8; 32]),
        layers: Digest::from_bytes([position as u8 + 50; 32]),
        drawn: is_drawn.then_some(drawn),
    }
}

fn leaf_json(leaf: &Leaf) -> Value {
    json!({
        "position": leaf.position,
        "token": leaf.token,
        "state": hex(&leaf.state),
        "layers": hex(&leaf.layers),
        "drawn": leaf.drawn.as_ref().map(|drawn| json!({
            "logits": hex(&drawn.logits),
            "draw": drawn.draw.to_string(),
            "next": drawn.next,
        })),
        "hash": hex(&leaf_hash(leaf)),
    })
}

/// Six positions, the last three of which draw: a prompt of four, an answer of three tokens.
fn transcript() -> Value {
    let leaves: Vec<Leaf> = (0..6).map(|position| leaf(position, position >= 3)).collect();
    let mut transcript = Transcript::new();
    let mut running = vec![hex(&transcript.commitment().root)];
    for leaf in &leaves {
        transcript.push(leaf).unwrap();
        running.push(hex(&transcript.commitment().root));
    }
    let tree = transcript.close(Stop::StopString, 3, "naïve ✓", &key()).unwrap();
    let paths: Vec<Vec<String>> =
        (0..7).map(|index| tree.open(index).unwrap().iter().map(hex).collect()).collect();
    json!({
        "leaves": leaves.iter().map(leaf_json).collect::<Vec<_>>(),
        "running_roots": running,
        "stop": 3,
        "tokens": 3,
        "text": "naïve ✓",
        "text_hash": hex(&text_hash("naïve ✓")),
        "reported": reported(),
        "kv_root": hex(&key()),
        "closing": hex(&closing_hash(Stop::StopString, 3, &text_hash("naïve ✓"), &key())),
        "root": hex(&tree.root()),
        "paths": paths,
    })
}

/// The same text with the probabilities of three tokens beside it.
fn reported() -> Value {
    let report = |chosen_q16, top: &[(u32, u32)], spellings: &[&[u8]]| TokenLogprobs {
        chosen_q16,
        top: top.to_vec(),
        spellings: spellings.iter().map(|bytes| bytes.to_vec()).collect(),
    };
    let logprobs = [
        report(45_426, &[(504, 45_426), (9, 90_852)], &[b" the", b" the", &[0xf0, 0x9f]]),
        report(u32::MAX, &[], &[b"<|im_end|>"]),
        report(0, &[(0, 0)], &[b"", b""]),
    ];
    let bytes = |bytes: &Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let rows = logprobs.iter().map(|one| {
        let spellings: Vec<String> = one.spellings.iter().map(bytes).collect();
        json!({"chosen_q16": one.chosen_q16, "top": one.top, "spellings": spellings})
    });
    json!({
        "logprobs": rows.collect::<Vec<_>>(),
        "text_hash": hex(&shown_hash("naïve ✓", &logprobs)),
    })
}

fn roots() -> Value {
    let hash = |index: u32| Digest::from_bytes([index as u8; 32]);
    let root =
        |leaves: u32| hex(&Tree::from_hashes((0..leaves).map(hash).collect()).unwrap().root());
    (1..=33).map(root).collect::<Vec<_>>().into()
}

fn seeds() -> Value {
    let message =
        |role: &str, content: &str| ChatMessage { role: role.into(), content: content.into() };
    let prompts = [
        Prompt::Text("what is true?".into()),
        Prompt::Tokens(vec![1, 2, 70_000]),
        Prompt::Chat(vec![message("system", ""), message("user", "naïve ✓")]),
    ];
    let rules = Sampling {
        min_p_q16: 3_277,
        repetition_q16: 72_090,
        presence_q16: -32_768,
        frequency_q16: 16_384,
        bias: vec![LogitBias { token: 7, bias_q16: -6_553_600 }],
        ..Sampling::GREEDY
    };
    let form = Form::JsonSchema(r#"{"type":"object"}"#.to_owned());
    let constraint = Some(Constraint { rules: "rules-1.0/1".into(), form });
    let schema = Sampling { constraint, ..Sampling::GREEDY };
    let plain = prompts.clone().map(|prompt| (prompt, Sampling::GREEDY));
    let [text, tokens, _] = prompts;
    let asked = plain.into_iter().chain([(text, rules), (tokens, schema)]);
    let seeds = asked.map(|(prompt, rules)| {
        let prompt_json = match &prompt {
            Prompt::Text(text) => json!({ "text": text }),
            Prompt::Tokens(ids) => json!({ "tokens": ids }),
            Prompt::Chat(messages) => json!({
                "chat": messages.iter().map(|one| [&one.role, &one.content]).collect::<Vec<_>>()
            }),
        };
        let (temperature_q16, top_k, top_p_q16) = (45_875, 40, 62_259);
        let sampling = Sampling { temperature_q16, top_k, top_p_q16, ..rules.clone() };
        let stop = vec!["\n\n".to_owned(), "END".into()];
        let offer = Offer { prompt, sampling, stop, max_tokens: 99, ..offer() };
        let seed = sampling_seed(&offer);
        json!({
            "arithmetic": peerproof_wire::ARITHMETIC,
            "model_id": offer.model_id.to_string(),
            "prompt": prompt_json,
            "temperature_q16": offer.sampling.temperature_q16,
            "top_k": offer.sampling.top_k,
            "top_p_q16": offer.sampling.top_p_q16,
            "rules": rules_json(&offer.sampling),
            "max_tokens": offer.max_tokens,
            "stop": offer.stop,
            "public_nonce": hex(&Digest::from_bytes(offer.public_nonce)),
            "seed": hex(&seed),
            "draws": (0..4).map(|index| draw(&seed, index).to_string()).collect::<Vec<_>>(),
        })
    });
    seeds.collect::<Vec<_>>().into()
}

/// The rules that enter the seed only if one of them is on.
fn rules_json(sampling: &Sampling) -> Value {
    let (temperature_q16, top_k, top_p_q16) = (45_875, 40, 62_259);
    if *sampling == (Sampling { temperature_q16, top_k, top_p_q16, ..Sampling::GREEDY }) {
        return Value::Null;
    }
    let bias = |bias: &LogitBias| json!([bias.token, bias.bias_q16]);
    json!({
        "min_p_q16": sampling.min_p_q16,
        "repetition_q16": sampling.repetition_q16,
        "presence_q16": sampling.presence_q16,
        "frequency_q16": sampling.frequency_q16,
        "bias": sampling.bias.iter().map(bias).collect::<Vec<_>>(),
        "constraint": sampling.constraint.as_ref().map(|it| json!([it.kind(), it.text(), it.rules])),
    })
}

fn challenges() -> Value {
    let receipt = serve(&Toy::default(), &sign(offer())).receipt.statement().clone();
    [2_u32, 3, 16, 17, 18, 100, 70_000]
        .map(|leaves| {
            let mut receipt = receipt.clone();
            receipt.leaves = leaves;
            receipt.transcript_root = Digest::from_bytes([0xee; 32]);
            json!({
                "nonce": hex(&Digest::from_bytes([0xc1; 32])),
                "root": hex(&receipt.transcript_root),
                "leaves": leaves,
                "positions": positions(&[0xc1; 32], &receipt),
            })
        })
        .to_vec()
        .into()
}

fn stop_code(stop: Stop) -> u8 {
    match stop {
        Stop::EndOfText => 1,
        Stop::Length => 2,
        Stop::StopString => 3,
    }
}

/// A whole job of the toy model: what offer, leaves and auditor give.
fn job() -> Value {
    let served = serve(&Toy::default(), &sign(offer()));
    let recomputation = recompute(&Toy::default(), &served.offer, &served.tokens).unwrap();
    let ticket = Ticket::draw(&auditor().vrf(), &served.receipt).unwrap();
    let key = auditor().public();
    json!({
        "offer_id": hex(&served.offer.id()),
        "tokens": served.tokens,
        "output_hash": hex(&output_hash(&served.tokens)),
        "text": served.text,
        "stop": stop_code(served.stop),
        "leaves": served.leaves.iter().map(leaf_json).collect::<Vec<_>>(),
        "kv_root": hex(&served.receipt.kv_root),
        "root": hex(&served.tree.root()),
        "receipt": encode(&served.receipt),
        "auditor": hex(&Digest::from_bytes(*key.as_bytes())),
        "work": hex(&recomputation.work(&key)),
        "vrf_output": ticket.output().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
    })
}

fn encode(receipt: &Signed<peerproof_wire::Receipt>) -> String {
    receipt.envelope().payload.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn digests_are_those_of_the_specification() {
    let computed = json!({
        "key": hex(&key()),
        "rows": rows(),
        "cells": cells(),
        "transcript": transcript(),
        "roots_of_leaf_hashes_0_1_2": roots(),
        "seeds": seeds(),
        "challenges": challenges(),
        "job": job(),
    });
    let path: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "../../vectors/proof/transcript.json"].iter().collect();
    if std::env::var_os("PEERPROOF_BLESS").is_some() {
        let text = serde_json::to_string_pretty(&computed).unwrap();
        std::fs::write(&path, text + "\n").unwrap();
    }
    let kept: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for (name, computed) in computed.as_object().unwrap() {
        assert_eq!(Some(computed), kept.get(name), "vector {name}");
    }
}
