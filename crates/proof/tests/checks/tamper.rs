//! No field of a statement, a leaf or a path can be altered unseen.
//!
//! Each table begins by taking its subject apart without `..`, so a field added
//! to a message does not compile until this file says what altering it meets.

use peerproof_proof::audit::{AuditError, audit, recompute};
use peerproof_proof::challenge::{ChallengeError, verify_openings};
use peerproof_proof::receipt::{BindingError, Field, Place, verify_bindings, verify_successor};
use peerproof_proof::transcript::PathError;
use peerproof_proof::verdict::{self, VerdictError};
use peerproof_proof::{leaf_hash, receipt};
use peerproof_wire::{
    Case, Challenge, Class, Digest, Drawn, Leaf, ModelId, Offer, Opening, Openings, Outcome,
    Receipt, Signed, Stop, Verdict,
};

use crate::support::{
    Quirk, Served, Toy, auditor, long_offer, offer, provider, router, serve, sign,
};

fn served() -> Served {
    serve(&Toy::default(), &sign(long_offer()))
}

fn flip(digest: &mut Digest) {
    let mut bytes = *digest.as_bytes();
    bytes[31] ^= 1;
    *digest = Digest::from_bytes(bytes);
}

/// What a receipt altered and signed again meets: at the bindings, else at the audit.
#[derive(Debug, PartialEq)]
enum Met {
    Digest(Field),
    Number(Field),
    Range(Field),
    StopString,
    Audit,
    Chain,
    Nothing,
}

fn meets(served: &Served) -> Met {
    let key = provider().public();
    let Served { offer, receipt, commitments, .. } = served;
    match verify_bindings(offer, receipt, &key, served.answer(), commitments) {
        Err(BindingError::Digest { field, .. }) => return Met::Digest(field),
        Err(BindingError::Number { field, .. }) => return Met::Number(field),
        Err(BindingError::Range { field, .. }) => return Met::Range(field),
        Err(BindingError::StopString) => return Met::StopString,
        Err(other) => panic!("{other}"),
        Ok(()) => {}
    }
    let findings = audit(&Toy::default(), &served.case(), None, &auditor().public()).unwrap();
    if findings.outcome != Outcome::Pass {
        return Met::Audit;
    }
    match verify_successor(&predecessor(), receipt) {
        Err(_) => Met::Chain,
        Ok(()) => Met::Nothing,
    }
}

fn predecessor() -> Signed<Receipt> {
    serve(&Toy::default(), &sign(offer())).receipt
}

fn second() -> Served {
    let id = predecessor().id();
    served().with_receipt(|receipt| {
        receipt.number = Place::after(1, id).number();
        receipt.previous = Some(id);
    })
}

#[test]
fn every_field_of_a_receipt() {
    let Receipt {
        offer_id: _,
        model_id: _,
        number: _,
        previous: _,
        prompt_tokens: _,
        output_tokens: _,
        stop: _,
        output_hash: _,
        text_hash: _,
        transcript_root: _,
        leaves: _,
        kv_root: _,
        class: _,
        issued_unix_ms: _,
    } = second().receipt.statement().clone();
    type Row = (fn(&mut Receipt), Met);
    let table: [Row; 15] = [
        (|receipt| flip(&mut receipt.offer_id), Met::Digest(Field::OfferId)),
        (|receipt| receipt.model_id = ModelId::from_bytes([0; 32]), Met::Digest(Field::ModelId)),
        (|receipt| receipt.number += 1, Met::Chain),
        (|receipt| flip(receipt.previous.as_mut().unwrap()), Met::Chain),
        (|receipt| receipt.prompt_tokens += 1, Met::Number(Field::Leaves)),
        (|receipt| receipt.prompt_tokens = 0, Met::Range(Field::PromptTokens)),
        (|receipt| receipt.output_tokens -= 1, Met::Number(Field::Leaves)),
        (|receipt| receipt.stop = Stop::EndOfText, Met::Audit),
        (|receipt| receipt.stop = Stop::StopString, Met::StopString),
        (|receipt| flip(&mut receipt.output_hash), Met::Digest(Field::OutputHash)),
        (|receipt| flip(&mut receipt.text_hash), Met::Digest(Field::TextHash)),
        (|receipt| flip(&mut receipt.transcript_root), Met::Audit),
        (|receipt| receipt.leaves += 1, Met::Number(Field::Leaves)),
        (|receipt| flip(&mut receipt.kv_root), Met::Audit),
        (|receipt| receipt.class = Class::Statistical, Met::Number(Field::Class)),
    ];
    assert_eq!(meets(&second()), Met::Nothing);
    for (row, (alter, expected)) in table.into_iter().enumerate() {
        assert_eq!(meets(&second().with_receipt(alter)), expected, "row {row}");
    }
    // When it was signed is the provider's own word and binds nothing.
    let later = second().with_receipt(|receipt| receipt.issued_unix_ms += 1);
    assert_eq!(meets(&later), Met::Nothing);
}

#[test]
fn every_bit_of_a_signed_receipt() {
    let envelope = served().receipt.envelope();
    for bit in 0..envelope.payload.len() * 8 {
        let mut altered = envelope.clone();
        altered.payload[bit / 8] ^= 1 << (bit % 8);
        assert!(Signed::<Receipt>::open(altered).is_err(), "bit {bit}");
    }
}

#[test]
fn a_receipt_signed_by_another_key() {
    let served = served();
    let stranger = Signed::sign(&auditor(), served.receipt.statement().clone()).unwrap();
    let key = provider().public();
    let refused = verify_bindings(&served.offer, &stranger, &key, served.answer(), &[]);
    let got = auditor().public();
    assert_eq!(refused, Err(BindingError::Signer { expected: key, got }));
}

#[test]
fn every_token_of_a_case() {
    let served = served();
    let Case { offer: _, receipt: _, tokens } = served.case();
    let refused = |tokens: Vec<u32>| {
        let case = Case { tokens, ..served.case() };
        audit(&Toy::default(), &case, None, &auditor().public()).unwrap_err()
    };
    let is_output_hash = |error: AuditError| {
        matches!(error, AuditError::Case(BindingError::Digest { field: Field::OutputHash, .. }))
    };
    for index in 0..tokens.len() {
        let mut altered = tokens.clone();
        altered[index] += 1;
        assert!(is_output_hash(refused(altered)), "token {index}");
    }
    assert!(is_output_hash(refused(tokens[1..].to_vec())));
    assert!(is_output_hash(refused([&tokens[..], &[5]].concat())));
    assert!(is_output_hash(refused(vec![])));
}

#[test]
fn every_field_of_the_offer_behind_a_case() {
    let alterations: [fn(&mut Offer); 14] = [
        |offer| offer.model_id = ModelId::from_bytes([0; 32]),
        |offer| offer.prompt = peerproof_wire::Prompt::Text("other".into()),
        |offer| offer.sampling.temperature_q16 += 1,
        |offer| offer.sampling.top_k += 1,
        |offer| offer.sampling.frequency_q16 -= 1,
        |offer| offer.sampling.logprobs = Some(0),
        |offer| offer.max_tokens += 1,
        |offer| offer.stop.push("x".into()),
        |offer| offer.level = peerproof_wire::Level::Receipt,
        |offer| offer.public_nonce[0] ^= 1,
        |offer| flip(&mut offer.client_nonce_hash),
        |offer| offer.deadline_ms += 1,
        |offer| {
            offer.sampling = peerproof_wire::Sampling::GREEDY;
            offer.stop.clear();
            offer.pooling = Some(peerproof_wire::job::Pooling::Mean);
        },
        |offer| {
            offer.sampling =
                peerproof_wire::Sampling { logprobs: Some(20), ..peerproof_wire::Sampling::GREEDY };
            offer.class = Class::Statistical;
        },
    ];
    let served = served();
    let Offer {
        model_id: _,
        prompt: _,
        sampling: _,
        max_tokens: _,
        stop: _,
        level: _,
        public_nonce: _,
        client_nonce_hash: _,
        deadline_ms: _,
        pooling: _,
        class: _,
    } = served.offer.statement();
    let refused = |offer| {
        let case = Case { offer, ..served.case() };
        let error = audit(&Toy::default(), &case, None, &auditor().public()).unwrap_err();
        let expected = Field::OfferId;
        assert!(matches!(
            error,
            AuditError::Case(BindingError::Digest { field, .. }) if field == expected
        ));
    };
    for alter in alterations {
        let mut altered = served.offer.statement().clone();
        alter(&mut altered);
        refused(Signed::sign(&router(), altered).unwrap());
    }
    // The same words from another router are another offer.
    refused(Signed::sign(&auditor(), served.offer.statement().clone()).unwrap());
}

#[test]
fn every_field_of_a_leaf_and_its_path() {
    let Leaf { position: _, token: _, state: _, layers: _, drawn } = served().leaves.pop().unwrap();
    let Drawn { logits: _, draw: _, next: _ } = drawn.unwrap();
    let table: [fn(&mut Opening); 10] = [
        |opening| opening.leaf.token ^= 1,
        |opening| flip(&mut opening.leaf.state),
        |opening| flip(&mut opening.leaf.layers),
        |opening| opening.leaf.drawn = None,
        |opening| flip(&mut opening.leaf.drawn.as_mut().unwrap().logits),
        |opening| opening.leaf.drawn.as_mut().unwrap().draw ^= 1,
        |opening| opening.leaf.drawn.as_mut().unwrap().next ^= 1,
        |opening| flip(&mut opening.path[0]),
        |opening| flip(opening.path.last_mut().unwrap()),
        |opening| opening.path.swap(0, 1),
    ];
    let served = served();
    let challenge = served.challenge(false);
    let full = served.respond(&challenge);
    let last = full.openings.len() - 1;
    let check = |openings: &Openings| {
        let Served { offer, receipt, tokens, commitments, .. } = &served;
        verify_openings(offer, receipt, tokens, commitments, &challenge, openings)
    };
    assert_eq!(check(&full), Ok(()));
    for (row, alter) in table.into_iter().enumerate() {
        let mut altered = full.clone();
        alter(&mut altered.openings[last]);
        let refused = check(&altered).unwrap_err();
        let is_root =
            matches!(refused, ChallengeError::Path { source: PathError::Root { .. }, .. });
        assert!(is_root, "row {row}: {refused}");
    }
    let mut moved = full.clone();
    moved.openings[last].leaf.position -= 1;
    assert!(matches!(check(&moved), Err(ChallengeError::Order { .. })));
}

#[test]
fn every_field_of_a_leaf_is_in_its_hash() {
    let leaf = Leaf {
        position: 0,
        token: 0,
        state: Digest::from_bytes([0; 32]),
        layers: Digest::from_bytes([0; 32]),
        drawn: Some(Drawn { logits: Digest::from_bytes([0; 32]), draw: 0, next: 0 }),
    };
    let mut hashes = vec![leaf_hash(&leaf)];
    let alterations: [fn(&mut Leaf); 8] = [
        |leaf| leaf.position = 1,
        |leaf| leaf.token = 1,
        |leaf| flip(&mut leaf.state),
        |leaf| flip(&mut leaf.layers),
        |leaf| leaf.drawn = None,
        |leaf| flip(&mut leaf.drawn.as_mut().unwrap().logits),
        |leaf| leaf.drawn.as_mut().unwrap().draw = 1,
        |leaf| leaf.drawn.as_mut().unwrap().next = 1,
    ];
    for alter in alterations {
        let mut altered = leaf.clone();
        alter(&mut altered);
        hashes.push(leaf_hash(&altered));
    }
    let distinct: std::collections::BTreeSet<_> = hashes.iter().collect();
    assert_eq!(distinct.len(), hashes.len());
}

#[test]
fn every_field_of_a_challenge() {
    let served = served();
    let challenge = served.challenge(false);
    let Challenge { receipt_id: _, client_nonce: _, positions: _, leaf_hashes: _ } = &challenge;
    let respond = |alter: fn(&mut Challenge)| {
        let mut altered = challenge.clone();
        alter(&mut altered);
        let Served { offer, receipt, leaves, tree, .. } = &served;
        peerproof_proof::challenge::respond(offer, receipt, leaves, tree, &altered)
    };
    assert!(matches!(
        respond(|challenge| flip(&mut challenge.receipt_id)),
        Err(ChallengeError::Receipt { .. })
    ));
    assert!(matches!(
        respond(|challenge| challenge.client_nonce[0] ^= 1),
        Err(ChallengeError::Nonce { .. })
    ));
    // The closing leaf is no position.
    assert!(matches!(
        respond(|challenge| challenge.positions.push(u32::MAX)),
        Err(ChallengeError::Position { got: u32::MAX, .. })
    ));
    let closing = served.receipt.leaves - 1;
    let mut asks_closing = challenge.clone();
    asks_closing.positions.push(closing);
    let Served { offer, receipt, leaves, tree, .. } = &served;
    assert_eq!(
        peerproof_proof::challenge::respond(offer, receipt, leaves, tree, &asks_closing),
        Err(ChallengeError::Position { expected: closing, got: closing })
    );
    assert_eq!(
        respond(|challenge| challenge.leaf_hashes = true).unwrap().leaf_hashes.len(),
        tree.hashes().len()
    );
}

#[test]
fn every_field_of_a_verdict() {
    let served = serve(&Toy::with(Quirk::NudgedState(2)), &sign(long_offer()));
    let case = served.case();
    let findings = audit(&Toy::default(), &case, None, &auditor().public()).unwrap();
    let signed = verdict::build(&auditor(), &case, findings, None, 2_000).unwrap();
    let recomputation = recompute(&Toy::default(), &served.offer, &served.tokens).unwrap();
    let key = auditor().public();
    let check = |verdict: &Signed<Verdict>| {
        verdict::verify(verdict, &key, &served.offer, &served.receipt)
            .and_then(|()| verdict::verify_work(verdict, &served.receipt, &recomputation))
    };
    assert_eq!(check(&signed), Ok(()));
    let Verdict {
        receipt_id: _,
        offer_id: _,
        model_id: _,
        provider: _,
        outcome: _,
        work: _,
        draw: _,
        issued_unix_ms: _,
    } = signed.statement();
    let altered = |alter: fn(&mut Verdict)| {
        let mut verdict = signed.statement().clone();
        alter(&mut verdict);
        check(&Signed::sign(&auditor(), verdict).unwrap()).unwrap_err()
    };
    let about = |error: VerdictError| match error {
        VerdictError::About { what, .. } => what,
        other => panic!("{other}"),
    };
    assert_eq!(about(altered(|verdict| flip(&mut verdict.receipt_id))), "receipt id");
    assert_eq!(about(altered(|verdict| flip(&mut verdict.offer_id))), "offer id");
    let model = altered(|verdict| verdict.model_id = ModelId::from_bytes([0; 32]));
    assert_eq!(about(model), "model id");
    assert_eq!(about(altered(|verdict| verdict.provider = router().public())), "provider");
    assert_eq!(
        altered(|verdict| verdict.outcome = Outcome::Pass),
        VerdictError::Outcome { expected_pass: false }
    );
    let equal = altered(|verdict| {
        let Outcome::Fail(mismatch) = &mut verdict.outcome else { unreachable!() };
        mismatch.got = mismatch.expected.clone();
    });
    assert_eq!(equal, VerdictError::Mismatch { position: 0 });
    assert!(matches!(altered(|verdict| flip(&mut verdict.work)), VerdictError::Work { .. }));
    let foreign = altered(|verdict| {
        let ticket = peerproof_proof::lottery::Ticket::draw(
            &auditor().vrf(),
            serve(&Toy::default(), &sign(offer())).receipt.statement(),
        );
        let ticket = ticket.unwrap();
        let (key, proof) = (*ticket.key(), *ticket.proof());
        verdict.draw = Some(peerproof_wire::VrfDraw { key, proof });
    });
    assert!(matches!(foreign, VerdictError::Draw(_)));
    let other = Signed::sign(&router(), signed.statement().clone()).unwrap();
    assert!(matches!(check(&other), Err(VerdictError::Signer { .. })));
}

#[test]
fn a_chain_of_receipts() {
    let (first, next) = (predecessor(), second());
    assert_eq!(verify_successor(&first, &next.receipt), Ok(()));
    let skipped = next.with_receipt(|receipt| receipt.number = 3);
    assert!(matches!(
        verify_successor(&first, &skipped.receipt),
        Err(BindingError::Number { field: Field::Number, expected: 2, got: 3 })
    ));
    let forked = next.with_receipt(|receipt| flip(receipt.previous.as_mut().unwrap()));
    assert!(matches!(
        verify_successor(&first, &forked.receipt),
        Err(BindingError::Digest { field: Field::Previous, .. })
    ));
    let stranger = Signed::sign(&auditor(), next.receipt.statement().clone()).unwrap();
    assert!(matches!(verify_successor(&first, &stranger), Err(BindingError::Signer { .. })));
}

#[test]
fn a_provider_does_not_sign_what_a_router_refuses() {
    let served = served();
    let committed = (&served.tree, served.receipt.kv_root);
    let build =
        |stop| receipt::build(&served.offer, served.answer(), stop, committed, Place::FIRST, 1);
    assert!(build(served.stop).is_ok());
    assert_eq!(build(Stop::StopString), Err(BindingError::StopString));
    let long = receipt::Answer { tokens: &[1; 71], text: "", logprobs: &[] };
    assert!(matches!(
        receipt::build(&served.offer, long, Stop::Length, committed, Place::FIRST, 1),
        Err(BindingError::Range { field: Field::OutputTokens, .. })
    ));
}
