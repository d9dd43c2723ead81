//! Scores from made-up logs.

use std::sync::LazyLock;

use peerproof_identity::{Keypair, PublicKey};
use peerproof_wire::{
    AcceptedAnswer, Case, Difference, Digest, Equivocation, Evidence, Level, LogBody, LogEntry,
    Mismatch, ModelId, NetworkGroup, Observation, Offer, Outcome, Prompt, Receipt, Sampling,
    Signed, Stop, Verdict, WrongAnswer,
};

use super::*;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

fn key(seed: u8) -> Keypair {
    Keypair::from_seed(&[seed; 32])
}

/// Deriving a key takes longer than counting a thousand entries.
fn public(seed: u8) -> PublicKey {
    static KEYS: LazyLock<Vec<PublicKey>> =
        LazyLock::new(|| (0..=255).map(|seed| key(seed).public()).collect());
    KEYS[usize::from(seed)]
}

fn peer(seed: u8) -> PeerId {
    public(seed).peer_id()
}

fn at(unix_ms: u64, body: LogBody) -> LogEntry {
    LogEntry { unix_ms, body }
}

fn accepted(seed: u8, audited: bool) -> LogBody {
    LogBody::Accepted(AcceptedAnswer {
        receipt_id: Digest::from_bytes([0; 32]),
        provider: public(seed),
        model_id: ModelId::from_bytes([0; 32]),
        output_tokens: 1,
        first_token_ms: 1,
        total_ms: 1,
        audited,
        group: NetworkGroup::Unknown,
        auditor: None,
    })
}

fn observed(seed: u8, reason: &str) -> LogBody {
    LogBody::Evidence(Evidence::Observation(Observation::new(public(seed), reason, None)))
}

fn receipt(seed: u8, leaves: u32) -> Signed<Receipt> {
    let zero = Digest::from_bytes([0; 32]);
    let receipt = Receipt {
        offer_id: zero,
        model_id: ModelId::from_bytes([0; 32]),
        number: 1,
        previous: None,
        prompt_tokens: leaves - 1,
        output_tokens: 1,
        stop: Stop::Length,
        output_hash: zero,
        text_hash: zero,
        kv_root: zero,
        class: peerproof_wire::Class::Exact,
        transcript_root: zero,
        leaves,
        issued_unix_ms: 0,
    };
    Signed::sign(&key(seed), receipt).expect("a receipt within its limits")
}

fn case(seed: u8) -> Case {
    let offer = Offer {
        model_id: ModelId::from_bytes([0; 32]),
        prompt: Prompt::Text("x".into()),
        sampling: Sampling::GREEDY,
        max_tokens: 1,
        stop: vec![],
        level: Level::Full,
        public_nonce: [0; 32],
        client_nonce_hash: Digest::from_bytes([0; 32]),
        deadline_ms: 1,
        pooling: None,
        class: peerproof_wire::Class::Exact,
    };
    let offer = Signed::sign(&key(100), offer).expect("an offer within its limits");
    Case { offer, receipt: receipt(seed, 2), tokens: vec![1] }
}

fn mismatch() -> Mismatch {
    Mismatch { position: 0, what: Difference::Token, expected: vec![], got: vec![] }
}

fn verdict(seed: u8, outcome: Outcome) -> LogBody {
    let zero = Digest::from_bytes([0; 32]);
    let verdict = Verdict {
        receipt_id: zero,
        offer_id: zero,
        model_id: ModelId::from_bytes([0; 32]),
        provider: public(seed),
        outcome,
        work: zero,
        draw: None,
        issued_unix_ms: 0,
    };
    LogBody::Verdict(Signed::sign(&key(100), verdict).expect("a verdict within its limits"))
}

fn score(entries: &[LogEntry], now: u64) -> u16 {
    Reputation::replay(entries).standing(&peer(1), now).score
}

#[test]
fn good_work_raises_and_audits_raise_more() {
    assert_eq!(score(&[], 0), 500);
    assert_eq!(score(&[at(0, accepted(1, false))], 0), 555);
    assert_eq!(score(&[at(0, accepted(1, true))], 0), 764);
    // A verdict for somebody else may be on an answer the provider ordered itself.
    assert_eq!(score(&[at(0, verdict(1, Outcome::Pass))], 0), 500);
    let many: Vec<LogEntry> = (0..100).map(|_| at(0, accepted(1, true))).collect();
    assert!(score(&many, 0) > 990);
}

#[test]
fn failures_lower_by_their_weight() {
    let lowered = |reason| score(&[at(0, observed(1, reason))], 0);
    assert_eq!(lowered("refused: x"), 444);
    assert_eq!(lowered("unreachable"), 400);
    assert_eq!(lowered("dropped: connection lost"), 333);
    assert_eq!(lowered("stalled"), 333);
    assert_eq!(lowered("garbage"), 166);
    assert_eq!(lowered("a reason from elsewhere"), 166, "unknown is as bad as garbage");
}

#[test]
fn records_fade_both_ways() {
    let good = [at(0, accepted(1, true))];
    let bad = [at(0, observed(1, "garbage"))];
    assert_eq!(
        (score(&good, 0), score(&good, 14 * DAY_MS), score(&good, 1_000 * DAY_MS)),
        (764, 680, 500)
    );
    assert_eq!(
        (score(&bad, 0), score(&bad, 14 * DAY_MS), score(&bad, 1_000 * DAY_MS)),
        (166, 250, 500)
    );
}

#[test]
fn what_is_dated_ahead_counts_as_of_today() {
    let ahead = [at(5 * DAY_MS, accepted(1, false))];
    assert_eq!(score(&ahead, 0), 555);
    assert_eq!(score(&ahead, 5 * DAY_MS), 555);
}

#[test]
fn whoever_is_barred_stays_barred() {
    let wrong =
        WrongAnswer { case: case(1), mismatch: mismatch(), opening: None, verdicts: vec![] };
    let equivocation = Equivocation { first: receipt(1, 2), second: receipt(1, 3) };
    let bars = [
        LogBody::Evidence(Evidence::WrongAnswer(wrong)),
        LogBody::Evidence(Evidence::Equivocation(equivocation)),
        verdict(1, Outcome::Fail(mismatch())),
        observed(1, "bindings: output hash"),
        observed(1, "log-proof: x"),
        observed(1, "openings: x"),
        observed(1, "false-prefix: x"),
    ];
    for bar in bars {
        let mut entries = vec![at(0, bar)];
        entries.extend((0..50).map(|_| at(0, accepted(1, true))));
        let standing = Reputation::replay(&entries).standing(&peer(1), 10_000 * DAY_MS);
        assert_eq!(standing.score, 0, "{:?}", entries[0]);
        assert!(standing.barred.is_some());
        let other = Reputation::replay(&entries).standing(&peer(2), 0);
        assert_eq!(other, Standing::stranger());
    }
}

#[test]
fn the_audit_rate_falls_with_the_record_to_a_floor() {
    let rate = |audits: usize| {
        let entries: Vec<LogEntry> = (0..audits).map(|_| at(0, accepted(1, true))).collect();
        Reputation::replay(&entries).standing(&peer(1), 0)
    };
    assert_eq!(rate(0).audit_permille, 500);
    assert!(rate(0).newcomer && rate(2).newcomer && !rate(3).newcomer);
    assert!(rate(1).audit_permille < 500 && rate(5).audit_permille < rate(1).audit_permille);
    assert_eq!(rate(1_000).audit_permille, 50);
    let bad = [at(0, observed(1, "garbage"))];
    assert_eq!(Reputation::replay(&bad).standing(&peer(1), 0).audit_permille, 500);
}

#[test]
fn records_are_bounded_and_bars_are_kept() {
    let mut reputation = Reputation::bounded(2, 1);
    for seed in 1..=3 {
        reputation.note(&at(u64::from(seed), accepted(seed, false)));
    }
    assert_eq!(reputation.len(), 2);
    assert_eq!(reputation.standing(&peer(1), 3).score, 500, "the longest idle one is forgotten");
    assert_eq!(reputation.standing(&peer(3), 3).score, 555);
    reputation.note(&at(0, observed(4, "bindings")));
    reputation.note(&at(0, observed(5, "bindings")));
    let barred: Vec<_> = reputation.barred().collect();
    assert_eq!(barred, [(peer(4), "bindings".into())], "never in favour of another");
}

#[test]
fn the_explanation_shows_the_arithmetic() {
    let entries = [at(0, accepted(1, true)), at(0, observed(1, "dropped"))];
    let reputation = Reputation::replay(&entries);
    let text = reputation.explain(&peer(1), 0).to_string();
    assert_eq!(
        text,
        "from unknown: 9.00 = answers 1.00 + 8 x audits here 1.00 + 4 x audits elsewhere 0.00\n\
         good 9.00, bad 4.00; half-life 14 days\n\
         score 619 = 1000 x (good + 4) / (good + bad + 8)\n\
         audited with 235 in 1000, new: half of all cheats are caught by no. 3, 99 in 100 by \
         no. 18; 10 go unseen with 6 %"
    );
    let barred = Reputation::replay(&[at(0, observed(1, "bindings: x"))]);
    let text = barred.explain(&peer(1), 0).to_string();
    assert!(text.contains("score 0: barred (bindings: x)"), "{text}");
    let lines = account(Rules::default(), &peer(1), (7..).zip(&entries), 14 * DAY_MS);
    let shown: Vec<_> =
        lines.iter().map(|l| (l.index, l.text.as_str(), l.left.to_string())).collect();
    assert_eq!(
        shown,
        [
            (7, "answer of 1 tokens from unknown, audited here", "4.50".to_owned()),
            (8, "dropped", "2.00".to_owned())
        ]
    );
}

mod groups;
mod incidents;
