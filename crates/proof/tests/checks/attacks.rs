//! Each attack on an answer, by name, and what it meets. Attacks on the proof
//! itself are in `forgeries`.

use peerproof_proof::audit::{AuditError, Findings, audit, recompute};
use peerproof_proof::challenge::{ChallengeError, verify_openings};
use peerproof_proof::execute::Execute;
use peerproof_proof::receipt::{BindingError, Field, verify_bindings};
use peerproof_proof::sampling_seed;
use peerproof_proof::transcript::Transcript;
use peerproof_wire::job::client_nonce_hash;
use peerproof_wire::{
    Challenge, Difference, Digest, Leaf, LogitBias, Offer, Openings, Outcome, Sampling, Stop,
};

use crate::support::{
    END, Quirk, Served, Toy, VOCABULARY, auditor, commit, long_offer, offer, provider,
    reporting_offer, serve, sign,
};

pub(crate) fn findings(served: &Served, openings: Option<&Openings>) -> Findings {
    audit(&Toy::default(), &served.case(), openings, &auditor().public()).unwrap()
}

/// What the audit names first: position and kind.
pub(crate) fn caught(served: &Served, openings: Option<&Openings>) -> (u32, Difference) {
    match findings(served, openings).outcome {
        Outcome::Fail(mismatch) => (mismatch.position, mismatch.what),
        other => panic!("the attack passed the audit: {other:?}"),
    }
}

pub(crate) fn bound(served: &Served) -> Result<(), BindingError> {
    let key = provider().public();
    verify_bindings(&served.offer, &served.receipt, &key, served.answer(), &served.commitments)
}

pub(crate) fn opened(
    served: &Served,
    challenge: &Challenge,
    openings: &Openings,
) -> Result<(), ChallengeError> {
    let Served { offer, receipt, tokens, commitments, .. } = served;
    verify_openings(offer, receipt, tokens, commitments, challenge, openings)
}

/// Opens everything a challenge draws and checks it.
pub(crate) fn challenged(served: &Served) -> Result<(), ChallengeError> {
    let challenge = served.challenge(true);
    opened(served, &challenge, &served.respond(&challenge))
}

pub(crate) fn all_positions(served: &Served) -> Openings {
    let positions = (0..served.receipt.leaves - 1).collect::<Vec<_>>();
    let mut all = served.openings();
    all.openings.clear();
    for some in positions.chunks(64) {
        let challenge = Challenge { positions: some.to_vec(), ..served.challenge(false) };
        all.openings.extend(served.respond(&challenge).openings);
    }
    all
}

fn recommit(served: &Served, leaves: Vec<Leaf>) -> Served {
    let Served { offer, tokens, text, stop, .. } = served;
    commit(&provider(), offer, leaves, tokens.clone(), text, *stop)
}

#[test]
fn a_layer_tampered_with_at_one_position_and_mended_before_the_end() {
    for position in [0, 5, 20] {
        let served = serve(&Toy::with(Quirk::NudgedLayer(position)), &sign(long_offer()));
        bound(&served).unwrap();
        let all = all_positions(&served);
        assert_eq!(caught(&served, Some(&all)), (position, Difference::Layers));
        assert_eq!(caught(&served, None).1, Difference::Root);
    }
}

#[test]
fn rounded_keys_and_values() {
    let served = serve(&Toy::with(Quirk::RoundedKv), &sign(long_offer()));
    bound(&served).unwrap();
    assert_eq!(caught(&served, None), (served.receipt.leaves - 1, Difference::KeysValues));
}

#[test]
fn another_model_or_a_harsher_quantisation() {
    let served = serve(&Toy::with(Quirk::OtherWeights), &sign(long_offer()));
    assert_eq!(bound(&served), Ok(()));
    let (_, what) = caught(&served, None);
    assert_eq!(what, Difference::Token);
    let hashes = Openings { openings: vec![], ..served.openings() };
    assert_eq!(caught(&served, Some(&hashes)), (0, Difference::Leaf));
    assert_eq!(caught(&served, Some(&all_positions(&served))), (0, Difference::State));
}

#[test]
fn a_truncated_context_differs_where_the_context_ends() {
    let served = serve(&Toy::with(Quirk::ShortContext), &sign(long_offer()));
    assert_eq!(caught(&served, Some(&all_positions(&served))), (4, Difference::State));
}

#[test]
fn one_state_nudged_at_one_position_is_certain_to_be_found() {
    let honest = serve(&Toy::default(), &sign(long_offer()));
    for position in 0..honest.receipt.leaves - 1 {
        let served = serve(&Toy::with(Quirk::NudgedState(position)), &honest.offer);
        assert_eq!(served.tokens, honest.tokens);
        assert_eq!(caught(&served, None), (0, Difference::Root));
        let hashes = Openings { openings: vec![], ..served.openings() };
        assert_eq!(caught(&served, Some(&hashes)), (position, Difference::Leaf));
        let all = Openings { leaf_hashes: vec![], ..all_positions(&served) };
        assert_eq!(caught(&served, Some(&all)), (position, Difference::State));
    }
}

#[test]
fn logits_nudged_without_changing_the_token() {
    let honest = serve(&Toy::default(), &sign(long_offer()));
    let position = honest.prompt_tokens + 5;
    let served = serve(&Toy::with(Quirk::NudgedLogits(position)), &honest.offer);
    assert_eq!(served.tokens, honest.tokens);
    assert_eq!(caught(&served, Some(&all_positions(&served))), (position, Difference::Logits));
}

#[test]
fn hidden_system_prompt() {
    let served = serve(&Toy::with(Quirk::HiddenSystemPrompt), &sign(long_offer()));
    assert_eq!(bound(&served), Ok(()));
    assert_eq!(caught(&served, None).1, Difference::Prompt);
    assert_eq!(caught(&served, Some(&all_positions(&served))), (0, Difference::Prompt));
}

#[test]
fn hidden_system_prompt_of_the_same_length() {
    let offer = sign(long_offer());
    let mut other = long_offer();
    other.prompt = peerproof_wire::Prompt::Text("what is false".into());
    let swapped = serve(&Toy::default(), &sign(other));
    let answer = recompute_as(&offer, &swapped);
    assert_eq!(answer.prompt_tokens, serve(&Toy::default(), &offer).prompt_tokens);
    assert_eq!(caught(&answer, Some(&all_positions(&answer))).1, Difference::Prompt);
    caught(&answer, None);
}

/// Another job's answer under this offer, digests keyed rightly.
fn recompute_as(offer: &peerproof_wire::Signed<Offer>, other: &Served) -> Served {
    let toy = Toy::default();
    let prompt = toy.prompt_tokens(&other.offer).unwrap();
    let (key, seed) = (offer.id(), sampling_seed(offer));
    let mut leaves = Vec::new();
    let mut keep = |step| leaves.push(Leaf::from(step));
    toy.replay(offer, &key, &seed, &prompt, &other.tokens, &mut keep).unwrap();
    commit(&provider(), offer, leaves, other.tokens.clone(), &other.text, other.stop)
}

#[test]
fn rules_of_sampling_left_out() {
    let penalised = Sampling { presence_q16: 1 << 16, ..long_offer().sampling };
    let bias = (0..VOCABULARY).step_by(3).map(|token| LogitBias { token, bias_q16: 1 << 15 });
    let biased = Sampling { bias: bias.collect(), ..long_offer().sampling };
    let cut = Sampling { min_p_q16: 1 << 16, ..long_offer().sampling };
    for (sampling, quirk) in
        [(penalised, Quirk::NoPenalty), (biased, Quirk::NoBias), (cut, Quirk::NoMinP)]
    {
        let offer = sign(Offer { sampling, ..long_offer() });
        let honest = serve(&Toy::default(), &offer);
        assert_eq!(findings(&honest, None).outcome, Outcome::Pass, "{quirk:?}");
        let served = serve(&Toy::with(quirk), &offer);
        assert_eq!(bound(&served), Ok(()), "{quirk:?}");
        let (position, what) = caught(&served, None);
        assert_eq!(what, Difference::Token, "{quirk:?}");
        let first = honest.tokens.iter().zip(&served.tokens).position(|(a, b)| a != b).unwrap();
        assert_eq!(position + 1, honest.prompt_tokens + first as u32, "{quirk:?}");
    }
}

/// No leaf holds what is reported, but the receipt does, and the model says what it must be.
#[test]
fn probabilities_reported_falsely() {
    let offer = sign(reporting_offer());
    let honest = serve(&Toy::default(), &offer);
    assert_eq!(findings(&honest, None).outcome, Outcome::Pass);
    assert_eq!(bound(&honest), Ok(()));
    assert_eq!(honest.logprobs.len(), honest.tokens.len());
    for at in [honest.prompt_tokens - 1, honest.prompt_tokens + 7, honest.receipt.leaves - 2] {
        for quirk in [Quirk::NudgedReport(at), Quirk::SwappedReport(at), Quirk::MisspeltReport(at)]
        {
            let served = serve(&Toy::with(quirk), &offer);
            assert_eq!((&served.tokens, &served.text), (&honest.tokens, &honest.text));
            // Whoever signs what it reports is found out by recomputation,
            assert_eq!(bound(&served), Ok(()), "{quirk:?}");
            let last = honest.prompt_tokens + honest.tokens.len() as u32 - 1;
            assert_eq!(caught(&served, None), (last, Difference::Text), "{quirk:?}");
            // whoever signs something else by the router alone.
            let shown = Served { logprobs: served.logprobs, ..honest.clone() };
            let refused = bound(&shown).unwrap_err();
            let field = Field::TextHash;
            assert!(matches!(refused, BindingError::Digest { field: got, .. } if got == field));
        }
    }
}

#[test]
fn probabilities_left_out_or_added() {
    let text_hash = |served: &Served| match bound(served).unwrap_err() {
        BindingError::Digest { field, .. } => assert_eq!(field, Field::TextHash),
        other => panic!("{other}"),
    };
    let honest = serve(&Toy::default(), &sign(reporting_offer()));
    let mut shorter = honest.clone();
    shorter.logprobs.pop();
    text_hash(&shorter);
    text_hash(&Served { logprobs: vec![], ..honest.clone() });
    let Served { offer, leaves, tokens, text, stop, .. } = honest;
    let silent = commit(&provider(), &offer, leaves, tokens, &text, stop);
    assert_eq!(caught(&silent, None).1, Difference::Text);
}

#[test]
fn seed_of_the_providers_own() {
    let served = serve(&Toy::with(Quirk::OwnSeed), &sign(long_offer()));
    assert_eq!(caught(&served, Some(&all_positions(&served))).1, Difference::Draw);
    caught(&served, None);
    assert!(matches!(challenged(&served), Err(ChallengeError::Number { .. })));
}

#[test]
fn biased_draws() {
    let served = serve(&Toy::with(Quirk::BiasedDraws), &sign(long_offer()));
    let first = served.prompt_tokens - 1;
    assert_eq!(caught(&served, Some(&all_positions(&served))), (first, Difference::Draw));
    assert!(matches!(challenged(&served), Err(ChallengeError::Number { got: 3, .. })));
}

#[test]
fn greedy_where_a_temperature_was_asked_for() {
    let served = serve(&Toy::with(Quirk::NoTemperature), &sign(offer()));
    caught(&served, None);
    assert!(matches!(challenged(&served), Err(ChallengeError::Number { got: 0, .. })));
}

#[test]
fn a_draft_model_writes_and_the_true_model_only_reads() {
    let offer = sign(long_offer());
    let draft = serve(&Toy::with(Quirk::OtherWeights), &offer);
    let served = recompute_as(&offer, &draft);
    // Every leaf is what the true model says to these tokens: the root is right.
    let recomputation = recompute(&Toy::default(), &offer, &served.tokens).unwrap();
    assert_eq!(recomputation.tree().map(|tree| tree.root()), Some(served.tree.root()));
    assert_eq!(bound(&served), Ok(()));
    let (position, what) = caught(&served, None);
    assert_eq!(what, Difference::Token);
    assert!(position >= served.prompt_tokens - 1);
    // A router without the model sees it too, where it looks.
    assert!(matches!(challenged(&served), Err(ChallengeError::Token { what: "next token", .. })));
    // Claiming that the model drew them is found by the audit.
    let mut leaves = served.leaves.clone();
    for (leaf, token) in leaves.iter_mut().filter(|leaf| leaf.drawn.is_some()).zip(&served.tokens) {
        leaf.drawn.as_mut().unwrap().next = *token;
    }
    let claimed = recommit(&served, leaves);
    assert_eq!(challenged(&claimed), Ok(()));
    assert_eq!(caught(&claimed, None), (position, Difference::Token));
    assert_eq!(caught(&claimed, Some(&all_positions(&claimed))), (position, Difference::Token));
}

#[test]
fn a_token_the_model_does_not_know_is_no_way_out_of_an_audit() {
    let honest = serve(&Toy::default(), &sign(long_offer()));
    for index in [0, 1, 40, 69] {
        let mut tokens = honest.tokens.clone();
        tokens[index] = 1_000_000;
        let Served { offer, leaves, text, stop, .. } = honest.clone();
        let served = commit(&provider(), &offer, leaves, tokens, &text, stop);
        assert_eq!(bound(&served), Ok(()));
        let position = served.prompt_tokens - 1 + index as u32;
        assert_eq!(caught(&served, None), (position, Difference::Token));
    }
}

/// The beginning of an honest answer, closed as if it had ended.
fn cut(served: &Served, tokens: usize, stop: Stop) -> Served {
    let leaves = served.leaves[..served.prompt_tokens as usize + tokens - 1].to_vec();
    let ending = Toy::default().ending(&served.offer, &served.tokens[..tokens]).unwrap();
    let tokens = served.tokens[..tokens].to_vec();
    commit(&provider(), &served.offer, leaves, tokens, &ending.text, stop)
}

#[test]
fn early_stop_claimed_as_the_length_limit() {
    let served = cut(&serve(&Toy::default(), &sign(long_offer())), 20, Stop::Length);
    assert_eq!(bound(&served), Err(BindingError::StopLength { expected: 70, got: 20 }));
    assert_eq!(caught(&served, None), (served.prompt_tokens + 19, Difference::Stop));
}

#[test]
fn early_stop_claimed_as_a_stop_string() {
    let honest = serve(&Toy::default(), &sign(long_offer()));
    let served = cut(&honest, 20, Stop::StopString);
    assert_eq!(bound(&served), Err(BindingError::StopString));
    caught(&served, None);
}

#[test]
fn early_stop_claimed_as_the_models_own() {
    let served = cut(&serve(&Toy::default(), &sign(long_offer())), 20, Stop::EndOfText);
    assert_eq!(bound(&served), Ok(()));
    assert_eq!(challenged(&served), Ok(()));
    let Outcome::Fail(mismatch) = findings(&served, None).outcome else { panic!("passed") };
    assert_eq!(mismatch.what, Difference::Stop);
    assert_eq!((mismatch.expected, mismatch.got), (vec![], vec![1]));
}

#[test]
fn padding_past_the_end() {
    let short = (0..=u8::MAX)
        .map(|nonce| Offer { public_nonce: [nonce; 32], ..offer() })
        .map(|offer| serve(&Toy::default(), &sign(offer)))
        .find(|served| served.stop == Stop::EndOfText && served.tokens.len() < 60)
        .unwrap();
    assert_eq!(short.tokens.last(), Some(&END));
    // The model itself, run on past its end up to the limit.
    let toy = Toy::default();
    let mut tokens = short.tokens.clone();
    let prompt = toy.prompt_tokens(&short.offer).unwrap();
    let (key, seed) = (short.offer.id(), sampling_seed(&short.offer));
    let mut leaves = short.leaves.clone();
    while tokens.len() < 70 {
        let read = [&prompt[..], &tokens[..]].concat();
        let step = toy.step(&short.offer, &key, &seed, &read, Some(tokens.len() as u32));
        tokens.push(step.drawn.as_ref().unwrap().next);
        leaves.push(step.into());
    }
    let padded = commit(&provider(), &short.offer, leaves, tokens, &short.text, Stop::Length);
    assert_eq!(bound(&padded), Ok(()));
    assert_eq!(challenged(&padded), Ok(()));
    let end = short.prompt_tokens + short.tokens.len() as u32 - 1;
    assert_eq!(caught(&padded, None), (end, Difference::Length));
}

#[test]
fn over_billed_prompt() {
    let honest = serve(&Toy::default(), &sign(long_offer()));
    let billed = honest.with_receipt(|receipt| receipt.prompt_tokens += 1);
    let leaves = honest.receipt.leaves;
    assert_eq!(
        bound(&billed),
        Err(BindingError::Number {
            field: Field::Leaves,
            expected: u64::from(leaves) + 1,
            got: leaves.into()
        })
    );
    let billed = honest.with_receipt(|receipt| {
        receipt.prompt_tokens += 1;
        receipt.leaves += 1;
    });
    assert_eq!(bound(&billed), Ok(()));
    assert_eq!(caught(&billed, None), (honest.prompt_tokens - 1, Difference::Prompt));
}

#[test]
fn leaves_miscounted_under_the_right_root() {
    let honest = serve(&Toy::default(), &sign(long_offer()));
    for leaves in [honest.receipt.leaves - 1, honest.receipt.leaves + 1] {
        let miscounted = honest.with_receipt(|receipt| receipt.leaves = leaves);
        assert!(matches!(
            bound(&miscounted),
            Err(BindingError::Number { field: Field::Leaves, .. })
        ));
        let position = leaves.min(honest.receipt.leaves) - 1;
        assert_eq!(caught(&miscounted, None), (position, Difference::Length));
    }
}

#[test]
fn over_billed_answer() {
    let honest = serve(&Toy::default(), &sign(Offer { max_tokens: 80, ..offer() }));
    let billed = honest.with_receipt(|receipt| {
        receipt.output_tokens += 1;
        receipt.leaves += 1;
    });
    assert!(matches!(bound(&billed), Err(BindingError::Number { field: Field::OutputTokens, .. })));
    assert_eq!(caught(&billed, None).1, Difference::Length);
}

#[test]
fn more_tokens_than_the_offer_allows() {
    let honest = serve(&Toy::default(), &sign(long_offer()));
    let offer = sign(Offer { max_tokens: 69, ..long_offer() });
    let served = recompute_as(&offer, &honest);
    assert!(matches!(
        bound(&served),
        Err(BindingError::Range { field: Field::OutputTokens, most: 69, got: 70, .. })
    ));
    caught(&served, None);
}

#[test]
fn cached_answer_with_leaves_keyed_by_another_offer() {
    let first = serve(&Toy::default(), &sign(long_offer()));
    let again = sign(Offer { client_nonce_hash: client_nonce_hash(&[9; 32]), ..long_offer() });
    assert_eq!(sampling_seed(&again), sampling_seed(&first.offer));
    let replayed = commit(
        &provider(),
        &again,
        first.leaves.clone(),
        first.tokens.clone(),
        &first.text,
        first.stop,
    );
    assert_eq!(bound(&replayed), Ok(()));
    assert_eq!(caught(&replayed, None), (0, Difference::Root));
    let hashes = Openings { openings: vec![], leaf_hashes: replayed.tree.hashes().to_vec() };
    assert_eq!(caught(&replayed, Some(&hashes)), (0, Difference::Leaf));
}

#[test]
fn receipt_of_another_job() {
    let first = serve(&Toy::default(), &sign(long_offer()));
    let again = sign(Offer { client_nonce_hash: client_nonce_hash(&[9; 32]), ..long_offer() });
    let wrong = Served { offer: again, ..first };
    assert!(matches!(bound(&wrong), Err(BindingError::Digest { field: Field::OfferId, .. })));
    let refused = audit(&Toy::default(), &wrong.case(), None, &auditor().public());
    assert!(matches!(
        refused,
        Err(AuditError::Case(BindingError::Digest { field: Field::OfferId, .. }))
    ));
}

#[test]
fn text_altered_after_decoding() {
    let honest = serve(&Toy::default(), &sign(long_offer()));
    let altered = Served { text: honest.text.to_uppercase(), ..honest.clone() };
    assert!(matches!(bound(&altered), Err(BindingError::Digest { field: Field::TextHash, .. })));
    let Served { offer, leaves, tokens, stop, .. } = honest;
    let signed = commit(&provider(), &offer, leaves, tokens, &altered.text, stop);
    assert_eq!(bound(&signed), Ok(()));
    assert_eq!(caught(&signed, None), (signed.receipt.leaves - 1, Difference::Text));
}

#[test]
fn token_altered_on_the_way() {
    let mut served = serve(&Toy::default(), &sign(long_offer()));
    served.tokens[7] ^= 1;
    assert!(matches!(bound(&served), Err(BindingError::Digest { field: Field::OutputHash, .. })));
    let refused = audit(&Toy::default(), &served.case(), None, &auditor().public());
    assert!(matches!(
        refused,
        Err(AuditError::Case(BindingError::Digest { field: Field::OutputHash, .. }))
    ));
}

#[test]
fn leaves_skipped_or_doubled_by_the_provider() {
    let served = serve(&Toy::default(), &sign(long_offer()));
    let mut transcript = Transcript::new();
    transcript.push(&served.leaves[0]).unwrap();
    for wrong in [0, 2] {
        assert!(transcript.push(&served.leaves[wrong]).is_err());
        assert_eq!(transcript.leaves(), 1);
    }
}

#[test]
fn junk_openings_do_not_shield_a_cheat_or_blame_an_honest_one() {
    let cheat = serve(&Toy::with(Quirk::NudgedState(3)), &sign(long_offer()));
    let honest = serve(&Toy::default(), &cheat.offer);
    // The honest one's openings do not lead to the cheat's root: passed over.
    assert_eq!(caught(&cheat, Some(&honest.openings())), (0, Difference::Root));
    assert_eq!(findings(&honest, Some(&cheat.openings())).outcome, Outcome::Pass);
    // Nor does a forged leaf move the blame to another position.
    let mut forged = all_positions(&cheat);
    forged.openings.truncate(1);
    forged.leaf_hashes.clear();
    forged.openings[0].leaf.state = Digest::from_bytes([0; 32]);
    assert_eq!(caught(&cheat, Some(&forged)), (0, Difference::Root));
}
