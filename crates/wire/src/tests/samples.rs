//! One value or more of every message, all fields set, always the same.

use std::sync::LazyLock;

use peerproof_identity::Keypair;

use crate::codec::Codec;
use crate::job::client_nonce_hash;
use crate::shape::Shape;
use crate::*;

/// One message in the forms that the tests need.
pub(super) struct Sample {
    /// Name of its file among the vectors.
    pub(super) name: &'static str,
    /// Its encoding.
    pub(super) bytes: Vec<u8>,
    /// Its value, for comparison.
    pub(super) debug: String,
    /// Fields of the message.
    pub(super) shape: &'static Shape,
    /// Decodes: value for comparison, and encoding.
    pub(super) decode: fn(&[u8]) -> Decoded,
}

type Decoded = Result<(String, Vec<u8>), WireError>;

fn sample<T: Codec + std::fmt::Debug>(name: &'static str, value: &T) -> Sample {
    Sample {
        name,
        bytes: value.encode().unwrap(),
        debug: format!("{value:?}"),
        shape: T::SHAPE,
        decode: |bytes| {
            let value = T::decode(bytes)?;
            Ok((format!("{value:?}"), value.encode()?))
        },
    }
}

pub(super) fn router_key() -> Keypair {
    Keypair::from_seed(&[1; 32])
}

pub(super) fn provider_key() -> Keypair {
    Keypair::from_seed(&[2; 32])
}

pub(super) fn auditor_key() -> Keypair {
    Keypair::from_seed(&[3; 32])
}

pub(super) fn digest(byte: u8) -> Digest {
    Digest::from_bytes([byte; 32])
}

pub(super) fn model_id() -> ModelId {
    ModelId::from_bytes([0x40; 32])
}

pub(super) fn offer() -> Offer {
    Offer {
        model_id: model_id(),
        prompt: Prompt::Chat(vec![
            ChatMessage::new("system", "Answer in one word."),
            ChatMessage::new("user", "Capital of France?\nÉcris-le."),
        ]),
        sampling: Sampling {
            temperature_q16: 52_429,
            top_k: 40,
            top_p_q16: 62_259,
            ..Sampling::GREEDY
        },
        max_tokens: 256,
        stop: vec!["\n\n".into(), "###".into()],
        level: Level::Sampled,
        public_nonce: [0x51; 32],
        client_nonce_hash: client_nonce_hash(&[0x52; 32]),
        deadline_ms: 60_000,
        pooling: None,
        class: Class::Exact,
    }
}

/// For an engine of another kind.
pub(super) fn statistical_offer() -> Offer {
    let sampling = Sampling { logprobs: Some(20), ..offer().sampling };
    Offer { class: Class::Statistical, sampling, ..offer() }
}

pub(super) fn statistical_case() -> StatisticalCase {
    StatisticalCase { case: case(), reports: vec![token_logprobs(); 3] }
}

pub(super) fn tested() -> Tested {
    let growth = (0..20).map(|n| (1 << 30) + n).collect();
    Tested { tokens: 3, difference_q16: 5_800, standing_q16: 32_768, growth }
}

/// Every rule of sampling at once.
pub(super) fn sampling() -> Sampling {
    Sampling {
        min_p_q16: 3_277,
        repetition_q16: 72_090,
        presence_q16: -32_768,
        frequency_q16: 16_384,
        bias: vec![
            LogitBias { token: 0, bias_q16: -6_553_600 },
            LogitBias { token: 504, bias_q16: 98_304 },
        ],
        constraint: Some(constraint(Form::JsonSchema(r#"{"type":"object"}"#.into()))),
        logprobs: Some(5),
        ..offer().sampling
    }
}

pub(super) fn constraint(form: Form) -> Constraint {
    Constraint { rules: "rules-1.0/1".into(), form }
}

pub(super) fn token_logprobs() -> TokenLogprobs {
    TokenLogprobs {
        chosen_q16: 45_426,
        top: vec![(504, 45_426), (9, 45_427)],
        spellings: vec![b" the".to_vec(), b" the".to_vec(), vec![0xf0, 0x9f]],
    }
}

pub(super) fn receipt() -> Receipt {
    Receipt {
        offer_id: signed_offer().id(),
        model_id: model_id(),
        number: 7,
        previous: Some(digest(0x60)),
        prompt_tokens: 31,
        output_tokens: 3,
        stop: Stop::EndOfText,
        output_hash: digest(0x61),
        text_hash: digest(0x62),
        transcript_root: digest(0x63),
        kv_root: digest(0x6a),
        class: Class::Exact,
        leaves: 34,
        issued_unix_ms: 1_790_000_000_123,
    }
}

pub(super) fn mismatch() -> Mismatch {
    Mismatch {
        position: 32,
        what: Difference::Logits,
        expected: vec![0x71; 32],
        got: vec![0x72; 32],
    }
}

pub(super) fn verdict(outcome: Outcome) -> Verdict {
    let vrf = auditor_key().vrf();
    Verdict {
        receipt_id: signed_receipt().id(),
        offer_id: signed_offer().id(),
        model_id: model_id(),
        provider: provider_key().public(),
        draw: Some(VrfDraw {
            key: vrf.public(),
            proof: vrf.prove(receipt().transcript_root.as_bytes()).unwrap().1,
        }),
        outcome,
        work: digest(0x73),
        issued_unix_ms: 1_790_000_001_000,
    }
}

pub(super) fn announcement() -> Announcement {
    Announcement {
        serves: vec![model_offer()],
        audits: vec![model_offer()],
        active_jobs: 1,
        queued_jobs: 2,
        max_jobs: 4,
        vrf_key: provider_key().vrf().public(),
        issued_unix_ms: 1_790_000_002_000,
        nonce: [0x81; 32],
        software: "peerproof/0.1.0".into(),
    }
}

fn model_offer() -> ModelOffer {
    ModelOffer {
        model_id: model_id(),
        name: "smollm2-135m".into(),
        architecture: "llama".into(),
        quantisation: "Q4_1".into(),
        context_length: 8192,
        file_bytes: 98_000_000,
        class: Class::Exact,
        declared_tps: 0,
        price: Some(price()),
    }
}

pub(super) fn price() -> Price {
    Price {
        token_us: 11_000,
        replay_us: 2_100,
        opening_us: 2_300,
        cell_bytes: 90_000,
        per_million: 20,
        unit: "beans".into(),
    }
}

fn statistical_model_offer() -> ModelOffer {
    ModelOffer { class: Class::Statistical, declared_tps: 120, ..model_offer() }
}

pub(super) fn signed_offer() -> Signed<Offer> {
    Signed::sign(&router_key(), offer()).unwrap()
}

pub(super) fn signed_receipt() -> Signed<Receipt> {
    Signed::sign(&provider_key(), receipt()).unwrap()
}

pub(super) fn signed_verdict(outcome: Outcome) -> Signed<Verdict> {
    Signed::sign(&auditor_key(), verdict(outcome)).unwrap()
}

pub(super) fn signed_announcement() -> Signed<Announcement> {
    Signed::sign(&provider_key(), announcement()).unwrap()
}

pub(super) fn tokens() -> Tokens {
    Tokens {
        start: 32,
        tokens: vec![504, 1, 300, 70_000],
        text: "Paris é".into(),
        commitment: Some(Commitment { leaves: 66, root: digest(0x64) }),
        logprobs: vec![],
    }
}

pub(super) fn opening() -> Opening {
    Opening {
        leaf: Leaf {
            position: 32,
            token: 504,
            state: digest(0x65),
            layers: digest(0x6b),
            drawn: Some(Drawn { logits: digest(0x66), draw: u64::MAX, next: 70_000 }),
        },
        path: vec![digest(0x67), digest(0x68)],
    }
}

fn openings() -> Openings {
    Openings {
        openings: vec![opening(), opening()],
        leaf_hashes: vec![digest(0x69), digest(0x6a), digest(0x6b)],
    }
}

pub(super) fn challenge() -> Challenge {
    Challenge {
        receipt_id: signed_receipt().id(),
        client_nonce: [0x52; 32],
        positions: vec![3, 200],
        leaf_hashes: true,
    }
}

pub(super) fn delivered() -> Delivered {
    Delivered {
        receipt: signed_receipt(),
        log: LogProof {
            index: 6,
            checkpoint: "peer.example/log\n7\nAAAA\n\n— peer.example/log AAAA\n".into(),
            path: vec![digest(0x6c)],
        },
    }
}

fn capacity() -> Failure {
    let message = "the job needs 22 MiB of cache, all jobs together have 16 MiB";
    Failure::new(FailureCode::Capacity, message)
}

pub(super) fn failure() -> Failure {
    Failure { retry_after_ms: 1500, ..Failure::new(FailureCode::Busy, "8 jobs wait already") }
}

pub(super) fn case() -> Case {
    Case { offer: signed_offer(), receipt: signed_receipt(), tokens: vec![504, 1, 2] }
}

pub(super) fn wrong_answer() -> WrongAnswer {
    WrongAnswer {
        case: case(),
        mismatch: mismatch(),
        opening: Some(opening()),
        verdicts: vec![signed_verdict(Outcome::Fail(mismatch()))],
    }
}

fn equivocation() -> Equivocation {
    let other = Receipt { output_hash: digest(0x6d), ..receipt() };
    Equivocation { first: signed_receipt(), second: Signed::sign(&provider_key(), other).unwrap() }
}

pub(super) fn observation() -> Observation {
    let reason = "root of the receipt differs from the running commitment";
    Observation::new(provider_key().public(), reason, Some(case()))
}

pub(super) fn accepted_answer() -> AcceptedAnswer {
    AcceptedAnswer {
        receipt_id: signed_receipt().id(),
        provider: provider_key().public(),
        model_id: model_id(),
        output_tokens: 3,
        first_token_ms: 140,
        total_ms: 310,
        audited: true,
        group: NetworkGroup::V4([203, 0]),
        auditor: Some(AuditedBy {
            auditor: auditor_key().public(),
            group: NetworkGroup::V6([0x20, 0x01, 0x0d, 0xb8]),
            drawn: true,
        }),
    }
}

fn draw_request() -> DrawRequest {
    DrawRequest { transcript_root: digest(0x6e), offer_id: digest(0x6f) }
}

fn false_verdict() -> FalseVerdict {
    FalseVerdict { case: case(), verdict: signed_verdict(Outcome::Pass) }
}

pub(super) fn decision() -> Decision {
    Decision::new(provider_key().public(), true, "slow, and rude")
}

fn refutation() -> Refutation {
    Refutation {
        accused: provider_key().public(),
        receipt_id: digest(0x70),
        accuser: Some(auditor_key().public()),
    }
}

fn auditor_check() -> AuditorCheck {
    AuditorCheck {
        auditor: auditor_key().public(),
        receipt_id: digest(0x71),
        finding: AuditorFinding::Disagreed,
    }
}

fn log_entry(body: LogBody) -> LogEntry {
    LogEntry { unix_ms: 1_790_000_003_000, body }
}

pub(super) fn accepted() -> Accepted {
    Accepted { offer_id: signed_offer().id(), prompt_tokens: 31, queue_position: 2 }
}

/// Every message, every alternative of a choice.
pub(super) fn all() -> &'static [Sample] {
    static ALL: LazyLock<Vec<Sample>> = LazyLock::new(|| {
        let parts =
            [statements(), job(), audit_and_info(), ranges(), cells(), disputes(), logs(), kept()];
        parts.into_iter().flatten().collect()
    });
    &ALL
}

fn statements() -> Vec<Sample> {
    let text = Offer {
        prompt: Prompt::Text("Once upon a time".into()),
        sampling: Sampling::GREEDY,
        stop: vec![],
        level: Level::KOfN,
        ..offer()
    };
    let token_ids = Offer {
        prompt: Prompt::Tokens(vec![0, 1, 127, 128, limits::MAX_TOKEN_ID]),
        level: Level::Full,
        ..offer()
    };
    let ruled = Offer { sampling: sampling(), ..offer() };
    let json = Sampling { constraint: Some(constraint(Form::JsonObject)), ..sampling() };
    let json = Offer { sampling: Sampling { logprobs: Some(0), ..json }, ..offer() };
    let first = Receipt { number: 1, previous: None, stop: Stop::StopString, ..receipt() };
    let unasked = Verdict { draw: None, ..verdict(Outcome::Pass) };
    vec![
        sample("offer", &offer()),
        sample("offer-text", &text),
        sample("offer-tokens", &token_ids),
        sample("offer-rules", &ruled),
        sample("offer-json", &json),
        sample("offer-statistical", &statistical_offer()),
        sample("receipt", &receipt()),
        sample("receipt-first", &first),
        sample("verdict-pass", &unasked),
        sample("verdict-fail", &verdict(Outcome::Fail(mismatch()))),
        sample("announcement", &announcement()),
        sample("envelope-offer", &signed_offer().envelope()),
        sample("envelope-receipt", &signed_receipt().envelope()),
        sample("envelope-verdict", &signed_verdict(Outcome::Fail(mismatch())).envelope()),
        sample("envelope-announcement", &signed_announcement().envelope()),
    ]
}

fn job() -> Vec<Sample> {
    let resumed = RouterFrame::Open { offer: signed_offer(), resume: vec![504, 1] };
    let alone = TokenLogprobs { spellings: vec![vec![]], ..TokenLogprobs::default() };
    let logprobs = vec![token_logprobs(), alone];
    let likely = Tokens { tokens: vec![504, 1], logprobs, ..Tokens::default() };
    let quiet = Tokens { tokens: vec![9], ..Tokens::default() };
    vec![
        sample("router-open", &resumed),
        sample("router-cancel", &RouterFrame::Cancel),
        sample("router-challenge", &RouterFrame::Challenge(challenge())),
        sample("provider-accepted", &ProviderFrame::Accepted(accepted())),
        sample("provider-tokens", &ProviderFrame::Tokens(tokens())),
        sample("provider-tokens-plain", &ProviderFrame::Tokens(quiet)),
        sample("provider-tokens-logprobs", &ProviderFrame::Tokens(likely)),
        sample("provider-delivered", &ProviderFrame::Delivered(delivered())),
        sample("provider-openings", &ProviderFrame::Openings(openings())),
        sample("provider-failure", &ProviderFrame::Failure(failure())),
        sample("provider-progress", &ProviderFrame::Progress(Progress { read: 512 })),
        sample("progress", &Progress { read: 31 }),
        sample("challenge", &challenge()),
        sample("accepted", &accepted()),
        sample("tokens", &tokens()),
        sample("delivered", &delivered()),
        sample("log-proof", &delivered().log),
        sample("openings", &openings()),
        sample("opening", &opening()),
        sample("leaf", &opening().leaf),
        sample("failure", &failure()),
        sample("failure-capacity", &capacity()),
    ]
}

fn audit_and_info() -> Vec<Sample> {
    let passed = AuditReply::Verdict(signed_verdict(Outcome::Pass));
    let failure = AuditFailure { retry_after_ms: 9, ..AuditFailure::new("the model isn't here") };
    let reply = InfoReply { announcement: signed_announcement() };
    let drawn = verdict(Outcome::Pass).draw.unwrap();
    vec![
        sample("audit-request", &AuditRequest::Case(Box::new(case()))),
        sample("audit-request-draw", &AuditRequest::Draw(draw_request())),
        sample("audit-request-tested", &AuditRequest::Tested(Box::new(statistical_case()))),
        sample("statistical-case", &statistical_case()),
        sample("tested", &tested()),
        sample("verdict-tested", &verdict(Outcome::Tested(tested()))),
        sample("draw-request", &draw_request()),
        sample("audit-reply-draw", &AuditReply::Draw(drawn)),
        sample("audit-reply-verdict", &passed),
        sample("audit-reply-failure", &AuditReply::Failure(failure.clone())),
        sample("audit-failure", &failure),
        sample("case", &case()),
        sample("mismatch", &mismatch()),
        sample("info-request", &InfoRequest { nonce: [0x81; 32] }),
        sample("info-reply", &reply),
        sample("model-offer", &model_offer()),
        sample("price", &price()),
        sample("model-offer-statistical", &statistical_model_offer()),
    ]
}

pub(super) fn fork() -> Fork {
    let note = |size: u64| format!("peer.example/log\n{size}\nAAAA\n\n— peer.example/log AAAA\n");
    let path = vec![digest(0x94), digest(0x95)];
    Fork { key: provider_key().public(), first: note(7), second: note(12), path }
}

pub(super) fn fraud_claim() -> FraudClaim {
    let accused = provider_key().public();
    FraudClaim { accused, job: digest(0x96), file: digest(0x97), bytes: 7_000_000 }
}

pub(super) fn log_refusal() -> LogRefusal {
    LogRefusal { last: fork().first, ..LogRefusal::new(409, "old size: expected 7") }
}

fn logs() -> Vec<Sample> {
    let proof = HeldProof { index: 9, evidence: Evidence::Fork(fork()) };
    let held = |index| LogRequest::Held(HeldFrom { index });
    let found = LogReply::Found(fork().second.into_bytes());
    vec![
        sample("log-request-piece", &LogRequest::Piece("tile/0/x001/067".into())),
        sample("log-request-cosigned", &LogRequest::Cosigned(provider_key().public())),
        sample("log-request-add", &LogRequest::AddCheckpoint(b"old 7\n\n...".to_vec())),
        sample("log-request-held", &held(10)),
        sample("log-request-held-first", &held(0)),
        sample("log-reply-found", &found),
        sample("log-reply-refused", &LogReply::Refused(log_refusal())),
        sample("log-reply-held", &LogReply::Held(Box::new(proof.clone()))),
        sample("log-refusal", &log_refusal()),
        sample("held-proof", &proof),
        sample("fork", &fork()),
        sample("evidence-fork", &proof.evidence),
        sample("fraud-claim", &fraud_claim()),
        sample("evidence-fraud", &Evidence::Fraud(fraud_claim())),
    ]
}

pub(super) fn range_request() -> RangeRequest {
    RangeRequest { model_id: model_id(), start: 70_000, length: 40_000 }
}

pub(super) fn range_slice() -> RangeSlice {
    let hashes = (0x90..0x93).map(digest).collect();
    RangeSlice { file_bytes: 98_362_432, bytes: vec![7; 20], hashes }
}

pub(super) fn range_failure() -> RangeFailure {
    let failure = RangeFailure::new(RangeRefusal::Busy, "four others are being sent");
    RangeFailure { retry_after_ms: 500, ..failure }
}

fn ranges() -> Vec<Sample> {
    let first = RangeRequest { start: 0, length: 1, ..range_request() };
    vec![
        sample("range-request", &range_request()),
        sample("range-request-first", &first),
        sample("range-slice", &range_slice()),
        sample("range-failure", &range_failure()),
        sample("range-reply-slice", &RangeReply::Slice(range_slice())),
        sample("range-reply-failure", &RangeReply::Failure(range_failure())),
    ]
}

pub(super) fn cells_request() -> CellsRequest {
    let cells = vec![Cell { position: 3, layer: 29 }, Cell { position: 300, layer: 0 }];
    CellsRequest { case: case(), client_nonce: [0x91; 32], cells, products: false }
}

pub(super) fn cell_opening() -> CellOpening {
    let digests = |from: u8, count: u8| (from..from + count).map(digest).collect();
    CellOpening {
        cell: Cell { position: 70, layer: 2 },
        leaf: opening().leaf,
        path: digests(0x10, 3),
        rows: vec![1; 9],
        rows_hashes: digests(0x20, 2),
        state: vec![2; 4],
        kv_layers: digests(0x30, 3),
        kv_pages: digests(0x40, 2),
        pages: vec![vec![3; 8]],
        last: vec![4; 6],
        last_hashes: digests(0x50, 1),
        products: vec![],
    }
}

pub(super) fn fraud_proof() -> FraudProof {
    let weights = vec![WeightRange { start: 70_000, length: 40_000, slice: range_slice() }];
    FraudProof { case: case(), opening: cell_opening(), weights }
}

fn cells() -> Vec<Sample> {
    let part = CellsPart { left: 1_000, bytes: vec![5; 7] };
    let proof = fraud_proof();
    vec![
        sample("cell", &Cell { position: 3, layer: 29 }),
        sample("cells-request", &cells_request()),
        sample("cells-request-products", &CellsRequest { products: true, ..cells_request() }),
        sample("cell-opening", &cell_opening()),
        sample("cell-opening-products", &CellOpening { products: vec![6; 16], ..cell_opening() }),
        sample("cells-part", &part),
        sample("cells-reply-part", &CellsReply::Part(part.clone())),
        sample("cells-reply-failure", &CellsReply::Failure(AuditFailure::new("too many at once"))),
        sample("weight-range", &proof.weights[0]),
        sample("fraud-proof", &proof),
    ]
}

pub(super) fn trace() -> Trace {
    let tensor = TracedTensor { name: 1, start: 70_000, format: 8, exponent: -3 };
    let layout = TraceLayout {
        file_bytes: 1 << 30,
        layers: 30,
        width: 576,
        heads: 9,
        kv_heads: 3,
        head_dims: 64,
        feed: 1536,
        vocabulary: 49_152,
        epsilon: 0x3727_c5ac,
        halves: true,
        gelu: true,
        score_scale: 3_025_551,
        score_cap: 73_865,
        logit_cap: 30_720,
        embedding_scale: 25_165_824,
        first: 7,
        angles: vec![6; 8],
        tensors: vec![tensor, TracedTensor { name: 2, ..tensor }],
    };
    let row = TraceRow { digest: digest(0x21), exponent: -12, index: 3 };
    Trace {
        receipt_id: digest(0x20),
        cell: Cell { position: 70, layer: 2 },
        part: Some(TracePart { head: 2, dim: 5 }),
        layout,
        rows: vec![row, TraceRow { digest: digest(0x22), ..row }],
    }
}

pub(super) fn signed_trace() -> Signed<Trace> {
    Signed::sign(&provider_key(), trace()).unwrap()
}

pub(super) fn row_request() -> RowRequest {
    RowRequest { row: 3, chunks: vec![7; 16] }
}

pub(super) fn row_chunk() -> RowChunk {
    RowChunk { chunk: 2, bytes: vec![1; 9], hashes: vec![digest(1), digest(2)] }
}

pub(super) fn dispute_proof() -> DisputeProof {
    let stretch = Stretch { bytes: vec![8; 5], hashes: vec![digest(0x51)] };
    DisputeProof {
        receipt: signed_receipt(),
        leaf: opening().leaf,
        path: vec![digest(0x10), digest(0x11)],
        trace: signed_trace(),
        part: Some(signed_trace()),
        operation: 12,
        index: 9,
        kv_layers: vec![digest(0x30)],
        kv_pages: vec![digest(0x40)],
        stretches: vec![stretch.clone(), stretch],
    }
}

fn disputes() -> Vec<Sample> {
    let case = case();
    let cell = Cell { position: 70, layer: 2 };
    let open = DisputeOpen { case, client_nonce: [0x91; 32], cell };
    let part = TracePart { head: 2, dim: 5 };
    let proof = dispute_proof();
    let whole = Trace { part: None, ..trace() };
    vec![
        sample("trace-whole", &whole),
        sample("trace", &trace()),
        sample("trace-layout", &trace().layout),
        sample("traced-tensor", &trace().layout.tensors[0]),
        sample("trace-row", &trace().rows[0]),
        sample("trace-part", &part),
        sample("dispute-open", &open),
        sample("row-request", &row_request()),
        sample("row-chunk", &row_chunk()),
        sample("dispute-request-open", &DisputeRequest::Open(open)),
        sample("dispute-request-row", &DisputeRequest::Row(row_request())),
        sample("dispute-request-part", &DisputeRequest::Part(part)),
        sample("dispute-reply-trace", &DisputeReply::Trace(signed_trace())),
        sample("dispute-reply-chunk", &DisputeReply::Chunk(row_chunk())),
        sample("dispute-reply-failure", &DisputeReply::Failure(AuditFailure::new("no such row"))),
        sample("stretch", &proof.stretches[0]),
        sample("dispute-proof", &proof),
    ]
}

fn kept() -> Vec<Sample> {
    let wrong = Evidence::WrongAnswer(wrong_answer());
    let both = Evidence::Equivocation(equivocation());
    let seen = Evidence::Observation(observation());
    let verdict = LogBody::Verdict(signed_verdict(Outcome::Pass));
    let accepted = LogBody::Accepted(accepted_answer());
    vec![
        sample("evidence-wrong-answer", &wrong),
        sample("evidence-equivocation", &both),
        sample("evidence-observation", &seen),
        sample("wrong-answer", &wrong_answer()),
        sample("equivocation", &equivocation()),
        sample("observation", &observation()),
        sample("log-receipt", &log_entry(LogBody::Receipt(signed_receipt()))),
        sample("log-verdict", &log_entry(verdict)),
        sample("log-evidence", &log_entry(LogBody::Evidence(wrong))),
        sample("log-accepted", &log_entry(accepted)),
        sample("accepted-answer", &accepted_answer()),
        sample("evidence-false-verdict", &Evidence::FalseVerdict(false_verdict())),
        sample("false-verdict", &false_verdict()),
        sample("note", &Note::Decision(decision())),
        sample("decision", &decision()),
        sample("refutation", &refutation()),
        sample("auditor-check", &auditor_check()),
        sample("log-decision", &log_entry(LogBody::Note(Note::Decision(decision())))),
        sample("log-refutation", &log_entry(LogBody::Note(Note::Refutation(refutation())))),
        sample("log-auditor-check", &log_entry(LogBody::Note(Note::AuditorCheck(auditor_check())))),
    ]
}
