//! A signature holds for its bytes, its key and its kind of statement, and for nothing else.

use peerproof_identity::{Domain, Signature};

use super::samples::{self, auditor_key, provider_key, router_key};
use crate::*;

fn check_opens<T: Statement + PartialEq + std::fmt::Debug>(signed: &Signed<T>) {
    let opened = Signed::<T>::open(signed.envelope()).unwrap();
    assert_eq!(&opened, signed);
    assert_eq!(opened.statement(), signed.statement());
    assert_eq!(opened.id(), signed.id());
}

/// Every bit of payload, key and signature.
fn check_tampering<T: Statement + std::fmt::Debug>(signed: &Signed<T>) {
    let envelope = signed.envelope();
    for bit in 0..8 * envelope.payload.len() {
        let mut changed = envelope.clone();
        changed.payload[bit / 8] ^= 1 << (bit % 8);
        let result = Signed::<T>::open(changed);
        assert!(result.is_err(), "{} payload bit {bit}", <T as Message>::NAME);
    }
    for bit in 0..8 * 64 {
        let mut changed = envelope.clone();
        let mut bytes = *changed.signature.as_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        changed.signature = Signature::from_bytes(&bytes).unwrap();
        let error = Signed::<T>::open(changed).unwrap_err();
        assert!(matches!(error, WireError::Signature { .. }), "{error}");
    }
    let changed =
        Envelope { key: peerproof_identity::Keypair::from_seed(&[99; 32]).public(), ..envelope };
    let error = Signed::<T>::open(changed).unwrap_err();
    assert!(matches!(error, WireError::Signature { .. }), "{error}");
}

#[test]
fn what_was_signed_opens() {
    check_opens(&samples::signed_offer());
    check_opens(&samples::signed_receipt());
    check_opens(&samples::signed_verdict(Outcome::Pass));
    check_opens(&samples::signed_verdict(Outcome::Fail(samples::mismatch())));
    check_opens(&samples::signed_announcement());
}

#[test]
fn a_changed_bit_anywhere_is_refused() {
    check_tampering(&samples::signed_offer());
    check_tampering(&samples::signed_receipt());
    check_tampering(&samples::signed_verdict(Outcome::Fail(samples::mismatch())));
    check_tampering(&samples::signed_announcement());
}

/// Each field of a receipt, changed to another allowed value under the old signature.
#[test]
fn a_changed_field_of_a_receipt_is_refused() {
    type Change = fn(&mut Receipt);
    let changes: [(&str, Change); 13] = [
        ("offer_id", |it| it.offer_id = samples::digest(1)),
        ("model_id", |it| it.model_id = ModelId::from_bytes([1; 32])),
        ("number", |it| it.number += 1),
        ("previous", |it| it.previous = Some(samples::digest(1))),
        ("prompt_tokens", |it| it.prompt_tokens += 1),
        ("output_tokens", |it| it.output_tokens += 1),
        ("stop", |it| it.stop = Stop::Length),
        ("output_hash", |it| it.output_hash = samples::digest(1)),
        ("text_hash", |it| it.text_hash = samples::digest(1)),
        ("transcript_root", |it| it.transcript_root = samples::digest(1)),
        ("kv_root", |it| it.kv_root = samples::digest(1)),
        ("leaves", |it| it.leaves += 1),
        ("issued_unix_ms", |it| it.issued_unix_ms += 1),
    ];
    for (field, change) in changes {
        let mut receipt = samples::receipt();
        change(&mut receipt);
        let forged =
            Envelope { payload: receipt.encode().unwrap(), ..samples::signed_receipt().envelope() };
        let error = Signed::<Receipt>::open(forged).unwrap_err();
        assert!(matches!(error, WireError::Signature { .. }), "{field}: {error}");
        assert_eq!(error.fault(), Fault::Theirs);
    }
}

/// Opens `payload`, valid for `T`, under signatures made in each domain.
fn check_domains<T: Statement + std::fmt::Debug>(statement: &T) {
    let payload = statement.encode().unwrap();
    let key = router_key();
    for domain in Domain::ALL {
        let envelope = Envelope {
            payload: payload.clone(),
            key: key.public(),
            signature: key.sign(domain, &payload),
        };
        match Signed::<T>::open(envelope) {
            Ok(_) => assert_eq!(domain, T::DOMAIN),
            Err(WireError::Signature { .. }) => assert_ne!(domain, T::DOMAIN),
            Err(error) => panic!("{domain:?}: {error}"),
        }
    }
}

#[test]
fn a_signature_of_another_kind_never_opens() {
    check_domains(&samples::offer());
    check_domains(&samples::receipt());
    check_domains(&samples::verdict(Outcome::Pass));
    check_domains(&samples::announcement());
}

/// Whole envelopes offered as another statement, in bare form and in frames.
#[test]
fn an_envelope_of_another_kind_never_opens() {
    let offer = samples::signed_offer().envelope();
    let receipt = samples::signed_receipt().envelope();
    let verdict = samples::signed_verdict(Outcome::Pass).envelope();
    let announcement = samples::signed_announcement().envelope();
    for envelope in [&receipt, &verdict, &announcement] {
        assert!(Signed::<Offer>::open(envelope.clone()).is_err());
    }
    for envelope in [&offer, &verdict, &announcement] {
        assert!(Signed::<Receipt>::open(envelope.clone()).is_err());
    }
    for envelope in [&offer, &receipt, &announcement] {
        assert!(Signed::<Verdict>::open(envelope.clone()).is_err());
    }
    for envelope in [&offer, &receipt, &verdict] {
        assert!(Signed::<Announcement>::open(envelope.clone()).is_err());
    }
}

#[test]
fn ids_depend_on_kind_key_and_payload() {
    let receipt = samples::signed_receipt();
    let same_key = Receipt { number: 8, ..samples::receipt() };
    let same_payload = Signed::sign(&auditor_key(), samples::receipt()).unwrap();
    assert_ne!(same_payload.id(), receipt.id());
    let same_key = Signed::sign(&provider_key(), same_key).unwrap();
    assert_ne!(same_key.id(), receipt.id());
    assert_eq!(Signed::sign(&provider_key(), samples::receipt()).unwrap().id(), receipt.id());
}

#[test]
fn an_oversized_payload_is_refused_unread() {
    let key = provider_key();
    let payload = vec![0xff; limits::MAX_RECEIPT_BYTES + 1];
    let envelope =
        Envelope { signature: key.sign(Domain::Receipt, &payload), key: key.public(), payload };
    let expected = WireError::OverLimit {
        place: "receipt",
        limit: limits::MAX_RECEIPT_BYTES as u64,
        got: limits::MAX_RECEIPT_BYTES as u64 + 1,
    };
    assert_eq!(Signed::<Receipt>::open(envelope).unwrap_err(), expected);
}

#[test]
fn a_statement_over_a_limit_is_not_signed() {
    let offer = Offer { max_tokens: 0, ..samples::offer() };
    let error = Signed::sign(&router_key(), offer).unwrap_err();
    assert_eq!(error.fault(), Fault::Ours);
    assert_eq!(error.to_string(), "can't send this: offer.max_tokens: expected at least 1, got 0");
}
