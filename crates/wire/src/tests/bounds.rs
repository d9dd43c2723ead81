//! Every limit, at its value and one above: this side doesn't send what is
//! above, and doesn't accept it either. A limit without a test here is an error.

use std::collections::BTreeSet;

use prost::Message as _;

use crate::codec::Codec;
use crate::*;

use super::samples::{self, constraint};

/// The limits seen so far.
struct Bounds(BTreeSet<&'static str>);

fn value_of(limit: &str) -> u64 {
    let found = limits::ALL.iter().find(|(name, _)| *name == limit);
    found.unwrap_or_else(|| panic!("no limit {limit}")).1
}

fn encode_unchecked<T: Codec>(value: &T) -> Vec<u8> {
    value.to_proto().encode_to_vec()
}

fn assert_over(limit: &str, error: &WireError) {
    let WireError::OverLimit { limit: value, .. } = error else {
        panic!("{limit}: {error}");
    };
    assert_eq!(*value, value_of(limit), "{limit}: {error}");
}

impl Bounds {
    /// `make(n)` is a message that has `n` of what `limit` bounds.
    fn check<T: Codec + PartialEq + std::fmt::Debug>(
        &mut self,
        limit: &'static str,
        make: impl Fn(u64) -> T,
    ) {
        let at = make(value_of(limit));
        let bytes = at.encode().unwrap_or_else(|error| panic!("{limit}: {error}"));
        assert_eq!(T::decode(&bytes).unwrap(), at, "{limit}");

        let over = make(value_of(limit) + 1);
        let WireError::Unsendable(ours) = over.encode().unwrap_err() else {
            panic!("{limit}: the sender isn't blamed");
        };
        assert_over(limit, &ours);
        let theirs = T::decode(&encode_unchecked(&over)).unwrap_err();
        assert_over(limit, &theirs);
        assert_eq!(theirs.fault(), Fault::Theirs);
        self.0.insert(limit);
    }

    /// `limit` bounds the encoding of `T` as a whole.
    fn check_size<T: Codec + std::fmt::Debug>(&mut self, limit: &'static str) {
        assert_eq!(<T as Codec>::MAX_BYTES as u64, value_of(limit));
        let bytes = vec![0; value_of(limit) as usize + 1];
        assert_over(limit, &T::decode(&bytes).unwrap_err());
        self.0.insert(limit);
    }
}

fn text(length: u64) -> String {
    "x".repeat(length as usize)
}

fn offer_with(change: impl Fn(&mut Offer)) -> Offer {
    let mut offer = samples::offer();
    change(&mut offer);
    offer
}

fn check_offer(bounds: &mut Bounds) {
    bounds.check("MAX_PROMPT_BYTES", |n| offer_with(|it| it.prompt = Prompt::Text(text(n))));
    bounds.check("MAX_PROMPT_BYTES", |n| {
        let messages = vec![
            ChatMessage::new("user", text(n / 2)),
            ChatMessage::new("user", text(n - n / 2 - 8)),
        ];
        offer_with(|it| it.prompt = Prompt::Chat(messages.clone()))
    });
    bounds.check("MAX_CHAT_MESSAGES", |n| {
        offer_with(|it| it.prompt = Prompt::Chat(vec![ChatMessage::new("user", ""); n as usize]))
    });
    bounds.check("MAX_ROLE_BYTES", |n| {
        offer_with(|it| it.prompt = Prompt::Chat(vec![ChatMessage::new(text(n), "")]))
    });
    bounds.check("MAX_PROMPT_TOKENS", |n| {
        offer_with(|it| it.prompt = Prompt::Tokens(vec![limits::MAX_TOKEN_ID; n as usize]))
    });
    bounds.check("MAX_TOKEN_ID", |n| offer_with(|it| it.prompt = Prompt::Tokens(vec![n as u32])));
    bounds.check("MAX_ANSWER_TOKENS", |n| offer_with(|it| it.max_tokens = n as u32));
    bounds.check("MAX_STOP_STRINGS", |n| offer_with(|it| it.stop = vec!["x".into(); n as usize]));
    bounds.check("MAX_STOP_STRING_BYTES", |n| offer_with(|it| it.stop = vec![text(n)]));
    bounds
        .check("MAX_TEMPERATURE_Q16", |n| offer_with(|it| it.sampling.temperature_q16 = n as u32));
    bounds.check("MAX_TOP_K", |n| offer_with(|it| it.sampling.top_k = n as u32));
    bounds.check("MAX_TOP_P_Q16", |n| offer_with(|it| it.sampling.top_p_q16 = n as u32));
    let sampled =
        |change: fn(&mut Sampling, u64)| move |n| offer_with(|it| change(&mut it.sampling, n));
    bounds.check("MAX_MIN_P_Q16", sampled(|it, n| it.min_p_q16 = n as u32));
    bounds.check("MAX_REPETITION_Q16", sampled(|it, n| it.repetition_q16 = n as u32));
    bounds.check("MAX_PENALTY_Q16", sampled(|it, n| it.presence_q16 = n as i32));
    bounds.check("MAX_PENALTY_Q16", sampled(|it, n| it.presence_q16 = -(n as i32)));
    bounds.check("MAX_PENALTY_Q16", sampled(|it, n| it.frequency_q16 = n as i32));
    bounds.check("MAX_PENALTY_Q16", sampled(|it, n| it.frequency_q16 = -(n as i32)));
    bounds.check("MAX_TOP_LOGPROBS", sampled(|it, n| it.logprobs = Some(n as u32)));
    let biases = |count: u64, bias_q16| -> Vec<LogitBias> {
        (0..count as u32).map(|token| LogitBias { token, bias_q16 }).collect()
    };
    bounds.check("MAX_LOGIT_BIASES", |n| offer_with(|it| it.sampling.bias = biases(n, -1)));
    bounds.check("MAX_LOGIT_BIAS_Q16", |n| {
        offer_with(|it| it.sampling.bias = biases(2, -(n as i32)))
    });
    bounds.check("MAX_TOKEN_ID", |n| {
        let bias = vec![LogitBias { token: n as u32, bias_q16: 1 }];
        offer_with(|it| it.sampling.bias = bias.clone())
    });
    bounds.check("MAX_CONSTRAINT_BYTES", |n| {
        offer_with(|it| it.sampling.constraint = Some(constraint(Form::JsonSchema(text(n)))))
    });
    bounds.check("MAX_CONSTRAINT_BYTES", |n| {
        offer_with(|it| it.sampling.constraint = Some(constraint(Form::Regex(text(n)))))
    });
    bounds.check("MAX_CONSTRAINT_RULES_BYTES", |n| {
        let named = Constraint { rules: text(n), form: Form::JsonObject };
        offer_with(|it| it.sampling.constraint = Some(named.clone()))
    });
    bounds.check("MAX_DEADLINE_MS", |n| offer_with(|it| it.deadline_ms = n));
    check_statistical(bounds);
}

fn check_statistical(bounds: &mut Bounds) {
    bounds.check("MAX_STAKE_NUMBERS", |n| Tested {
        growth: vec![1; n as usize],
        ..samples::tested()
    });
    bounds.check("MAX_STATISTICAL_TOKENS", |n| Tested { tokens: n as u32, ..samples::tested() });
    bounds.check("MAX_STATISTICAL_TOKENS", |n| StatisticalCase {
        reports: vec![samples::token_logprobs(); n as usize],
        ..samples::statistical_case()
    });
    bounds.check("MAX_STATISTICAL_TOKENS", |n| Offer {
        max_tokens: n as u32,
        ..samples::statistical_offer()
    });
}

fn check_job(bounds: &mut Bounds) {
    let tokens = samples::tokens();
    bounds.check("MAX_TOKENS_PER_FRAME", |n| Tokens {
        tokens: vec![limits::MAX_TOKEN_ID; n as usize],
        ..tokens.clone()
    });
    bounds.check("MAX_TOP_LOGPROBS", |n| Tokens {
        tokens: vec![9],
        logprobs: vec![logprobs(n as usize, 1)],
        ..tokens.clone()
    });
    bounds.check("MAX_SPELLING_BYTES", |n| Tokens {
        tokens: vec![9],
        logprobs: vec![logprobs(1, n as usize)],
        ..tokens.clone()
    });
    bounds.check("MAX_LOGPROBS_PER_FRAME", |n| Tokens {
        tokens: vec![9; n as usize],
        logprobs: vec![logprobs(0, 1); n as usize],
        ..tokens.clone()
    });
    bounds.check("MAX_TEXT_PER_FRAME_BYTES", |n| Tokens { text: text(n), ..tokens.clone() });
    bounds.check("MAX_LEAVES", |n| Tokens {
        commitment: Some(Commitment { leaves: n as u32, root: samples::digest(1) }),
        ..tokens.clone()
    });
    bounds.check("MAX_LEAVES", |n| Progress { read: n as u32 });
    bounds.check("MAX_LEAVES", |n| Receipt { leaves: n as u32, ..samples::receipt() });
    bounds.check("MAX_PATH_HASHES", |n| Opening {
        path: vec![samples::digest(1); n as usize],
        ..samples::opening()
    });
    bounds.check("MAX_PATH_HASHES", |n| LogProof {
        path: vec![samples::digest(1); n as usize],
        ..samples::delivered().log
    });
    bounds.check("MAX_CHALLENGE_POSITIONS", |n| Challenge {
        positions: vec![limits::MAX_LEAVES - 1; n as usize],
        ..samples::challenge()
    });
    bounds.check("MAX_OPENINGS", |n| Openings {
        openings: vec![samples::opening(); n as usize],
        leaf_hashes: vec![],
    });
    bounds.check("MAX_LEAF_HASHES", |n| Openings {
        openings: vec![],
        leaf_hashes: vec![samples::digest(1); n as usize],
    });
    bounds.check("MAX_CHECKPOINT_BYTES", |n| LogProof {
        checkpoint: text(n),
        ..samples::delivered().log
    });
    bounds
        .check("MAX_FAILURE_MESSAGE_BYTES", |n| Failure { message: text(n), ..samples::failure() });
    bounds.check("MAX_RETRY_AFTER_MS", |n| Failure { retry_after_ms: n, ..samples::failure() });
}

fn check_rest(bounds: &mut Bounds) {
    let announcement = samples::announcement();
    let model = announcement.serves[0].clone();
    bounds.check("MAX_ANNOUNCED_MODELS", |n| Announcement {
        serves: vec![model.clone(); n as usize],
        ..announcement.clone()
    });
    bounds.check("MAX_ANNOUNCED_MODELS", |n| Announcement {
        audits: vec![model.clone(); n as usize],
        ..announcement.clone()
    });
    bounds.check("MAX_MODEL_NAME_BYTES", |n| ModelOffer { name: text(n), ..model.clone() });
    bounds.check("MAX_PRICE_UNIT_BYTES", |n| Price { unit: text(n), ..samples::price() });
    bounds.check("MAX_MODEL_KIND_BYTES", |n| ModelOffer { architecture: text(n), ..model.clone() });
    bounds.check("MAX_MODEL_KIND_BYTES", |n| ModelOffer { quantisation: text(n), ..model.clone() });
    bounds.check("MAX_SOFTWARE_BYTES", |n| Announcement {
        software: text(n),
        ..announcement.clone()
    });
    bounds.check("MAX_MISMATCH_VALUE_BYTES", |n| Mismatch {
        expected: vec![1; n as usize],
        ..samples::mismatch()
    });
    bounds.check("MAX_MISMATCH_VALUE_BYTES", |n| Mismatch {
        got: vec![1; n as usize],
        ..samples::mismatch()
    });
    let verdict = samples::signed_verdict(Outcome::Pass);
    bounds.check("MAX_VERDICTS", |n| WrongAnswer {
        verdicts: vec![verdict.clone(); n as usize],
        ..samples::wrong_answer()
    });
    bounds.check("MAX_REASON_BYTES", |n| Observation { reason: text(n), ..samples::observation() });
    bounds.check("MAX_REASON_BYTES", |n| Decision { reason: text(n), ..samples::decision() });
    bounds.check("MAX_ANSWER_TOKENS", |n| Case {
        tokens: vec![limits::MAX_TOKEN_ID; n as usize],
        ..samples::case()
    });
    bounds.check("MAX_ANSWER_TOKENS", |n| AcceptedAnswer {
        output_tokens: n as u32,
        ..samples::accepted_answer()
    });
    bounds.check("MAX_PROMPT_TOKENS", |n| Accepted {
        prompt_tokens: n as u32,
        ..samples::accepted()
    });
}

fn check_logs(bounds: &mut Bounds) {
    let (refusal, fork) = (samples::log_refusal(), samples::fork());
    let claim = samples::fraud_claim();
    bounds.check("MAX_FRAUD_FILE_BYTES", |n| FraudClaim { bytes: n, ..claim });
    bounds.check("MAX_LOG_PATH_BYTES", |n| LogRequest::Piece(text(n)));
    bounds.check("MAX_ADD_CHECKPOINT_BYTES", |n| LogRequest::AddCheckpoint(vec![1; n as usize]));
    bounds.check("MAX_LOG_PIECE_BYTES", |n| LogReply::Found(vec![1; n as usize]));
    bounds
        .check("MAX_FAILURE_MESSAGE_BYTES", |n| LogRefusal { message: text(n), ..refusal.clone() });
    bounds.check("MAX_CHECKPOINT_BYTES", |n| LogRefusal { last: text(n), ..refusal.clone() });
    bounds.check("MAX_CHECKPOINT_BYTES", |n| Fork { first: text(n), ..fork.clone() });
    bounds.check("MAX_CHECKPOINT_BYTES", |n| Fork { second: text(n), ..fork.clone() });
    bounds.check("MAX_PATH_HASHES", |n| Fork {
        path: vec![samples::digest(1); n as usize],
        ..fork.clone()
    });
}

fn check_ranges(bounds: &mut Bounds) {
    let request = samples::range_request();
    let slice = samples::range_slice();
    let failure = samples::range_failure();
    bounds.check("MAX_FILE_BYTES", |n| RangeRequest { start: n - 1, length: 1, ..request.clone() });
    bounds.check("MAX_FILE_BYTES", |n| RangeSlice { file_bytes: n, ..slice.clone() });
    bounds.check("MAX_RANGE_BYTES", |n| RangeRequest { start: 0, length: n, ..request.clone() });
    bounds.check("MAX_RANGE_BYTES", |n| RangeSlice { bytes: vec![1; n as usize], ..slice.clone() });
    bounds.check("MAX_RANGE_HASHES", |n| RangeSlice {
        hashes: vec![samples::digest(1); n as usize],
        ..slice.clone()
    });
    bounds.check("MAX_FAILURE_MESSAGE_BYTES", |n| RangeFailure {
        message: text(n),
        ..failure.clone()
    });
    bounds.check("MAX_RETRY_AFTER_MS", |n| RangeFailure { retry_after_ms: n, ..failure.clone() });
}

fn check_cells(bounds: &mut Bounds) {
    let opening = samples::cell_opening();
    let hashes = |n: u64| vec![samples::digest(1); n as usize];
    bounds.check("MAX_LAYERS", |n| Cell { position: 0, layer: n as u32 });
    bounds.check("MAX_LAYERS", |n| CellOpening { kv_layers: hashes(n), ..opening.clone() });
    bounds.check("MAX_CELLS", |n| CellsRequest {
        cells: (0..n as u32).map(|position| Cell { position, layer: 0 }).collect(),
        ..samples::cells_request()
    });
    bounds.check("MAX_PATH_HASHES", |n| CellOpening { path: hashes(n), ..opening.clone() });
    bounds.check("MAX_RANGE_HASHES", |n| CellOpening { rows_hashes: hashes(n), ..opening.clone() });
    bounds.check("MAX_RANGE_HASHES", |n| CellOpening { last_hashes: hashes(n), ..opening.clone() });
    bounds.check("MAX_CELL_ROWS_BYTES", |n| CellOpening {
        rows: vec![1; n as usize],
        ..opening.clone()
    });
    bounds.check("MAX_CELL_ROWS_BYTES", |n| CellOpening {
        state: vec![1; n as usize],
        ..opening.clone()
    });
    bounds.check("MAX_KV_PAGES", |n| CellOpening { kv_pages: hashes(n), ..opening.clone() });
    bounds.check("MAX_KV_PAGES", |n| CellOpening {
        pages: vec![vec![1]; n as usize],
        ..opening.clone()
    });
    bounds.check("MAX_KV_PAGE_BYTES", |n| CellOpening {
        pages: vec![vec![1; n as usize]],
        ..opening.clone()
    });
    bounds.check("MAX_KV_PAGE_BYTES", |n| CellOpening {
        last: vec![1; n as usize],
        ..opening.clone()
    });
    bounds.check("MAX_CELL_PRODUCTS_BYTES", |n| CellOpening {
        products: vec![1; n as usize],
        ..opening.clone()
    });
    bounds.check("MAX_CELL_BYTES", |n| CellsPart { left: n, bytes: vec![1] });
    bounds.check("MAX_CELLS_PART_BYTES", |n| CellsPart { left: 0, bytes: vec![1; n as usize] });
    bounds.check("MAX_FILE_BYTES", |n| WeightRange {
        start: n,
        ..samples::fraud_proof().weights[0].clone()
    });
    bounds.check("MAX_RANGE_BYTES", |n| WeightRange {
        length: n,
        ..samples::fraud_proof().weights[0].clone()
    });
    bounds.check("MAX_WEIGHT_RANGES", |n| FraudProof {
        weights: vec![samples::fraud_proof().weights[0].clone(); n as usize],
        ..samples::fraud_proof()
    });
}

fn check_disputes(bounds: &mut Bounds) {
    let (trace, chunk) = (samples::trace(), samples::row_chunk());
    let hashes = |n: u64| vec![samples::digest(1); n as usize];
    let (layout, tensor, row) = (trace.layout.clone(), trace.layout.tensors[0], trace.rows[0]);
    bounds.check("MAX_TRACED_TENSORS", |n| TraceLayout {
        tensors: vec![tensor; n as usize],
        ..layout.clone()
    });
    bounds.check("MAX_TRACE_ROWS", |n| Trace { rows: vec![row; n as usize], ..trace.clone() });
    bounds.check("MAX_ANGLES_BYTES", |n| TraceLayout {
        angles: vec![1; n as usize],
        ..layout.clone()
    });
    bounds.check("MAX_TRACE_EXPONENT", |n| TraceRow { exponent: -(n as i32), ..row });
    bounds.check("MAX_TRACE_EXPONENT", |n| TracedTensor { exponent: n as i32, ..tensor });
    bounds.check("MAX_FILE_BYTES", |n| TracedTensor { start: n, ..tensor });
    bounds.check("MAX_FILE_BYTES", |n| TraceLayout { file_bytes: n, ..layout.clone() });
    bounds.check("MAX_ROW_CHUNKS_BYTES", |n| RowRequest { row: 0, chunks: vec![1; n as usize] });
    bounds
        .check("MAX_ROW_CHUNK_BYTES", |n| RowChunk { bytes: vec![1; n as usize], ..chunk.clone() });
    bounds.check("MAX_RANGE_HASHES", |n| RowChunk { hashes: hashes(n), ..chunk.clone() });
    let stretch = Stretch { bytes: vec![1], hashes: Vec::new() };
    bounds.check("MAX_STRETCHES", |n| DisputeProof {
        stretches: vec![stretch.clone(); n as usize],
        ..samples::dispute_proof()
    });
    bounds
        .check("MAX_LAYERS", |n| DisputeProof { kv_layers: hashes(n), ..samples::dispute_proof() });
}

/// A range may be short and still touch more groups than a reply holds; its end may be
/// where no number reaches.
#[test]
fn ranges_are_measured_with_their_groups() {
    let range = |start, length| RangeRequest { start, length, ..samples::range_request() };
    let most = limits::MAX_RANGE_BYTES as u64;
    assert!(range(0, most).encode().is_ok());
    assert!(range(1, most - 1).encode().is_ok());
    for bad in [range(1, most), range(16_383, most - 16_384 + 2), range(u64::MAX, 1), range(5, 0)] {
        assert!(bad.encode().is_err(), "{bad:?}");
        assert!(RangeRequest::decode(&encode_unchecked(&bad)).is_err(), "{bad:?}");
    }
    assert!(range(u64::MAX - 3, u64::MAX).encode().is_err());
}

#[test]
fn every_limit_binds_both_sides() {
    let mut bounds = Bounds(BTreeSet::new());
    check_offer(&mut bounds);
    check_job(&mut bounds);
    check_rest(&mut bounds);
    check_ranges(&mut bounds);
    check_cells(&mut bounds);
    check_disputes(&mut bounds);
    check_logs(&mut bounds);
    bounds.check_size::<RouterFrame>("MAX_FRAME_BYTES");
    bounds.check_size::<ProviderFrame>("MAX_FRAME_BYTES");
    bounds.check_size::<Offer>("MAX_OFFER_BYTES");
    bounds.check_size::<Receipt>("MAX_RECEIPT_BYTES");
    bounds.check_size::<Verdict>("MAX_VERDICT_BYTES");
    bounds.check_size::<Announcement>("MAX_ANNOUNCEMENT_BYTES");
    bounds.check_size::<Evidence>("MAX_EVIDENCE_BYTES");
    bounds.check_size::<FraudProof>("MAX_FRAUD_PROOF_BYTES");
    bounds.check_size::<Trace>("MAX_TRACE_BYTES");
    bounds.check_size::<DisputeProof>("MAX_DISPUTE_PROOF_BYTES");
    let all = limits::ALL.iter().map(|(name, _)| *name).collect();
    assert_eq!(bounds.0, all, "a limit without a test");
}

/// The limits of the parts fit the limit of the whole: no message that keeps
/// each of them is too large to send.
#[test]
fn the_largest_messages_fit_their_frames() {
    let longest_chat = {
        let one = limits::MAX_PROMPT_BYTES / limits::MAX_CHAT_MESSAGES;
        let role = text(limits::MAX_ROLE_BYTES as u64);
        let content = text((one - limits::MAX_ROLE_BYTES) as u64);
        vec![ChatMessage::new(role, content); limits::MAX_CHAT_MESSAGES]
    };
    let token_ids = vec![limits::MAX_TOKEN_ID; limits::MAX_PROMPT_TOKENS as usize];
    let answer = vec![limits::MAX_TOKEN_ID; limits::MAX_ANSWER_TOKENS as usize];
    for prompt in [Prompt::Chat(longest_chat), Prompt::Tokens(token_ids)] {
        let offer = offer_with(|it| {
            it.prompt = prompt.clone();
            it.max_tokens = limits::MAX_ANSWER_TOKENS;
            it.stop = vec![text(limits::MAX_STOP_STRING_BYTES as u64); limits::MAX_STOP_STRINGS];
            it.sampling.bias = (0..limits::MAX_LOGIT_BIASES as u32)
                .map(|at| LogitBias {
                    token: limits::MAX_TOKEN_ID - 300 + at,
                    bias_q16: -6_553_600,
                })
                .collect();
            let schema = text(limits::MAX_CONSTRAINT_BYTES as u64);
            let rules = text(limits::MAX_CONSTRAINT_RULES_BYTES as u64);
            let form = Form::JsonSchema(schema);
            it.sampling.constraint = Some(Constraint { rules, form });
        });
        let offer = Signed::sign(&samples::router_key(), offer).unwrap();
        let open = RouterFrame::Open { offer: offer.clone(), resume: answer.clone() };
        open.encode().unwrap();
        let case = Case { offer, tokens: answer.clone(), ..samples::case() };
        check_largest_evidence(case);
    }
    let opening =
        Opening { path: vec![samples::digest(1); limits::MAX_PATH_HASHES], ..samples::opening() };
    let openings = Openings {
        openings: vec![opening; limits::MAX_OPENINGS],
        leaf_hashes: vec![samples::digest(1); limits::MAX_LEAF_HASHES],
    };
    ProviderFrame::Openings(openings).encode().unwrap();
    let logprobs = logprobs(limits::MAX_TOP_LOGPROBS, limits::MAX_SPELLING_BYTES);
    let tokens = Tokens {
        start: 1,
        tokens: vec![limits::MAX_TOKEN_ID; limits::MAX_TOKENS_PER_FRAME],
        text: text(limits::MAX_TEXT_PER_FRAME_BYTES as u64),
        logprobs: vec![logprobs; limits::MAX_LOGPROBS_PER_FRAME],
        ..samples::tokens()
    };
    ProviderFrame::Tokens(tokens).encode().unwrap();
    let slice = RangeSlice {
        file_bytes: limits::MAX_FILE_BYTES,
        bytes: vec![0xff; limits::MAX_RANGE_BYTES],
        hashes: vec![samples::digest(1); limits::MAX_RANGE_HASHES],
    };
    RangeReply::Slice(slice).encode().unwrap();
}

/// The likeliest `top` tokens, with spellings of so many bytes.
fn logprobs(top: usize, spelling_bytes: usize) -> TokenLogprobs {
    TokenLogprobs {
        chosen_q16: u32::MAX,
        top: vec![(limits::MAX_TOKEN_ID, u32::MAX); top],
        spellings: vec![vec![0xff; spelling_bytes]; top + 1],
    }
}

fn check_largest_evidence(case: Case) {
    let verdict = samples::signed_verdict(Outcome::Fail(samples::mismatch()));
    let evidence = Evidence::WrongAnswer(WrongAnswer {
        case,
        verdicts: vec![verdict; limits::MAX_VERDICTS],
        ..samples::wrong_answer()
    });
    let entry = LogEntry { unix_ms: u64::MAX, body: LogBody::Evidence(evidence) };
    entry.encode().unwrap();
}

/// What must be there, and what must not be zero. On the way in, some of these
/// are met first as a default written out; the place is the same.
#[test]
fn values_below_their_least_are_refused() {
    fn check<T: Codec + std::fmt::Debug>(value: &T, expected: &str) {
        let WireError::Unsendable(ours) = value.encode().unwrap_err() else {
            panic!("{expected}: the sender isn't blamed");
        };
        assert_eq!(ours.to_string(), expected);
        let theirs = T::decode(&encode_unchecked(value)).unwrap_err();
        let (place, _) = expected.split_once(':').unwrap();
        let theirs = theirs.to_string();
        assert!(theirs.starts_with(place.trim_end_matches("[]")), "{theirs}");
    }
    let empty = "expected at least one, got an empty value";
    let offer = |prompt: Prompt| offer_with(|it| it.prompt = prompt.clone());
    check(&offer(Prompt::Text(String::new())), &format!("offer.text: {empty}"));
    check(&offer(Prompt::Chat(vec![])), &format!("offer.chat: {empty}"));
    check(&offer(Prompt::Tokens(vec![])), &format!("offer.tokens: {empty}"));
    check(
        &offer(Prompt::Chat(vec![ChatMessage::new("", "hello")])),
        &format!("offer.chat.role: {empty}"),
    );
    check(&offer_with(|it| it.stop = vec![String::new()]), &format!("offer.stop[]: {empty}"));
    let least = "expected at least 1, got 0";
    check(&offer_with(|it| it.max_tokens = 0), &format!("offer.max_tokens: {least}"));
    check(&offer_with(|it| it.deadline_ms = 0), &format!("offer.deadline_ms: {least}"));
    check(
        &offer_with(|it| it.sampling.top_p_q16 = 0),
        &format!("offer.sampling.top_p_q16: {least}"),
    );
    check(&Tokens::default(), &format!("tokens: {empty}"));
    check(&Openings::default(), &format!("openings: {empty}"));
    let unnumbered = Receipt { number: 0, previous: None, ..samples::receipt() };
    check(&unnumbered, &format!("receipt.number: {least}"));
    let unchained = Receipt { previous: None, ..samples::receipt() };
    let chain = "receipt.previous: expected none with number 1 and one with any other, got 7";
    check(&unchained, chain);
    let escape = Failure { message: "\u{1b}[2J".into(), ..samples::failure() };
    check(&escape, "failure.message: expected printable text, got control character '\\u{1b}'");
}

/// What chooses tokens has no place where none are chosen.
#[test]
fn an_embedding_is_asked_for_without_sampling() {
    let embedding = |change: fn(&mut Offer)| {
        offer_with(|it| {
            it.sampling = Sampling::GREEDY;
            it.stop = vec![];
            it.pooling = Some(Pooling::Mean);
            change(it);
        })
    };
    assert!(embedding(|_| {}).encode().is_ok());
    let changes: [fn(&mut Offer); 4] = [
        |it| it.stop = vec!["x".into()],
        |it| it.sampling.temperature_q16 = 1,
        |it| it.sampling.logprobs = Some(0),
        |it| it.sampling.bias = vec![LogitBias { token: 0, bias_q16: 1 }],
    ];
    for change in changes {
        let offer = embedding(change);
        let place = "offer.pooling: expected greedy sampling";
        let ours = offer.encode().unwrap_err().to_string();
        assert!(ours.contains(place), "{ours}");
        let theirs = Offer::decode(&encode_unchecked(&offer)).unwrap_err().to_string();
        assert!(theirs.contains(place), "{theirs}");
    }
}

#[test]
fn a_statistical_offer_is_one_that_can_be_tested() {
    assert!(samples::statistical_offer().encode().is_ok());
    type Change = (&'static str, fn(&mut Offer));
    let changes: [Change; 7] = [
        ("quorum", |it| it.level = Level::KOfN),
        ("audit of cells", |it| it.level = Level::Spot),
        ("20 likeliest", |it| it.sampling.logprobs = None),
        ("20 likeliest", |it| it.sampling.logprobs = Some(19)),
        ("no penalties", |it| it.sampling.repetition_q16 = 1),
        ("no penalties", |it| it.sampling.bias = vec![LogitBias { token: 0, bias_q16: 1 }]),
        ("no penalties", |it| it.sampling.constraint = Some(constraint(Form::JsonObject))),
    ];
    for (said, change) in changes {
        let mut offer = samples::statistical_offer();
        change(&mut offer);
        let ours = offer.encode().unwrap_err().to_string();
        assert!(ours.contains("offer.class") && ours.contains(said), "{ours}");
        let theirs = Offer::decode(&encode_unchecked(&offer)).unwrap_err().to_string();
        assert!(theirs.contains("offer.class") && theirs.contains(said), "{theirs}");
    }
}

/// Biases in another order, or two of one token, would be other bytes for the same rule.
#[test]
fn biases_stand_in_order() {
    for (tokens, got) in [([5, 5], 5), ([5, 4], 4)] {
        let bias = tokens.map(|token| LogitBias { token, bias_q16: 1 }).to_vec();
        let offer = offer_with(|it| it.sampling.bias = bias.clone());
        let expected = WireError::TooSmall { place: "offer.sampling.bias.token", least: 6, got };
        assert_eq!(Offer::decode(&encode_unchecked(&offer)), Err(expected));
    }
    let zero = vec![LogitBias { token: 5, bias_q16: 0 }];
    assert!(offer_with(|it| it.sampling.bias = zero.clone()).encode().is_err());
}

/// More logprobs than tokens, or values without tokens.
#[test]
fn logprobs_belong_to_tokens() {
    let logprobs = vec![samples::token_logprobs(); 2];
    let frame = Tokens { tokens: vec![1], logprobs, ..Tokens::default() };
    assert!(matches!(
        Tokens::decode(&encode_unchecked(&frame)),
        Err(WireError::OverLimit { place: "tokens.logprobs", limit: 1, got: 2 })
    ));
    let mut proto = samples::tokens().to_proto();
    let odd = proto::TokenLogprobs {
        chosen_q16: 1,
        tokens: vec![1],
        values_q16: vec![],
        spellings: vec![vec![]; 2],
    };
    let unspelt = proto::TokenLogprobs { values_q16: vec![1], spellings: vec![], ..odd.clone() };
    proto.logprobs = vec![odd];
    assert!(matches!(
        Tokens::decode(&proto.encode_to_vec()),
        Err(WireError::Length { place: "tokens.logprobs.values_q16", expected: 1, got: 0 })
    ));
    proto.logprobs = vec![unspelt];
    assert!(matches!(
        Tokens::decode(&proto.encode_to_vec()),
        Err(WireError::Length { place: "tokens.logprobs.spellings", expected: 2, got: 0 })
    ));
}

/// A resume longer than the answer may become.
#[test]
fn a_resume_fits_its_offer() {
    let open = RouterFrame::Open { offer: samples::signed_offer(), resume: vec![1; 257] };
    let expected = WireError::OverLimit { place: "open.resume", limit: 256, got: 257 };
    assert_eq!(RouterFrame::decode(&encode_unchecked(&open)), Err(expected));
}

#[test]
fn other_versions_are_refused() {
    let mut proto = samples::offer().to_proto();
    proto.protocol = 2;
    let error = Offer::decode(&proto.encode_to_vec()).unwrap_err();
    assert_eq!(error.to_string(), "offer.protocol: expected version 1, got 2");
    let mut proto = samples::receipt().to_proto();
    proto.arithmetic = 2;
    let error = Receipt::decode(&proto.encode_to_vec()).unwrap_err();
    assert_eq!(error.to_string(), "receipt.arithmetic: expected version 1, got 2");
}

#[test]
fn a_fraud_proof_shows_no_products() {
    let mut proof = samples::fraud_proof();
    proof.opening.products = vec![0; 8];
    let bytes = encode_unchecked(&proof);
    let WireError::Unsendable(unsendable) = proof.encode().expect_err("products") else {
        panic!("it was encoded");
    };
    for error in [*unsendable, FraudProof::decode(&bytes).expect_err("products")] {
        assert!(
            matches!(error, WireError::Inconsistent { place: "fraud_proof.opening", .. }),
            "{error}"
        );
    }
}
