//! The fields of every message, as in `proto/`, with their limits.
//!
//! A test holds numbers, names and kinds against the compiled schemas.

use super::Kind::{self, Bytes, Hashes, Many, Number, Numbers, One, Strings, Text, Texts};
use super::Shape;
use crate::limits;

const HASH: Kind = Bytes(32);
const GROUP: Kind = Bytes(crate::record::LONGEST_GROUP);
const ANSWER: Kind = Numbers(limits::MAX_ANSWER_TOKENS as usize);
const SPELLINGS: Kind = Strings(limits::MAX_TOP_LOGPROBS + 1, limits::MAX_SPELLING_BYTES);
const PATH: Kind = Hashes(limits::MAX_PATH_HASHES);

macro_rules! shapes {
    ($($shape:ident $message:literal { $($number:literal $place:literal $kind:expr,)* })*) => {
        /// Every shape, by the name of its constant.
        #[cfg(test)]
        pub(crate) static ALL: &[(&str, &Shape)] = &[$((stringify!($shape), &$shape)),*];

        $(pub(crate) static $shape: Shape = Shape {
            name: $message,
            fields: &[$(($number, $place, $kind)),*],
        };)*
    };
}

shapes! {
    ENVELOPE "envelope" {
        1 "envelope.payload" Bytes(limits::MAX_OFFER_BYTES),
        2 "envelope.key" HASH,
        3 "envelope.signature" Bytes(64),
    }
    SAMPLING "offer.sampling" {
        1 "offer.sampling.temperature_q16" Number,
        2 "offer.sampling.top_k" Number,
        3 "offer.sampling.top_p_q16" Number,
        4 "offer.sampling.min_p_q16" Number,
        5 "offer.sampling.repetition_q16" Number,
        6 "offer.sampling.presence_q16" Number,
        7 "offer.sampling.frequency_q16" Number,
        8 "offer.sampling.bias" Many(limits::MAX_LOGIT_BIASES, &LOGIT_BIAS),
        9 "offer.sampling.constraint" One(&CONSTRAINT),
        10 "offer.sampling.logprobs" Number,
    }
    LOGIT_BIAS "offer.sampling.bias" {
        1 "offer.sampling.bias.token" Number,
        2 "offer.sampling.bias.bias_q16" Number,
    }
    CONSTRAINT "offer.sampling.constraint" {
        1 "offer.sampling.constraint.kind" Number,
        2 "offer.sampling.constraint.text" Text(limits::MAX_CONSTRAINT_BYTES),
        3 "offer.sampling.constraint.rules" Text(limits::MAX_CONSTRAINT_RULES_BYTES),
    }
    CHAT_MESSAGE "offer.chat.message" {
        1 "offer.chat.role" Text(limits::MAX_ROLE_BYTES),
        2 "offer.chat.content" Text(limits::MAX_PROMPT_BYTES),
    }
    CHAT "offer.chat" {
        1 "offer.chat" Many(limits::MAX_CHAT_MESSAGES, &CHAT_MESSAGE),
    }
    TOKEN_IDS "offer.tokens" {
        1 "offer.tokens" Numbers(limits::MAX_PROMPT_TOKENS as usize),
    }
    OFFER "offer" {
        1 "offer.protocol" Number,
        2 "offer.arithmetic" Number,
        3 "offer.model_id" HASH,
        4 "offer.chat" One(&CHAT),
        5 "offer.text" Text(limits::MAX_PROMPT_BYTES),
        6 "offer.tokens" One(&TOKEN_IDS),
        7 "offer.sampling" One(&SAMPLING),
        8 "offer.max_tokens" Number,
        9 "offer.stop" Texts(limits::MAX_STOP_STRINGS, limits::MAX_STOP_STRING_BYTES),
        10 "offer.level" Number,
        11 "offer.public_nonce" HASH,
        12 "offer.client_nonce_hash" HASH,
        13 "offer.deadline_ms" Number,
        14 "offer.pooling" Number,
        15 "offer.class" Number,
    }
    OPEN "open" {
        1 "open.offer" One(&ENVELOPE),
        2 "open.resume" ANSWER,
    }
    CANCEL "cancel" {}
    CHALLENGE "challenge" {
        1 "challenge.receipt_id" HASH,
        2 "challenge.client_nonce" HASH,
        3 "challenge.positions" Numbers(limits::MAX_CHALLENGE_POSITIONS),
        4 "challenge.leaf_hashes" Number,
    }
    ROUTER_FRAME "router frame" {
        1 "router_frame.open" One(&OPEN),
        2 "router_frame.cancel" One(&CANCEL),
        3 "router_frame.challenge" One(&CHALLENGE),
    }
    ACCEPTED "accepted" {
        1 "accepted.offer_id" HASH,
        2 "accepted.prompt_tokens" Number,
        3 "accepted.queue_position" Number,
    }
    COMMITMENT "tokens.commitment" {
        1 "tokens.commitment.leaves" Number,
        2 "tokens.commitment.root" HASH,
    }
    TOKENS "tokens" {
        1 "tokens.start" Number,
        2 "tokens.tokens" Numbers(limits::MAX_TOKENS_PER_FRAME),
        3 "tokens.text" Text(limits::MAX_TEXT_PER_FRAME_BYTES),
        4 "tokens.commitment" One(&COMMITMENT),
        5 "tokens.logprobs" Many(limits::MAX_LOGPROBS_PER_FRAME, &TOKEN_LOGPROBS),
    }
    TOKEN_LOGPROBS "tokens.logprobs" {
        1 "tokens.logprobs.chosen_q16" Number,
        2 "tokens.logprobs.tokens" Numbers(limits::MAX_TOP_LOGPROBS),
        3 "tokens.logprobs.values_q16" Numbers(limits::MAX_TOP_LOGPROBS),
        4 "tokens.logprobs.spellings" SPELLINGS,
    }
    RECEIPT "receipt" {
        1 "receipt.protocol" Number,
        2 "receipt.arithmetic" Number,
        3 "receipt.offer_id" HASH,
        4 "receipt.model_id" HASH,
        5 "receipt.number" Number,
        6 "receipt.previous" HASH,
        7 "receipt.prompt_tokens" Number,
        8 "receipt.output_tokens" Number,
        9 "receipt.stop" Number,
        10 "receipt.output_hash" HASH,
        11 "receipt.text_hash" HASH,
        12 "receipt.transcript_root" HASH,
        13 "receipt.leaves" Number,
        14 "receipt.issued_unix_ms" Number,
        15 "receipt.kv_root" HASH,
        16 "receipt.class" Number,
    }
    LOG_PROOF "log proof" {
        1 "log_proof.index" Number,
        2 "log_proof.checkpoint" Text(limits::MAX_CHECKPOINT_BYTES),
        3 "log_proof.path" PATH,
    }
    DELIVERED "delivered" {
        1 "delivered.receipt" One(&ENVELOPE),
        2 "delivered.log" One(&LOG_PROOF),
    }
    DRAWN "leaf.drawn" {
        1 "leaf.drawn.logits" HASH,
        2 "leaf.drawn.draw" Number,
        3 "leaf.drawn.next" Number,
    }
    LEAF "leaf" {
        1 "leaf.position" Number,
        2 "leaf.token" Number,
        3 "leaf.state" HASH,
        4 "leaf.drawn" One(&DRAWN),
        5 "leaf.layers" HASH,
    }
    OPENING "opening" {
        1 "opening.leaf" One(&LEAF),
        2 "opening.path" PATH,
    }
    OPENINGS "openings" {
        1 "openings.openings" Many(limits::MAX_OPENINGS, &OPENING),
        2 "openings.leaf_hashes" Hashes(limits::MAX_LEAF_HASHES),
    }
    FAILURE "failure" {
        1 "failure.code" Number,
        2 "failure.message" Text(limits::MAX_FAILURE_MESSAGE_BYTES),
        3 "failure.retry_after_ms" Number,
    }
    PROGRESS "progress" {
        1 "progress.read" Number,
    }
    PROVIDER_FRAME "provider frame" {
        1 "provider_frame.accepted" One(&ACCEPTED),
        2 "provider_frame.tokens" One(&TOKENS),
        3 "provider_frame.delivered" One(&DELIVERED),
        4 "provider_frame.openings" One(&OPENINGS),
        5 "provider_frame.failure" One(&FAILURE),
        6 "provider_frame.progress" One(&PROGRESS),
    }
    CASE "case" {
        1 "case.offer" One(&ENVELOPE),
        2 "case.receipt" One(&ENVELOPE),
        3 "case.tokens" ANSWER,
    }
    STATISTICAL_CASE "statistical case" {
        1 "statistical_case.case" One(&CASE),
        2 "statistical_case.reports" Many(limits::MAX_STATISTICAL_TOKENS as usize, &TOKEN_LOGPROBS),
    }
    TESTED "verdict.tested" {
        1 "verdict.tested.tokens" Number,
        2 "verdict.tested.difference_q16" Number,
        3 "verdict.tested.standing_q16" Number,
        4 "verdict.tested.growth" Numbers(limits::MAX_STAKE_NUMBERS),
    }
    DRAW_REQUEST "draw request" {
        1 "draw_request.transcript_root" HASH,
        2 "draw_request.offer_id" HASH,
    }
    AUDIT_REQUEST "audit request" {
        1 "audit_request.case" One(&CASE),
        2 "audit_request.draw" One(&DRAW_REQUEST),
        3 "audit_request.tested" One(&STATISTICAL_CASE),
    }
    PASS "verdict.pass" {}
    MISMATCH "mismatch" {
        1 "mismatch.position" Number,
        2 "mismatch.what" Number,
        3 "mismatch.expected" Bytes(limits::MAX_MISMATCH_VALUE_BYTES),
        4 "mismatch.got" Bytes(limits::MAX_MISMATCH_VALUE_BYTES),
    }
    VRF_DRAW "verdict.draw" {
        1 "verdict.draw.key" HASH,
        2 "verdict.draw.proof" Bytes(80),
    }
    VERDICT "verdict" {
        1 "verdict.protocol" Number,
        2 "verdict.arithmetic" Number,
        3 "verdict.receipt_id" HASH,
        4 "verdict.offer_id" HASH,
        5 "verdict.model_id" HASH,
        6 "verdict.provider" HASH,
        7 "verdict.pass" One(&PASS),
        8 "verdict.fail" One(&MISMATCH),
        9 "verdict.work" HASH,
        10 "verdict.draw" One(&VRF_DRAW),
        11 "verdict.issued_unix_ms" Number,
        12 "verdict.tested" One(&TESTED),
    }
    AUDIT_FAILURE "audit failure" {
        1 "audit_failure.message" Text(limits::MAX_FAILURE_MESSAGE_BYTES),
        2 "audit_failure.retry_after_ms" Number,
    }
    AUDIT_REPLY "audit reply" {
        1 "audit_reply.verdict" One(&ENVELOPE),
        2 "audit_reply.failure" One(&AUDIT_FAILURE),
        3 "audit_reply.draw" One(&VRF_DRAW),
    }
    PRICE "price" {
        1 "price.token_us" Number,
        2 "price.replay_us" Number,
        3 "price.opening_us" Number,
        4 "price.cell_bytes" Number,
        5 "price.per_million" Number,
        6 "price.unit" Text(limits::MAX_PRICE_UNIT_BYTES),
    }
    MODEL_OFFER "model offer" {
        1 "model_offer.model_id" HASH,
        2 "model_offer.name" Text(limits::MAX_MODEL_NAME_BYTES),
        3 "model_offer.architecture" Text(limits::MAX_MODEL_KIND_BYTES),
        4 "model_offer.quantisation" Text(limits::MAX_MODEL_KIND_BYTES),
        5 "model_offer.context_length" Number,
        6 "model_offer.file_bytes" Number,
        7 "model_offer.class" Number,
        8 "model_offer.declared_tps" Number,
        9 "model_offer.price" One(&PRICE),
    }
    ANNOUNCEMENT "announcement" {
        1 "announcement.protocol" Number,
        2 "announcement.arithmetic" Number,
        3 "announcement.serves" Many(limits::MAX_ANNOUNCED_MODELS, &MODEL_OFFER),
        4 "announcement.audits" Many(limits::MAX_ANNOUNCED_MODELS, &MODEL_OFFER),
        5 "announcement.active_jobs" Number,
        6 "announcement.queued_jobs" Number,
        7 "announcement.max_jobs" Number,
        8 "announcement.vrf_key" HASH,
        9 "announcement.issued_unix_ms" Number,
        10 "announcement.nonce" HASH,
        11 "announcement.software" Text(limits::MAX_SOFTWARE_BYTES),
    }
    RANGE_REQUEST "range request" {
        1 "range_request.model_id" HASH,
        2 "range_request.start" Number,
        3 "range_request.length" Number,
    }
    RANGE_SLICE "range slice" {
        1 "range_slice.file_bytes" Number,
        2 "range_slice.bytes" Bytes(limits::MAX_RANGE_BYTES),
        3 "range_slice.hashes" Hashes(limits::MAX_RANGE_HASHES),
    }
    RANGE_FAILURE "range failure" {
        1 "range_failure.code" Number,
        2 "range_failure.message" Text(limits::MAX_FAILURE_MESSAGE_BYTES),
        3 "range_failure.retry_after_ms" Number,
    }
    RANGE_REPLY "range reply" {
        1 "range_reply.slice" One(&RANGE_SLICE),
        2 "range_reply.failure" One(&RANGE_FAILURE),
    }
    CELL "cell" {
        1 "cell.position" Number,
        2 "cell.layer" Number,
    }
    CELLS_REQUEST "cells request" {
        1 "cells_request.case" One(&CASE),
        2 "cells_request.client_nonce" HASH,
        3 "cells_request.cells" Many(limits::MAX_CELLS, &CELL),
        4 "cells_request.products" Number,
    }
    CELL_OPENING "cell opening" {
        1 "cell_opening.cell" One(&CELL),
        2 "cell_opening.leaf" One(&LEAF),
        3 "cell_opening.path" PATH,
        4 "cell_opening.rows" Bytes(limits::MAX_CELL_ROWS_BYTES),
        5 "cell_opening.rows_hashes" Hashes(limits::MAX_RANGE_HASHES),
        6 "cell_opening.state" Bytes(limits::MAX_CELL_ROWS_BYTES),
        7 "cell_opening.kv_layers" Hashes(limits::MAX_LAYERS),
        8 "cell_opening.kv_pages" Hashes(limits::MAX_KV_PAGES),
        9 "cell_opening.pages" Strings(limits::MAX_KV_PAGES, limits::MAX_KV_PAGE_BYTES),
        10 "cell_opening.last" Bytes(limits::MAX_KV_PAGE_BYTES),
        11 "cell_opening.last_hashes" Hashes(limits::MAX_RANGE_HASHES),
        12 "cell_opening.products" Bytes(limits::MAX_CELL_PRODUCTS_BYTES),
    }
    CELLS_PART "cells part" {
        1 "cells_part.left" Number,
        2 "cells_part.bytes" Bytes(limits::MAX_CELLS_PART_BYTES),
    }
    CELLS_REPLY "cells reply" {
        1 "cells_reply.part" One(&CELLS_PART),
        2 "cells_reply.failure" One(&AUDIT_FAILURE),
    }
    WEIGHT_RANGE "weight range" {
        1 "weight_range.start" Number,
        2 "weight_range.length" Number,
        3 "weight_range.slice" One(&RANGE_SLICE),
    }
    FRAUD_PROOF "fraud proof" {
        1 "fraud_proof.case" One(&CASE),
        2 "fraud_proof.opening" One(&CELL_OPENING),
        3 "fraud_proof.weights" Many(limits::MAX_WEIGHT_RANGES, &WEIGHT_RANGE),
    }
    TRACED_TENSOR "trace.layout.tensors" {
        1 "trace.layout.tensors.name" Number,
        2 "trace.layout.tensors.start" Number,
        3 "trace.layout.tensors.format" Number,
        4 "trace.layout.tensors.exponent" Number,
    }
    TRACE_LAYOUT "trace.layout" {
        1 "trace.layout.file_bytes" Number,
        2 "trace.layout.layers" Number,
        3 "trace.layout.width" Number,
        4 "trace.layout.heads" Number,
        5 "trace.layout.kv_heads" Number,
        6 "trace.layout.head_dims" Number,
        7 "trace.layout.feed" Number,
        8 "trace.layout.vocabulary" Number,
        9 "trace.layout.epsilon" Number,
        10 "trace.layout.halves" Number,
        11 "trace.layout.gelu" Number,
        12 "trace.layout.score_scale" Number,
        13 "trace.layout.score_cap" Number,
        14 "trace.layout.logit_cap" Number,
        15 "trace.layout.embedding_scale" Number,
        16 "trace.layout.first" Number,
        17 "trace.layout.angles" Bytes(limits::MAX_ANGLES_BYTES),
        18 "trace.layout.tensors" Many(limits::MAX_TRACED_TENSORS, &TRACED_TENSOR),
    }
    TRACE_ROW "trace.rows" {
        1 "trace.rows.digest" HASH,
        2 "trace.rows.exponent" Number,
        3 "trace.rows.index" Number,
    }
    TRACE_PART "trace.part" {
        1 "trace.part.head" Number,
        2 "trace.part.dim" Number,
    }
    TRACE "trace" {
        1 "trace.protocol" Number,
        2 "trace.arithmetic" Number,
        3 "trace.receipt_id" HASH,
        4 "trace.cell" One(&CELL),
        5 "trace.part" One(&TRACE_PART),
        6 "trace.layout" One(&TRACE_LAYOUT),
        7 "trace.rows" Many(limits::MAX_TRACE_ROWS, &TRACE_ROW),
    }
    DISPUTE_OPEN "dispute open" {
        1 "dispute_open.case" One(&CASE),
        2 "dispute_open.client_nonce" HASH,
        3 "dispute_open.cell" One(&CELL),
    }
    ROW_REQUEST "row request" {
        1 "row_request.row" Number,
        2 "row_request.chunks" Bytes(limits::MAX_ROW_CHUNKS_BYTES),
    }
    DISPUTE_REQUEST "dispute request" {
        1 "dispute_request.open" One(&DISPUTE_OPEN),
        2 "dispute_request.row" One(&ROW_REQUEST),
        3 "dispute_request.part" One(&TRACE_PART),
    }
    ROW_CHUNK "row chunk" {
        1 "row_chunk.chunk" Number,
        2 "row_chunk.bytes" Bytes(limits::MAX_ROW_CHUNK_BYTES),
        3 "row_chunk.hashes" Hashes(limits::MAX_RANGE_HASHES),
    }
    DISPUTE_REPLY "dispute reply" {
        1 "dispute_reply.trace" One(&ENVELOPE),
        2 "dispute_reply.chunk" One(&ROW_CHUNK),
        3 "dispute_reply.failure" One(&AUDIT_FAILURE),
    }
    STRETCH "dispute proof stretch" {
        1 "dispute_proof.stretches.bytes" Bytes(limits::MAX_DISPUTE_PROOF_BYTES),
        2 "dispute_proof.stretches.hashes" Hashes(limits::MAX_RANGE_HASHES),
    }
    DISPUTE_PROOF "dispute proof" {
        1 "dispute_proof.receipt" One(&ENVELOPE),
        2 "dispute_proof.leaf" One(&LEAF),
        3 "dispute_proof.path" PATH,
        4 "dispute_proof.trace" One(&ENVELOPE),
        5 "dispute_proof.part" One(&ENVELOPE),
        6 "dispute_proof.operation" Number,
        7 "dispute_proof.index" Number,
        8 "dispute_proof.kv_layers" Hashes(limits::MAX_LAYERS),
        9 "dispute_proof.kv_pages" Hashes(limits::MAX_KV_PAGES),
        10 "dispute_proof.stretches" Many(limits::MAX_STRETCHES, &STRETCH),
    }
    INFO_REQUEST "info request" {
        1 "info_request.nonce" HASH,
    }
    INFO_REPLY "info reply" {
        1 "info_reply.announcement" One(&ENVELOPE),
    }
    WRONG_ANSWER "wrong answer" {
        1 "wrong_answer.case" One(&CASE),
        2 "wrong_answer.mismatch" One(&MISMATCH),
        3 "wrong_answer.opening" One(&OPENING),
        4 "wrong_answer.verdicts" Many(limits::MAX_VERDICTS, &ENVELOPE),
    }
    EQUIVOCATION "equivocation" {
        1 "equivocation.first" One(&ENVELOPE),
        2 "equivocation.second" One(&ENVELOPE),
    }
    FORK "fork" {
        1 "fork.key" HASH,
        2 "fork.first" Text(limits::MAX_CHECKPOINT_BYTES),
        3 "fork.second" Text(limits::MAX_CHECKPOINT_BYTES),
        4 "fork.path" PATH,
    }
    OBSERVATION "observation" {
        1 "observation.provider" HASH,
        2 "observation.reason" Text(limits::MAX_REASON_BYTES),
        3 "observation.case" One(&CASE),
    }
    FALSE_VERDICT "false verdict" {
        1 "false_verdict.case" One(&CASE),
        2 "false_verdict.verdict" One(&ENVELOPE),
    }
    FRAUD_CLAIM "fraud claim" {
        1 "fraud_claim.accused" HASH,
        2 "fraud_claim.job" HASH,
        3 "fraud_claim.file" HASH,
        4 "fraud_claim.bytes" Number,
    }
    EVIDENCE "evidence" {
        1 "evidence.wrong_answer" One(&WRONG_ANSWER),
        2 "evidence.equivocation" One(&EQUIVOCATION),
        3 "evidence.observation" One(&OBSERVATION),
        8 "evidence.false_verdict" One(&FALSE_VERDICT),
        9 "evidence.fork" One(&FORK),
        10 "evidence.fraud" One(&FRAUD_CLAIM),
    }
    ACCEPTED_ANSWER "accepted answer" {
        1 "accepted_answer.receipt_id" HASH,
        2 "accepted_answer.provider" HASH,
        3 "accepted_answer.model_id" HASH,
        4 "accepted_answer.output_tokens" Number,
        5 "accepted_answer.first_token_ms" Number,
        6 "accepted_answer.total_ms" Number,
        7 "accepted_answer.audited" Number,
        8 "accepted_answer.group" GROUP,
        9 "accepted_answer.auditor" HASH,
        10 "accepted_answer.auditor_group" GROUP,
        11 "accepted_answer.drawn" Number,
    }
    DECISION "decision" {
        1 "decision.peer" HASH,
        2 "decision.blocked" Number,
        3 "decision.reason" Text(limits::MAX_REASON_BYTES),
    }
    REFUTATION "refutation" {
        1 "refutation.accused" HASH,
        2 "refutation.receipt_id" HASH,
        3 "refutation.accuser" HASH,
    }
    AUDITOR_CHECK "auditor check" {
        1 "auditor_check.auditor" HASH,
        2 "auditor_check.receipt_id" HASH,
        3 "auditor_check.finding" Number,
    }
    NOTE "note" {
        1 "note.decision" One(&DECISION),
        2 "note.refutation" One(&REFUTATION),
        3 "note.auditor_check" One(&AUDITOR_CHECK),
    }
    LOG_ENTRY "log entry" {
        1 "log_entry.receipt" One(&ENVELOPE),
        2 "log_entry.verdict" One(&ENVELOPE),
        3 "log_entry.evidence" One(&EVIDENCE),
        4 "log_entry.accepted" One(&ACCEPTED_ANSWER),
        5 "log_entry.unix_ms" Number,
        6 "log_entry.note" One(&NOTE),
    }
    HELD_FROM "held from" {
        1 "held_from.index" Number,
    }
    LOG_REQUEST "log request" {
        1 "log_request.piece" Text(limits::MAX_LOG_PATH_BYTES),
        2 "log_request.cosigned" HASH,
        3 "log_request.add_checkpoint" Bytes(limits::MAX_ADD_CHECKPOINT_BYTES),
        4 "log_request.held" One(&HELD_FROM),
    }
    LOG_REFUSAL "log refusal" {
        1 "log_refusal.status" Number,
        2 "log_refusal.message" Text(limits::MAX_FAILURE_MESSAGE_BYTES),
        3 "log_refusal.last" Text(limits::MAX_CHECKPOINT_BYTES),
    }
    HELD_PROOF "held proof" {
        1 "held_proof.index" Number,
        2 "held_proof.evidence" One(&EVIDENCE),
    }
    LOG_REPLY "log reply" {
        1 "log_reply.found" Bytes(limits::MAX_LOG_PIECE_BYTES),
        2 "log_reply.refused" One(&LOG_REFUSAL),
        3 "log_reply.held" One(&HELD_PROOF),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::collections::BTreeMap;

    use super::*;

    /// `OfferHeader` as `OFFER_HEADER`.
    fn constant_name(message: &str) -> String {
        let mut name = String::new();
        for letter in message.chars() {
            if letter.is_ascii_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(letter.to_ascii_uppercase());
        }
        name
    }

    /// What a kind is in the schema's terms: label and type.
    fn describe(kind: &Kind) -> String {
        let shape_name = |shape: &'static Shape| {
            let found = ALL.iter().find(|(_, other)| std::ptr::eq(*other, shape));
            found.unwrap().0
        };
        match kind {
            Number => "number".into(),
            Bytes(_) | Hashes(_) => "bytes".into(),
            Strings(..) => "repeated bytes".into(),
            Text(_) => "text".into(),
            One(shape) => shape_name(shape).into(),
            Numbers(_) => "repeated number".into(),
            Texts(..) => "repeated text".into(),
            Many(_, shape) => format!("repeated {}", shape_name(shape)),
        }
    }

    #[test]
    fn tables_equal_the_schemas() {
        const REPEATED: i32 = 3;
        let names = [
            "statement",
            "job",
            "audit",
            "announce",
            "evidence",
            "range",
            "cells",
            "dispute",
            "log",
        ];
        let schemas =
            protox::compile(names.map(|name| format!("{name}.proto")), ["proto"]).unwrap();
        let mut expected = BTreeMap::new();
        for message in schemas.file.iter().flat_map(|file| &file.message_type) {
            let fields = message.field.iter().map(|field| {
                let kind = match field.r#type.unwrap() {
                    4 | 8 | 13 | 14 | 17 => "number".into(),
                    9 => "text".into(),
                    11 => constant_name(field.type_name().rsplit('.').next().unwrap()),
                    12 => "bytes".into(),
                    other => panic!("type {other} of {} is not in use", field.name()),
                };
                let repeated = field.label.unwrap() == REPEATED;
                let kind = if repeated { format!("repeated {kind}") } else { kind };
                (field.number() as u32, kind)
            });
            expected.insert(constant_name(message.name()), fields.collect::<Vec<_>>());
        }
        let got = ALL.iter().map(|(name, shape)| {
            let fields = shape.fields.iter();
            let fields = fields.map(|(number, _, kind)| (*number, describe(kind)));
            ((*name).to_owned(), fields.collect())
        });
        assert_eq!(got.collect::<BTreeMap<_, Vec<_>>>(), expected);
    }
}
