//! Embeddings: the honest one passes, and no other vector does.

use peerproof_proof::audit::audit;
use peerproof_proof::challenge::verify_openings;
use peerproof_proof::receipt::{BindingError, Field, verify_bindings, verify_terms};
use peerproof_proof::{Execute, embedding, state_digest};
use peerproof_wire::job::Pooling;
use peerproof_wire::{Difference, Leaf, Offer, Outcome, Prompt, Sampling, Signed, Stop};

use crate::support::{Served, Toy, auditor, commit, offer, provider, sign};

fn asked() -> Signed<Offer> {
    sign(Offer {
        prompt: Prompt::Tokens(vec![3, 1, 2, 5]),
        sampling: Sampling::GREEDY,
        stop: vec![],
        max_tokens: 40,
        pooling: Some(Pooling::Mean),
        ..offer()
    })
}

/// Serves an embedding, with leaves and vector as they come out of `meddle`.
fn serve(meddle: impl FnOnce(&mut Vec<Leaf>, &mut Vec<u32>)) -> Served {
    let (toy, offer) = (Toy::default(), asked());
    let prompt = toy.prompt_tokens(&offer).unwrap();
    let mut leaves = Vec::new();
    let (mut vector, _) =
        toy.embed(&offer, &offer.id(), &prompt, &mut |step| leaves.push(Leaf::from(step))).unwrap();
    meddle(&mut leaves, &mut vector);
    let text = embedding::text(&vector);
    commit(&provider(), &offer, leaves, vector, &text, Stop::EndOfText)
}

fn outcome(served: &Served) -> Outcome {
    audit(&Toy::default(), &served.case(), None, &auditor().public()).unwrap().outcome
}

fn binds(served: &Served) -> Result<(), BindingError> {
    let key = provider().public();
    verify_bindings(&served.offer, &served.receipt, &key, served.answer(), &[])
}

#[test]
fn an_honest_embedding_passes_every_check() {
    let served = serve(|_, _| {});
    assert_eq!(served.receipt.leaves, served.receipt.prompt_tokens + 1);
    assert_eq!(served.built(), *served.receipt.statement());
    binds(&served).unwrap();
    assert_eq!(outcome(&served), Outcome::Pass);
    let challenge = served.challenge(true);
    let opened = served.respond(&challenge);
    verify_openings(&served.offer, &served.receipt, &served.tokens, &[], &challenge, &opened)
        .unwrap();
}

#[test]
fn another_vector_fails_the_audit_at_the_component() {
    let served = serve(|_, vector| vector[2] += 1);
    binds(&served).unwrap();
    let Outcome::Fail(mismatch) = outcome(&served) else { panic!("it passed") };
    assert_eq!((mismatch.what, mismatch.position), (Difference::Token, 3));
    assert_ne!(mismatch.expected, mismatch.got);
    for change in [
        Vec::clear as fn(&mut Vec<u32>),
        |vector| vector.push(1 << 23),
        |vector| {
            vector.truncate(5);
        },
    ] {
        let served = serve(|_, vector| change(vector));
        assert!(served.tokens.is_empty() || matches!(outcome(&served), Outcome::Fail(_)));
    }
}

#[test]
fn the_states_of_another_model_fail_the_audit() {
    let served = serve(|leaves, _| {
        leaves[1].state = state_digest(&asked().id(), &[1, 2, 3]);
    });
    let Outcome::Fail(_) = outcome(&served) else { panic!("it passed") };
    let served = serve(|leaves, _| leaves[0].token ^= 1);
    let Outcome::Fail(_) = outcome(&served) else { panic!("it passed") };
}

#[test]
fn text_that_is_not_the_vectors_breaks_the_bindings() {
    let honest = serve(|_, _| {});
    let text = "1 2 3";
    let other = commit(
        &provider(),
        &honest.offer,
        honest.leaves.clone(),
        honest.tokens.clone(),
        text,
        Stop::EndOfText,
    );
    let error = binds(&other).unwrap_err();
    assert!(matches!(error, BindingError::Digest { field: Field::TextHash, .. }), "{error}");
    assert!(matches!(outcome(&other), Outcome::Fail(_)));
}

#[test]
fn a_receipt_for_text_is_none_for_an_embedding() {
    let served = serve(|_, _| {});
    let as_length = served.with_receipt(|receipt| receipt.stop = Stop::Length);
    assert!(matches!(
        verify_terms(&as_length.offer, &as_length.receipt),
        Err(BindingError::StopEmbedding { got: Stop::Length })
    ));
    let as_text = served.with_receipt(|receipt| receipt.leaves += 1);
    assert!(matches!(
        verify_terms(&as_text.offer, &as_text.receipt),
        Err(BindingError::Number { field: Field::Leaves, .. })
    ));
}
