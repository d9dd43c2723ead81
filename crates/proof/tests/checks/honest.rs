//! An honest provider passes every check, whoever makes it.

use peerproof_proof::audit::{audit, recompute};
use peerproof_proof::challenge::verify_openings;
use peerproof_proof::receipt::verify_bindings;
use peerproof_proof::{sampling_seed, verdict};
use peerproof_wire::{
    ChatMessage, Constraint, Form, LogitBias, Offer, Outcome, Prompt, Sampling, Stop,
};

use crate::support::{NONCE, Served, Toy, auditor, long_offer, offer, provider, serve, sign};

fn check_all(served: &Served) {
    assert_eq!(served.built(), *served.receipt.statement());
    let key = provider().public();
    verify_bindings(&served.offer, &served.receipt, &key, served.answer(), &served.commitments)
        .unwrap();
    for leaf_hashes in [false, true] {
        let challenge = served.challenge(leaf_hashes);
        let opened = served.respond(&challenge);
        verify_openings(
            &served.offer,
            &served.receipt,
            &served.tokens,
            &served.commitments,
            &challenge,
            &opened,
        )
        .unwrap();
    }
    let case = served.case();
    let findings = audit(&Toy::default(), &case, None, &auditor().public()).unwrap();
    assert_eq!(findings.outcome, Outcome::Pass);
    let recomputation = recompute(&Toy::default(), &served.offer, &served.tokens).unwrap();
    assert_eq!(recomputation.tree().as_ref(), Some(&served.tree));
    assert_eq!(recomputation.leaves(), served.leaves);
    assert_eq!(recomputation.first_wrong_commitment(&served.commitments), None);
    let verdict = verdict::build(&auditor(), &case, findings, None, 2_000).unwrap();
    verdict::verify(&verdict, &auditor().public(), &served.offer, &served.receipt).unwrap();
    verdict::verify_work(&verdict, &served.receipt, &recomputation).unwrap();
}

#[test]
fn every_kind_of_prompt_sampling_and_ending_passes() {
    let chat = vec![
        ChatMessage { role: "system".into(), content: "be brief".into() },
        ChatMessage { role: "user".into(), content: "hello".into() },
    ];
    let mut endings = Vec::new();
    for prompt in [Prompt::Text("x".into()), Prompt::Chat(chat), Prompt::Tokens(vec![1, 2, 3])] {
        for temperature_q16 in [0, 1 << 15] {
            for max_tokens in [1, 2, 31, 32, 33, 150] {
                for stop in [vec![], vec!["a".to_owned(), "bc".into()]] {
                    let sampling = Sampling { temperature_q16, ..Sampling::GREEDY };
                    let prompt = prompt.clone();
                    let offer = Offer { prompt, sampling, max_tokens, stop, ..offer() };
                    let served = serve(&Toy::default(), &sign(offer));
                    check_all(&served);
                    endings.push(served.stop);
                }
            }
        }
    }
    for stop in [Stop::EndOfText, Stop::Length, Stop::StopString] {
        assert!(endings.contains(&stop), "no answer ended by {stop:?}");
    }
}

#[test]
fn running_commitments_come_every_32_tokens() {
    let served = serve(&Toy::default(), &sign(long_offer()));
    let prompt = served.prompt_tokens;
    let leaves: Vec<u32> = served.commitments.iter().map(|one| one.leaves).collect();
    assert_eq!(leaves, [prompt + 31, prompt + 63]);
}

#[test]
fn the_seed_is_the_same_for_another_router_level_deadline_and_client_nonce() {
    let one = offer();
    let mut other = one.clone();
    other.level = peerproof_wire::Level::Receipt;
    other.deadline_ms += 1;
    other.client_nonce_hash = peerproof_wire::job::client_nonce_hash(&[1; 32]);
    assert_ne!(other.client_nonce_hash, peerproof_wire::job::client_nonce_hash(&NONCE));
    assert_eq!(sampling_seed(&one), sampling_seed(&other));
}

#[test]
fn the_seed_covers_everything_else() {
    let one = sampling_seed(&offer());
    let biased = |token, bias_q16| vec![LogitBias { token, bias_q16 }];
    let constrained = |rules: &str, form| Constraint { rules: rules.into(), form };
    let changes: [&dyn Fn(&mut Offer); 23] = [
        &|offer| offer.model_id = peerproof_wire::ModelId::from_bytes([0; 32]),
        &|offer| offer.prompt = Prompt::Text("what is true".into()),
        &|offer| offer.prompt = Prompt::Tokens(vec![1]),
        &|offer| {
            let content = "what is true?".into();
            offer.prompt = Prompt::Chat(vec![ChatMessage { role: "user".into(), content }]);
        },
        &|offer| offer.sampling.temperature_q16 += 1,
        &|offer| offer.sampling.top_k += 1,
        &|offer| offer.sampling.top_p_q16 -= 1,
        &|offer| offer.max_tokens += 1,
        &|offer| offer.stop = vec!["ab".into()],
        &|offer| offer.stop = vec!["a".into(), "b".into()],
        &|offer| offer.public_nonce[31] ^= 1,
        &|offer| offer.sampling.min_p_q16 = 1,
        &|offer| offer.sampling.repetition_q16 = 1,
        &|offer| offer.sampling.presence_q16 = 1,
        &|offer| offer.sampling.presence_q16 = -1,
        &|offer| offer.sampling.frequency_q16 = 1,
        &|offer| offer.sampling.bias = biased(0, 1),
        &|offer| offer.sampling.bias = biased(1, 1),
        &|offer| offer.sampling.bias = biased(0, -1),
        &|offer| offer.sampling.constraint = Some(constrained("a", Form::JsonObject)),
        &|offer| offer.sampling.constraint = Some(constrained("a", Form::JsonSchema("{}".into()))),
        &|offer| {
            offer.sampling.constraint = Some(constrained("a", Form::Regex("{}".into())));
        },
        &|offer| offer.sampling.constraint = Some(constrained("b", Form::JsonObject)),
    ];
    let mut seeds = vec![one];
    for change in changes {
        let mut changed = offer();
        change(&mut changed);
        seeds.push(sampling_seed(&changed));
    }
    let distinct: std::collections::BTreeSet<_> = seeds.iter().collect();
    assert_eq!(distinct.len(), seeds.len());
}

#[test]
fn two_providers_and_a_failover_have_one_root() {
    let offer = sign(long_offer());
    let (one, other) = (serve(&Toy::default(), &offer), serve(&Toy::default(), &offer));
    assert_eq!(one.tree.root(), other.tree.root());
    // Whoever continues replays what was delivered: its leaves are the first one's.
    let resumed = recompute(&Toy::default(), &offer, &one.tokens[..10]).unwrap();
    assert_eq!(resumed.leaves(), &one.leaves[..resumed.leaves().len()]);
    assert_eq!(resumed.ending().stop, None);
    assert_eq!(resumed.tree(), None);
}
