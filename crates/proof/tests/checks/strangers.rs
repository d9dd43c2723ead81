//! How audits are drawn between strangers, how verdicts are held to account,
//! and what several providers' agreement says.

use peerproof_identity::Keypair;
use peerproof_proof::agreement::{self, Agreement, AgreementError, Odd};
use peerproof_proof::audit::{Findings, Recomputation, audit, recompute, verify_case};
use peerproof_proof::challenge::{positions, positions_by_lot};
use peerproof_proof::decoy::plant;
use peerproof_proof::evidence::{Proven, verify_with};
use peerproof_proof::lottery::{Rate, Ticket, choose};
use peerproof_proof::verdict::{self, VerdictError};
use peerproof_wire::{Digest, Evidence, FalseVerdict, Outcome, Receipt, Signed, Verdict};

use crate::support::{NONCE, Quirk, Served, Toy, auditor, commit, long_offer, offer, serve, sign};

fn keys() -> Vec<Keypair> {
    (0..8).map(|seed| Keypair::from_seed(&[seed; 32])).collect()
}

fn receipt() -> Receipt {
    serve(&Toy::default(), &sign(offer())).receipt.statement().clone()
}

#[test]
fn a_ticket_is_bound_to_key_root_and_offer() {
    let (receipt, key) = (receipt(), auditor().vrf());
    let ticket = Ticket::draw(&key, &receipt).unwrap();
    assert_eq!(Ticket::verify(&key.public(), ticket.proof(), &receipt), Ok(ticket.clone()));
    let mut other_root = receipt.clone();
    other_root.transcript_root = Digest::from_bytes([0; 32]);
    assert!(Ticket::verify(&key.public(), ticket.proof(), &other_root).is_err());
    let mut other_offer = receipt.clone();
    other_offer.offer_id = Digest::from_bytes([0; 32]);
    assert!(Ticket::verify(&key.public(), ticket.proof(), &other_offer).is_err());
    let other_key = Keypair::from_seed(&[1; 32]).vrf().public();
    assert!(Ticket::verify(&other_key, ticket.proof(), &receipt).is_err());
}

#[test]
fn the_number_and_time_of_a_receipt_do_not_move_the_lot() {
    // Else a provider could sign again until no auditor looks.
    let (receipt, key) = (receipt(), auditor().vrf());
    let mut again = receipt.clone();
    again.number = 2;
    again.previous = Some(Digest::from_bytes([0; 32]));
    again.issued_unix_ms += 1;
    assert_eq!(Ticket::draw(&key, &receipt), Ticket::draw(&key, &again));
}

#[test]
fn lots_win_at_their_rate() {
    let (mut receipt, key) = (receipt(), auditor().vrf());
    let quarter = Rate::from_q16(1 << 14).unwrap();
    let mut won = 0;
    for index in 0..400_u32 {
        let mut root = [0; 32];
        root[..4].copy_from_slice(&index.to_le_bytes());
        receipt.transcript_root = Digest::from_bytes(root);
        let ticket = Ticket::draw(&key, &receipt).unwrap();
        assert!(ticket.wins(Rate::ALWAYS) && !ticket.wins(Rate::NEVER));
        won += u32::from(ticket.wins(quarter));
    }
    // 100 expected, standard deviation 8.7; the draws are fixed, so is the count.
    assert!((65..135).contains(&won), "{won} of 400");
    let above = Rate::from_q16(65_537).unwrap_err();
    assert_eq!((above.expected, above.got), (65_536, 65_537));
}

#[test]
fn one_auditor_is_chosen_whatever_the_order() {
    let receipt = receipt();
    let mut tickets: Vec<Ticket> =
        keys().iter().map(|key| Ticket::draw(&key.vrf(), &receipt).unwrap()).collect();
    let chosen = choose(&tickets).unwrap().clone();
    tickets.reverse();
    assert_eq!(choose(&tickets), Some(&chosen));
    for ticket in &tickets {
        assert!(ticket.output().as_bytes() >= chosen.output().as_bytes());
    }
    assert_eq!(choose(&[]), None);
}

#[test]
fn each_auditor_opens_other_positions() {
    let served = serve(&Toy::default(), &sign(long_offer()));
    let mut drawn: Vec<_> = keys()
        .iter()
        .map(|key| Ticket::draw(&key.vrf(), &served.receipt).unwrap())
        .map(|ticket| positions_by_lot(ticket.output(), &served.receipt))
        .collect();
    drawn.push(positions(&NONCE, &served.receipt));
    for (index, one) in drawn.iter().enumerate() {
        assert!(one.contains(&(served.receipt.leaves - 2)));
        assert!(!drawn[..index].contains(one));
    }
}

struct Judged {
    served: Served,
    recomputation: Recomputation,
    verdict: Signed<Verdict>,
    ticket: Ticket,
}

fn judged(toy: &Toy) -> Judged {
    let served = serve(toy, &sign(long_offer()));
    let findings = audit(&Toy::default(), &served.case(), None, &auditor().public()).unwrap();
    let ticket = Ticket::draw(&auditor().vrf(), &served.receipt).unwrap();
    let verdict =
        verdict::build(&auditor(), &served.case(), findings, Some(&ticket), 3_000).unwrap();
    let recomputation = recompute(&Toy::default(), &served.offer, &served.tokens).unwrap();
    Judged { served, recomputation, verdict, ticket }
}

#[test]
fn a_verdict_shows_that_the_lot_fell_on_its_auditor() {
    let Judged { served, verdict, ticket, .. } = judged(&Toy::default());
    verdict::verify(&verdict, &auditor().public(), &served.offer, &served.receipt).unwrap();
    let key = auditor().vrf().public();
    let drawn = |rate| verdict::verify_drawn(&verdict, &served.receipt, &key, rate);
    assert_eq!(drawn(Rate::ALWAYS), Ok(ticket.clone()));
    let just_not = Rate::from_q16(ticket.lot_q16()).unwrap();
    assert!(matches!(drawn(just_not), Err(VerdictError::NotDrawn { .. })));
    let just = Rate::from_q16(ticket.lot_q16() + 1).unwrap();
    assert_eq!(drawn(just), Ok(ticket));
}

#[test]
fn a_key_made_after_the_root_is_not_the_one_announced() {
    let Judged { served, mut verdict, .. } = judged(&Toy::default());
    let ground = Keypair::from_seed(&[0x77; 32]).vrf();
    let ticket = Ticket::draw(&ground, &served.receipt).unwrap();
    let mut statement = verdict.statement().clone();
    let (key, proof) = (*ticket.key(), *ticket.proof());
    statement.draw = Some(peerproof_wire::VrfDraw { key, proof });
    verdict = Signed::sign(&auditor(), statement.clone()).unwrap();
    let announced = auditor().vrf().public();
    let refused = verdict::verify_drawn(&verdict, &served.receipt, &announced, Rate::ALWAYS);
    assert_eq!(refused, Err(VerdictError::DrawKey { expected: announced, got: ground.public() }));
    statement.draw = None;
    let refused = verdict::verify_drawn(&statement, &served.receipt, &announced, Rate::ALWAYS);
    assert_eq!(refused, Err(VerdictError::NoDraw));
}

#[test]
fn an_auditor_that_did_not_compute_is_seen_by_whoever_does() {
    let Judged { served, recomputation, verdict, .. } = judged(&Toy::default());
    assert_eq!(verdict::verify_work(&verdict, &served.receipt, &recomputation), Ok(()));
    // The public root echoed as work, and another auditor's work copied.
    for work in [served.receipt.transcript_root, recomputation.work(&keys()[1].public())] {
        let lazy = Verdict { work, ..verdict.statement().clone() };
        let lazy = Signed::sign(&auditor(), lazy).unwrap();
        assert!(matches!(
            verdict::verify_work(&lazy, &served.receipt, &recomputation),
            Err(VerdictError::Work { .. })
        ));
    }
}

#[test]
fn an_auditor_that_lies_is_seen_by_whoever_computes() {
    let honest = judged(&Toy::default());
    let cheat = judged(&Toy::with(Quirk::NudgedState(1)));
    let praise = Verdict { outcome: Outcome::Pass, ..cheat.verdict.statement().clone() };
    let praise = Signed::sign(&auditor(), praise).unwrap();
    assert_eq!(
        verdict::verify_work(&praise, &cheat.served.receipt, &cheat.recomputation),
        Err(VerdictError::Outcome { expected_pass: false })
    );
    let Outcome::Fail(mismatch) = cheat.verdict.outcome.clone() else { panic!("passed") };
    let slander =
        Verdict { outcome: Outcome::Fail(mismatch), ..honest.verdict.statement().clone() };
    let slander = Signed::sign(&auditor(), slander).unwrap();
    assert_eq!(
        verdict::verify_work(&slander, &honest.served.receipt, &honest.recomputation),
        Err(VerdictError::Outcome { expected_pass: true })
    );
}

#[test]
fn a_provider_has_no_say_about_itself() {
    let Judged { served, verdict, .. } = judged(&Toy::default());
    let own = Signed::sign(&crate::support::provider(), verdict.statement().clone()).unwrap();
    let refused = verdict::verify(&own, &own.key(), &served.offer, &served.receipt);
    assert_eq!(refused, Err(VerdictError::OwnReceipt { got: own.key() }));
}

/// One receipt per toy, each of a provider of its own.
fn receipts(quirks: &[Quirk]) -> Vec<Signed<Receipt>> {
    let offer = sign(long_offer());
    quirks
        .iter()
        .zip(keys())
        .map(|(quirk, key)| {
            let Served { leaves, tokens, text, stop, .. } = serve(&Toy::with(*quirk), &offer);
            commit(&key, &offer, leaves, tokens, &text, stop).receipt
        })
        .collect()
}

#[test]
fn honest_providers_agree() {
    let all = receipts(&[Quirk::None; 3]);
    assert_eq!(agreement::compare(&all), Ok(Agreement::Unanimous));
}

#[test]
fn the_odd_one_out_is_named() {
    let all = receipts(&[Quirk::None, Quirk::NudgedState(4), Quirk::None]);
    let Ok(Agreement::Majority { agreed, odd }) = agreement::compare(&all) else {
        panic!("no majority")
    };
    assert_eq!(agreed, [all[0].key(), all[2].key()]);
    assert_eq!(odd, [Odd { provider: all[1].key(), field: "transcript root" }]);
}

#[test]
fn without_a_majority_nobody_is_named() {
    let two = receipts(&[Quirk::None, Quirk::OtherWeights]);
    assert_eq!(agreement::compare(&two), Ok(Agreement::Split));
    let three = receipts(&[Quirk::None, Quirk::OtherWeights, Quirk::NudgedState(0)]);
    assert_eq!(agreement::compare(&three), Ok(Agreement::Split));
}

#[test]
fn receipts_that_cannot_be_compared() {
    let all = receipts(&[Quirk::None; 2]);
    assert_eq!(agreement::compare(&[]), Err(AgreementError::TooFew { got: 0 }));
    assert_eq!(agreement::compare(&all[..1]), Err(AgreementError::TooFew { got: 1 }));
    let twice = [all[0].clone(), all[1].clone(), all[0].clone()];
    assert_eq!(
        agreement::compare(&twice),
        Err(AgreementError::SameProvider { index: 2, got: all[0].key() })
    );
    let other = serve(&Toy::default(), &sign(offer())).receipt;
    assert!(matches!(
        agreement::compare(&[all[0].clone(), other]),
        Err(AgreementError::Offer { index: 1, .. })
    ));
}

#[test]
fn a_planted_receipt_hangs_together_and_fails_every_honest_audit() {
    for (round, served) in
        [serve(&Toy::default(), &sign(offer())), serve(&Toy::default(), &sign(long_offer()))]
            .iter()
            .enumerate()
    {
        let router = Keypair::from_seed(&[40; 32]);
        for number in 0..8_u8 {
            let entropy = [number + 8 * round as u8; 32];
            let case = plant(&served.case(), &router, &entropy, 7).unwrap();
            verify_case(&case.offer, &case.receipt, &case.tokens).unwrap();
            let differing =
                case.tokens.iter().zip(&served.case().tokens).filter(|(a, b)| a != b).count();
            assert_eq!(differing, 1);
            let found = audit(&Toy::default(), &case, None, &auditor().public()).unwrap();
            assert!(matches!(found.outcome, Outcome::Fail(_)), "{found:?}");
            // Whoever passes it is convicted by the file.
            let lazy = Findings { outcome: Outcome::Pass, work: Digest::from_bytes([1; 32]) };
            let verdict = verdict::build(&auditor(), &case, lazy, None, 7).unwrap();
            let said = Evidence::FalseVerdict(FalseVerdict { case, verdict });
            let finding = verify_with(&said, &Toy::default()).unwrap();
            assert!(matches!(finding.proven, Some(Proven::FalseVerdict(_))));
        }
    }
}

#[test]
fn a_draw_before_the_job_is_shown_is_the_draw_of_the_verdict() {
    let (receipt, key) = (receipt(), auditor().vrf());
    let before = Ticket::draw_over(&key, &receipt.transcript_root, &receipt.offer_id).unwrap();
    assert_eq!(before, Ticket::draw(&key, &receipt).unwrap());
}
