//! What `verify` claims to have done, beside what it finds.
#![allow(clippy::unwrap_used, reason = "a failed set-up fails the test")]

mod support;

use peerproof::evidence;
use peerproof::models::Store;
use peerproof::verify::verify;
use peerproof_identity::Keypair;
use peerproof_proof::receipt::{output_hash, text_hash};
use peerproof_wire::evidence::{Evidence, WrongAnswer};
use peerproof_wire::job::client_nonce_hash;
use peerproof_wire::{
    Case, Difference, Digest, Level, Mismatch, ModelId, Offer, Prompt, Receipt, Sampling, Signed,
    Stop,
};

use support::model;

/// A receipt for more tokens than its offer allows: the signature alone convicts.
fn breaks_its_terms(model_id: ModelId) -> Evidence {
    let offer = Offer {
        model_id,
        prompt: Prompt::Text("One, two".into()),
        sampling: Sampling::GREEDY,
        max_tokens: 1,
        stop: vec![],
        level: Level::Full,
        public_nonce: [1; 32],
        client_nonce_hash: client_nonce_hash(&[2; 32]),
        deadline_ms: 60_000,
        pooling: None,
        class: peerproof_wire::Class::Exact,
    };
    let offer = Signed::sign(&Keypair::from_seed(&[3; 32]), offer).unwrap();
    let tokens = vec![5, 6];
    let receipt = Receipt {
        offer_id: offer.id(),
        model_id,
        number: 1,
        previous: None,
        prompt_tokens: 3,
        output_tokens: 2,
        stop: Stop::Length,
        output_hash: output_hash(&tokens),
        text_hash: text_hash("x"),
        transcript_root: Digest::from_bytes([4; 32]),
        leaves: 5,
        kv_root: Digest::from_bytes([6; 32]),
        class: peerproof_wire::Class::Exact,
        issued_unix_ms: 0,
    };
    let receipt = Signed::sign(&Keypair::from_seed(&[5; 32]), receipt).unwrap();
    let mismatch =
        Mismatch { position: 0, what: Difference::Root, expected: vec![1], got: vec![2] };
    let case = Case { offer, receipt, tokens };
    Evidence::WrongAnswer(WrongAnswer { case, mismatch, opening: None, verdicts: vec![] })
}

#[test]
fn what_a_signature_convicts_of_is_not_called_recomputed() {
    let dir = tempfile::tempdir().unwrap();
    let model = model();
    let found = breaks_its_terms(model.id.parse().unwrap());
    let file = evidence::write(&dir.path().join("evidence"), &found).unwrap();
    let empty = Store::new(dir.path().join("models"), "http://127.0.0.1:1");
    for model in [None, Some(model)] {
        let judged = verify(&file, &empty, model).unwrap();
        assert!(judged.proven, "{}", judged.statement);
        assert!(judged.statement.contains("breaks its offer"), "{}", judged.statement);
        assert!(!judged.recomputed, "nothing was run");
    }
}
