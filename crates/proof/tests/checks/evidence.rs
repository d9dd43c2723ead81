//! What files prove, to whom, and what they leave open.

use peerproof_proof::audit::{Findings, audit};
use peerproof_proof::challenge::ChallengeError;
use peerproof_proof::evidence::{
    EvidenceError, Finding, Proven, Unchecked, from_audit, from_receipts, verify, verify_with,
};
use peerproof_proof::receipt::{BindingError, Field};
use peerproof_proof::verdict::{self, VerdictError};
use peerproof_wire::{
    Case, Difference, Digest, Evidence, FalseVerdict, Message, Mismatch, Observation, Offer,
    Outcome, Signed, Stop, Verdict, WrongAnswer,
};

use crate::support::{
    Quirk, Served, Toy, auditor, commit, long_offer, offer, provider, router, serve, sign,
};

fn findings(served: &Served) -> Findings {
    audit(&Toy::default(), &served.case(), None, &auditor().public()).unwrap()
}

fn verdict_on(served: &Served) -> Signed<Verdict> {
    verdict::build(&auditor(), &served.case(), findings(served), None, 9).unwrap()
}

/// The file a failed audit leaves, after a trip over the wire.
fn file(served: &Served) -> Evidence {
    let openings = served.openings();
    let found =
        audit(&Toy::default(), &served.case(), Some(&openings), &auditor().public()).unwrap();
    let verdicts = vec![verdict_on(served)];
    let evidence = from_audit(&served.case(), &found, Some(&openings), verdicts).unwrap();
    Evidence::decode(&evidence.encode().unwrap()).unwrap()
}

/// A file without opening or verdicts that claims whatever it likes.
fn claim(case: Case) -> WrongAnswer {
    let mismatch =
        Mismatch { position: 0, what: Difference::State, expected: vec![1; 32], got: vec![2; 32] };
    WrongAnswer { case, mismatch, opening: None, verdicts: vec![] }
}

fn cheat() -> Served {
    serve(&Toy::with(Quirk::NudgedState(5)), &sign(long_offer()))
}

#[test]
fn a_wrong_answer_is_proven_by_recomputation_only() {
    let file = file(&cheat());
    assert_eq!(
        verify(&file).unwrap(),
        Finding {
            accused: provider().public(),
            proven: None,
            unchecked: vec![Unchecked::Recomputation, Unchecked::Verdicts],
            idle_auditors: vec![],
        }
    );
    let finding = verify_with(&file, &Toy::default()).unwrap();
    assert!(matches!(finding.proven, Some(Proven::WrongAnswer(_))));
    assert_eq!((finding.unchecked, finding.idle_auditors), (vec![], vec![]));
}

#[test]
fn false_accusation() {
    let honest = serve(&Toy::default(), &sign(long_offer()));
    let evidence = Evidence::WrongAnswer(claim(honest.case()));
    assert_eq!(verify(&evidence).unwrap().proven, None);
    assert!(matches!(
        verify_with(&evidence, &Toy::default()),
        Err(EvidenceError::FalseAccusation { receipt }) if receipt == honest.receipt.id()
    ));
    assert_eq!(from_audit(&honest.case(), &findings(&honest), None, vec![]), None);
}

#[test]
fn a_false_verdict_in_a_true_file_is_named() {
    let cheat = cheat();
    let lazy =
        Verdict { work: Digest::from_bytes([0; 32]), ..verdict_on(&cheat).statement().clone() };
    let lazy = Signed::sign(&router(), lazy).unwrap();
    let mut wrong = claim(cheat.case());
    wrong.verdicts = vec![verdict_on(&cheat), lazy];
    let finding = verify_with(&Evidence::WrongAnswer(wrong), &Toy::default()).unwrap();
    assert_eq!(finding.idle_auditors, [router().public()]);
}

#[test]
fn a_verdict_on_another_receipt_or_by_the_accused_is_refused() {
    let other = verdict_on(&serve(&Toy::default(), &sign(offer())));
    let own = Signed::sign(&provider(), verdict_on(&cheat()).statement().clone()).unwrap();
    let refused = |verdict| {
        let mut wrong = claim(cheat().case());
        wrong.verdicts = vec![verdict_on(&cheat()), verdict];
        match verify(&Evidence::WrongAnswer(wrong)) {
            Err(EvidenceError::Verdict { index: 1, source }) => source,
            got => panic!("{got:?}"),
        }
    };
    assert!(matches!(refused(other), VerdictError::About { what: "receipt id", .. }));
    assert!(matches!(refused(own), VerdictError::OwnReceipt { .. }));
}

#[test]
fn papers_that_do_not_belong_together() {
    let case = cheat().case();
    let refused = |case| match verify(&Evidence::WrongAnswer(claim(case))) {
        Err(EvidenceError::Case(BindingError::Digest { field, .. })) => field,
        got => panic!("{got:?}"),
    };
    let offer = sign(Offer { deadline_ms: 1, ..long_offer() });
    assert_eq!(refused(Case { offer, ..case.clone() }), Field::OfferId);
    let mut tokens = case.tokens.clone();
    tokens[3] ^= 1;
    assert_eq!(refused(Case { tokens, ..case.clone() }), Field::OutputHash);
    let other = serve(&Toy::default(), &sign(crate::support::offer())).receipt;
    assert_eq!(refused(Case { receipt: other, ..case }), Field::OfferId);
}

#[test]
fn broken_terms_convict_without_the_model() {
    let honest = serve(&Toy::default(), &sign(long_offer()));
    let miscounted = honest.with_receipt(|receipt| receipt.leaves += 1);
    let finding = verify(&Evidence::WrongAnswer(claim(miscounted.case()))).unwrap();
    assert!(matches!(
        finding.proven,
        Some(Proven::Terms(BindingError::Number { field: Field::Leaves, .. }))
    ));
    assert_eq!(finding.unchecked, []);
    let overcounted = honest.with_receipt(|receipt| {
        receipt.output_tokens -= 1;
        receipt.leaves -= 1;
        receipt.stop = Stop::EndOfText;
    });
    let finding = verify(&Evidence::WrongAnswer(claim(overcounted.case()))).unwrap();
    assert!(matches!(
        finding.proven,
        Some(Proven::Terms(BindingError::Number { field: Field::OutputTokens, .. }))
    ));
}

#[test]
fn the_providers_own_leaf_convicts_without_the_model() {
    let biased = serve(&Toy::with(Quirk::BiasedDraws), &sign(long_offer()));
    let mut wrong = claim(biased.case());
    wrong.opening = biased.openings().openings.pop();
    let finding = verify(&Evidence::WrongAnswer(wrong)).unwrap();
    assert!(matches!(finding.proven, Some(Proven::Leaf(ChallengeError::Number { got: 3, .. }))));

    let honest = serve(&Toy::default(), &sign(long_offer()));
    let Served { offer, leaves, tokens, stop, text, .. } = honest.clone();
    let other = commit(&provider(), &offer, leaves, tokens, "other", stop);
    let other = other.with_receipt(|receipt| {
        receipt.text_hash = peerproof_proof::receipt::text_hash(&text);
    });
    let mut wrong = claim(other.case());
    wrong.opening = other.openings().openings.pop();
    let finding = verify(&Evidence::WrongAnswer(wrong)).unwrap();
    assert!(matches!(finding.proven, Some(Proven::Leaf(ChallengeError::Closing { .. }))));
}

#[test]
fn an_opening_of_another_transcript_is_refused() {
    let mut wrong = claim(cheat().case());
    let other = serve(&Toy::with(Quirk::NudgedState(6)), &sign(long_offer()));
    wrong.opening = other.openings().openings.pop();
    assert!(matches!(
        verify(&Evidence::WrongAnswer(wrong)),
        Err(EvidenceError::Opening(ChallengeError::Path { .. }))
    ));
}

#[test]
fn two_receipts_with_one_number() {
    let first = serve(&Toy::default(), &sign(long_offer())).receipt;
    let second = serve(&Toy::default(), &sign(offer())).receipt;
    let file = from_receipts(&first, &second).unwrap();
    let finding = verify(&Evidence::decode(&file.encode().unwrap()).unwrap()).unwrap();
    assert_eq!(finding.accused, provider().public());
    assert_eq!(finding.proven, Some(Proven::Equivocation { number: 1 }));
    assert_eq!(finding.unchecked, []);
    // Also for one job, if the two differ in anything.
    let again = serve(&Toy::default(), &sign(offer()));
    let again = again.with_receipt(|receipt| receipt.issued_unix_ms += 1).receipt;
    assert!(from_receipts(&second, &again).is_ok());
}

#[test]
fn what_is_no_equivocation() {
    let served = serve(&Toy::default(), &sign(offer()));
    let first = served.receipt.clone();
    assert!(matches!(from_receipts(&first, &first), Err(EvidenceError::SameReceipt { .. })));
    let next = served.with_receipt(|receipt| {
        receipt.number = 2;
        receipt.previous = Some(first.id());
    });
    assert!(matches!(
        from_receipts(&first, &next.receipt),
        Err(EvidenceError::Numbers { expected: 1, got: 2 })
    ));
    let stranger = Signed::sign(&auditor(), next.receipt.statement().clone()).unwrap();
    assert!(matches!(from_receipts(&first, &stranger), Err(EvidenceError::Signers { .. })));
}

#[test]
fn an_observation_is_one_nodes_word() {
    let seen = |case| {
        verify(&Evidence::Observation(Observation::new(provider().public(), "no receipt", case)))
    };
    for case in [None, Some(cheat().case())] {
        let finding = seen(case).unwrap();
        assert_eq!((finding.proven, finding.unchecked), (None, vec![Unchecked::Account]));
    }
    let broken = cheat().with_receipt(|receipt| receipt.leaves += 1);
    assert!(matches!(seen(Some(broken.case())).unwrap().proven, Some(Proven::Terms(_))));
    let mut other = cheat().case();
    other.receipt = Signed::sign(&auditor(), other.receipt.statement().clone()).unwrap();
    assert!(matches!(seen(Some(other)), Err(EvidenceError::Accused { .. })));
}

#[test]
fn a_file_is_not_judged_with_another_model() {
    let offer = Offer { model_id: peerproof_wire::ModelId::from_bytes([1; 32]), ..long_offer() };
    let served = serve(&Toy::default(), &sign(offer));
    let error = verify_with(&Evidence::WrongAnswer(claim(served.case())), &Toy::default());
    assert!(matches!(error, Err(EvidenceError::Audit(peerproof_proof::AuditError::Model { .. }))));
    assert_eq!(findings(&cheat()).mismatch().map(|one| one.what), Some(Difference::Root));
    assert!(matches!(findings(&cheat()).outcome, Outcome::Fail(_)));
}

fn said(case: Case, verdict: Signed<Verdict>) -> Evidence {
    let evidence = Evidence::FalseVerdict(FalseVerdict { case, verdict });
    Evidence::decode(&evidence.encode().unwrap()).unwrap()
}

#[test]
fn a_verdict_that_its_case_does_not_bear_out_convicts_the_auditor() {
    let cheat = cheat();
    let right = verdict_on(&cheat);
    let resigned = |change: &dyn Fn(&mut Verdict)| {
        let mut verdict = right.statement().clone();
        change(&mut verdict);
        Signed::sign(&auditor(), verdict).unwrap()
    };
    let passed = said(cheat.case(), resigned(&|verdict| verdict.outcome = Outcome::Pass));
    let finding = verify(&passed).unwrap();
    assert_eq!((finding.accused, finding.proven), (auditor().public(), None));
    let finding = verify_with(&passed, &Toy::default()).unwrap();
    let wrong = VerdictError::Outcome { expected_pass: false };
    assert_eq!(finding.proven, Some(Proven::FalseVerdict(wrong)));
    let idle = said(cheat.case(), resigned(&|verdict| verdict.work = Digest::from_bytes([7; 32])));
    let finding = verify_with(&idle, &Toy::default()).unwrap();
    assert!(matches!(finding.proven, Some(Proven::FalseVerdict(VerdictError::Work { .. }))));
    // A true verdict accuses whoever holds it against its author.
    let sound = said(cheat.case(), right);
    verify(&sound).unwrap();
    let refused = verify_with(&sound, &Toy::default());
    assert!(matches!(refused, Err(EvidenceError::SoundVerdict { .. })));
    let other = serve(&Toy::default(), &sign(offer()));
    let elsewhere = verify(&said(other.case(), verdict_on(&cheat)));
    assert!(matches!(elsewhere, Err(EvidenceError::Verdict { .. })));
}
