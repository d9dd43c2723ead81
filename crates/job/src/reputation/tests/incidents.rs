//! Bars and how they are lifted; auditors.

use peerproof_wire::{AuditorCheck, AuditorFinding, Decision, FalseVerdict, Note, Refutation};

use super::*;

fn wrong_answer(seed: u8) -> LogBody {
    let wrong =
        WrongAnswer { case: case(seed), mismatch: mismatch(), opening: None, verdicts: vec![] };
    LogBody::Evidence(Evidence::WrongAnswer(wrong))
}

fn decided(blocked: bool) -> LogBody {
    LogBody::Note(Note::Decision(Decision::new(public(1), blocked, "my own reasons")))
}

fn refuted(seed: u8, accuser: Option<u8>) -> LogBody {
    LogBody::Note(Note::Refutation(Refutation {
        accused: public(seed),
        receipt_id: case(seed).receipt.id(),
        accuser: accuser.map(public),
    }))
}

pub(super) fn checked(seed: u8, finding: u8) -> LogBody {
    let all = [
        AuditorFinding::Caught,
        AuditorFinding::Confirmed,
        AuditorFinding::Disagreed,
        AuditorFinding::Undrawn,
    ];
    LogBody::Note(Note::AuditorCheck(AuditorCheck {
        auditor: public(seed),
        receipt_id: Digest::from_bytes([finding; 32]),
        finding: all[usize::from(finding) % all.len()],
    }))
}

fn false_verdict(auditor: u8) -> LogBody {
    let case = case(1);
    let LogBody::Verdict(verdict) = verdict(1, Outcome::Pass) else { unreachable!("a verdict") };
    let verdict = Signed::sign(&key(auditor), verdict.statement().clone());
    let verdict = verdict.expect("a verdict within its limits");
    LogBody::Evidence(Evidence::FalseVerdict(FalseVerdict { case, verdict }))
}

fn standing(entries: &[LogEntry]) -> Standing {
    Reputation::replay(entries).standing(&peer(1), 0)
}

#[test]
fn the_users_word_holds_against_what_is_older() {
    let blocked = standing(&[at(0, accepted(1, true)), at(1, decided(true))]);
    assert_eq!((blocked.score, blocked.audit_permille), (0, 1000));
    assert_eq!(blocked.barred.as_deref(), Some("blocked by the user: my own reasons"));
    let again = [at(1, decided(true)), at(2, decided(false))];
    assert_eq!(standing(&again), Standing::stranger());
    // Forgiven is not forgotten: a bar counts 16 bad, and fades.
    let forgiven = [at(0, observed(1, "bindings: x")), at(1, decided(false))];
    assert_eq!(standing(&forgiven).score, 166);
    assert!(standing(&forgiven).barred.is_none());
    let relapsed = [&forgiven[..], &[at(2, wrong_answer(1))]].concat();
    assert_eq!(standing(&relapsed).barred.as_deref(), Some("wrong-answer: Token"));
    // The order in which entries are met is not the order in which they were made.
    let turned: Vec<LogEntry> = relapsed.iter().rev().cloned().collect();
    let mut reputation = Reputation::new();
    for (index, entry) in turned.iter().enumerate() {
        reputation.note_at((turned.len() - index) as u64, entry);
    }
    assert_eq!(reputation.standing(&peer(1), 0), standing(&relapsed));
}

#[test]
fn a_refuted_accusation_rolls_back_to_the_digit() {
    let before = [at(0, accepted(1, true)), at(0, observed(1, "dropped"))];
    let accused = [&before[..], &[at(1, wrong_answer(1))]].concat();
    assert_eq!(standing(&accused).score, 0);
    let reputation = Reputation::replay(&accused);
    assert_eq!(reputation.accused_receipts(&peer(1)), [case(1).receipt.id()]);
    let cleared = [&accused[..], &[at(2, refuted(1, Some(9)))]].concat();
    assert_eq!(standing(&cleared), standing(&before));
    let reputation = Reputation::replay(&cleared);
    assert!(reputation.accused_receipts(&peer(1)).is_empty());
    assert_eq!(reputation.standing(&peer(9), 0).score, 166, "the accuser's record carries it");
    // It clears that receipt and no other charge.
    let worse = [&cleared[..], &[at(3, observed(1, "equivocation"))]].concat();
    assert_eq!(standing(&worse).barred.as_deref(), Some("equivocation"));
    let elsewhere = [at(0, wrong_answer(1)), at(1, refuted(2, None))];
    assert_eq!(standing(&elsewhere).score, 0);
}

#[test]
fn one_auditors_word_counts_little() {
    assert_eq!(score(&[at(0, observed(1, "accused: by one auditor"))], 0), 444);
}

#[test]
fn an_auditor_that_signs_what_is_not_so_is_not_asked_again() {
    let auditor = |entries: &[LogEntry]| Reputation::replay(entries).auditor(&peer(1), 0);
    let unknown = auditor(&[]);
    assert_eq!((unknown.score, unknown.plant_permille, &unknown.barred), (500, 250, &None));
    let right: Vec<LogEntry> = (0..24).map(|_| at(0, checked(1, 0))).collect();
    let known = auditor(&right);
    assert_eq!((known.score, known.plant_permille), (875, 62));
    let lied = [&right[..], &[at(1, false_verdict(1))]].concat();
    assert!(auditor(&lied).barred.is_some_and(|why| why.starts_with("false-verdict")));
    let record = Reputation::replay(&lied);
    assert!(record.standing(&peer(1), 0).barred.is_none(), "it may still answer jobs");
    assert_eq!(record.standing(&peer(1), 0).score, 166);
    let forgiven = [&lied[..], &[at(2, decided(false))]].concat();
    assert!(auditor(&forgiven).barred.is_none());
    // Contradictions count against both, and a few of them do not end anything.
    let some: Vec<LogEntry> = (0..2).map(|_| at(0, checked(1, 2))).collect();
    assert!(auditor(&some).barred.is_none());
    let many: Vec<LogEntry> = (0..3).map(|_| at(0, checked(1, 2))).collect();
    assert!(auditor(&many).barred.is_some());
    assert!(auditor(&[at(0, checked(1, 3))]).barred.is_some(), "a draw that does not hold");
    assert!(auditor(&[at(0, decided(true))]).barred.is_some(), "blocked is blocked");
}
