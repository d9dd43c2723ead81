//! Answers under constraints, on the default model: they conform, they are the
//! same in any company, and an audit tells who followed the constraint.

#[path = "support/schema.rs"]
mod schema;
mod support;

use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock, mpsc};

use peerproof_engine::constraint::{self, RULES};
use peerproof_engine::execute::Replayer;
use peerproof_engine::model::Model;
use peerproof_engine::service::{Event, Generated, Job, Refusal, Service, ServiceOptions};
use peerproof_engine::transformer::LoadOptions;
use peerproof_identity::Keypair;
use peerproof_proof::{AuditError, Step, Transcript, audit, receipt, sampling_seed};
use peerproof_wire::audit::Difference;
use peerproof_wire::{
    Case, ChatMessage, Constraint, Digest, Form, Leaf, Level, LogitBias, Offer, Outcome, Prompt,
    Receipt, Sampling, Signed, Stop,
};
use serde_json::Value;

static MODEL: LazyLock<Arc<Model>> = LazyLock::new(|| {
    Model::open(support::real_model(), &LoadOptions::default()).expect("the default model")
});

static SERVICE: LazyLock<Service> = LazyLock::new(|| service(&ServiceOptions::default()));

static REPLAYER: LazyLock<Replayer> =
    LazyLock::new(|| Replayer::new(Arc::clone(&MODEL), 2).expect("kernels"));

const PERSON: &str = r##"{
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 12},
        "age": {"type": "integer", "minimum": 18, "maximum": 99},
        "mood": {"enum": ["glad", "sad", null, 7]},
        "colour": {"type": "string", "pattern": "^#[0-9a-f]{6}$"},
        "likes": {"type": "array", "items": {"type": "string", "maxLength": 8}, "maxItems": 3},
        "pet": {
            "type": "object",
            "properties": {"legs": {"const": 4}, "weight": {"type": "number", "minimum": 0.5, "maximum": 80}},
            "required": ["legs", "weight"],
            "additionalProperties": false
        }
    },
    "required": ["name", "age", "mood", "colour", "likes", "pet"],
    "additionalProperties": false
}"##;

const UNICODE: &str = r#"{
    "type": "object",
    "properties": {
        "größe": {"enum": ["klein", "mittel", "groß 🐘", "日本"]},
        "letters": {"type": "array", "items": {"enum": ["é", "ß", "\u0001", "\"", "\\"]}, "minItems": 2, "maxItems": 4}
    },
    "required": ["größe", "letters"],
    "additionalProperties": false
}"#;

const TREE: &str = r##"{
    "$ref": "#/$defs/node",
    "$defs": {"node": {
        "type": "object",
        "properties": {
            "value": {"type": ["integer", "boolean"], "minimum": -9, "maximum": 9},
            "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}
        },
        "required": ["value", "next"],
        "additionalProperties": false
    }}
}"##;

fn service(options: &ServiceOptions) -> Service {
    let options = ServiceOptions { threads: 2, ..*options };
    Service::start(Arc::clone(&MODEL), &options).expect("a service")
}

fn schema(text: &str) -> Constraint {
    Constraint { rules: RULES.into(), form: Form::JsonSchema(text.into()) }
}

fn sampled(constraint: Option<Constraint>) -> Sampling {
    Sampling { temperature_q16: 70_000, top_p_q16: 62_000, constraint, ..Sampling::GREEDY }
}

fn offer(question: &str, sampling: Sampling, max_tokens: u32) -> Offer {
    let message = ChatMessage { role: "user".into(), content: question.into() };
    Offer {
        model_id: MODEL.id(),
        prompt: Prompt::Chat(vec![message]),
        sampling,
        max_tokens,
        stop: vec![],
        level: Level::Full,
        public_nonce: [1; 32],
        client_nonce_hash: Digest::from_bytes([2; 32]),
        deadline_ms: 1_000,
        pooling: None,
        class: peerproof_wire::Class::Exact,
    }
}

/// What makes these tokens likelier, wherever they may stand.
fn biased(texts: &[&str]) -> Vec<LogitBias> {
    let token = |text: &&str| MODEL.tokenizer().find(text).expect("a token");
    let mut tokens: Vec<u32> = texts.iter().map(token).collect();
    tokens.sort_unstable();
    tokens.into_iter().map(|token| LogitBias { token, bias_q16: 12 << 16 }).collect()
}

fn signed(offer: Offer) -> Signed<Offer> {
    Signed::sign(&Keypair::from_seed(&[3; 32]), offer).expect("an offer")
}

fn job(offer: &Signed<Offer>) -> Job {
    Job {
        salt: Digest::from_bytes([9; 32]),
        key: offer.id(),
        seed: sampling_seed(offer),
        prompt: MODEL.prompt_tokens(&offer.prompt).expect("a prompt"),
        resume: vec![],
        sampling: offer.sampling.clone(),
        max_tokens: offer.max_tokens,
        stop: vec![],
    }
}

fn answer(offer: &Offer) -> Generated {
    SERVICE.generate(job(&signed(offer.clone()))).expect("an answer")
}

#[test]
fn what_constraints_need_is_made_beforehand() {
    let fresh = || {
        let model = Model::open(support::real_model(), &LoadOptions::default()).expect("a model");
        assert!(!model.has_prepared_constraints());
        model
    };
    let model = fresh();
    model.prepare_constraints().expect("a thread").join().expect("a vocabulary");
    assert!(model.has_prepared_constraints());
    // Whoever comes before it is made waits, and is answered the same.
    let model = fresh();
    let made = model.prepare_constraints().expect("a thread");
    let options = ServiceOptions { threads: 1, ..ServiceOptions::default() };
    let early = Service::start(model, &options).expect("a service");
    let offer = offer("Describe a person as JSON.", sampled(Some(schema(PERSON))), 12);
    let answered = early.generate(job(&signed(offer.clone()))).expect("an answer");
    assert_eq!(answered.tokens, answer(&offer).tokens);
    made.join().expect("a vocabulary");
}

#[test]
fn answers_conform_to_their_schemas() {
    for (question, text) in [
        ("Describe a person as JSON.", PERSON),
        ("Wähle eine Größe. Antworte als JSON.", UNICODE),
        ("A linked list of numbers, please.", TREE),
    ] {
        let parsed: Value = serde_json::from_str(text).expect("a schema");
        let mut complete = 0;
        for (nonce, temperature_q16) in [(0, 0), (1, 65_536), (2, 131_072)] {
            let mut offer = offer(question, sampled(Some(schema(text))), 160);
            (offer.public_nonce, offer.sampling.temperature_q16) = ([nonce; 32], temperature_q16);
            // Lists and digits go on for long where nothing speaks for their end.
            offer.sampling.bias = biased(&["null", "]", "}", "\""]);
            let answer = answer(&offer);
            if answer.stop == Stop::Length {
                continue;
            }
            complete += 1;
            let value: Value = serde_json::from_str(&answer.text).expect(&answer.text);
            schema::verify(&parsed, &value).expect(&answer.text);
        }
        assert!(complete > 0, "no answer under {text} came to its end");
    }
}

#[test]
fn json_mode_gives_an_object_where_the_model_would_have_talked() {
    let constraint = Constraint { rules: RULES.into(), form: Form::JsonObject };
    let question = "What is the capital of France?";
    let free = answer(&offer(question, sampled(None), 48));
    serde_json::from_str::<Value>(&free.text).expect_err("prose");
    let bound = answer(&offer(question, sampled(Some(constraint)), 300));
    assert!(bound.text.starts_with('{'), "{}", bound.text);
    if bound.stop == Stop::EndOfText {
        let value: Value = serde_json::from_str(&bound.text).expect(&bound.text);
        assert!(value.is_object());
    }
}

#[test]
fn an_answer_that_is_cut_off_is_the_beginning_of_one_that_is_not() {
    let whole = answer(&offer("Describe a person.", sampled(Some(schema(PERSON))), 160));
    // `max_tokens` is part of the seed, so this is about greedy answers.
    let greedy = |max_tokens| {
        let sampling = Sampling { constraint: Some(schema(PERSON)), ..Sampling::GREEDY };
        answer(&offer("Describe a person.", sampling, max_tokens))
    };
    let (cut, longer) = (greedy(9), greedy(40));
    assert_eq!((cut.stop, cut.tokens.len()), (Stop::Length, 9));
    assert!(longer.text.starts_with(&cut.text));
    serde_json::from_str::<Value>(&cut.text).expect_err("incomplete");
    assert!(whole.tokens.len() > 9);
}

#[test]
fn company_chunks_and_a_second_provider_change_nothing() {
    let offers = [PERSON, UNICODE, TREE]
        .map(|text| signed(offer("Describe a person as JSON.", sampled(Some(schema(text))), 40)));
    let alone: Vec<Generated> =
        offers.iter().map(|offer| SERVICE.generate(job(offer)).expect("an answer")).collect();
    let crowd = service(&ServiceOptions { prefill_tokens: 7, ..Default::default() });
    let together: Vec<_> = offers
        .iter()
        .zip(&alone)
        .map(|(offer, alone)| {
            let half = alone.tokens[..alone.tokens.len() / 2].to_vec();
            [vec![], half].map(|resume| {
                let (sender, events) = mpsc::channel();
                let sink = move |event| match sender.send(event) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                };
                let job = Job { resume, ..job(offer) };
                crowd.submit(job, Box::new(sink)).expect("a place");
                events
            })
        })
        .collect();
    for (alone, pair) in alone.iter().zip(together) {
        for events in pair {
            let steps: Vec<Step> = events
                .into_iter()
                .filter_map(|event| match event {
                    Event::Prompt { step } | Event::Token { step, .. } => Some(step),
                    Event::Diverged { .. } | Event::Refused(_) => panic!("{event:?}"),
                    _ => None,
                })
                .collect();
            assert_eq!(steps, alone.steps);
        }
    }
}

#[test]
fn a_wrong_token_to_resume_from_is_left_and_the_rest_conforms() {
    let offer = signed(offer("Describe a person.", sampled(Some(schema(PERSON))), 40));
    let whole = SERVICE.generate(job(&offer)).expect("an answer");
    let mut resume = whole.tokens[..8].to_vec();
    resume[3] = 1_234;
    let again = SERVICE.generate(Job { resume, ..job(&offer) }).expect("an answer");
    assert_eq!((again.tokens, again.text), (whole.tokens, whole.text));
}

/// What a provider signs for these tokens and steps, true or not.
fn case(offer: &Signed<Offer>, answer: &Generated) -> Case {
    let mut transcript = Transcript::new();
    for step in &answer.steps {
        transcript.push(&Leaf::from(step.clone())).expect("a leaf");
    }
    let output_tokens = answer.tokens.len() as u32;
    let tree = transcript
        .close(answer.stop, output_tokens, &answer.text, &answer.kv_root)
        .expect("a tree");
    let receipt = Receipt {
        offer_id: offer.id(),
        model_id: offer.model_id,
        number: 1,
        previous: None,
        prompt_tokens: (answer.steps.len() + 1) as u32 - output_tokens,
        output_tokens,
        stop: answer.stop,
        output_hash: receipt::output_hash(&answer.tokens),
        text_hash: receipt::text_hash(&answer.text),
        transcript_root: tree.root(),
        leaves: tree.leaves(),
        kv_root: answer.kv_root,
        class: peerproof_wire::Class::Exact,
        issued_unix_ms: 1_000,
    };
    let receipt = Signed::sign(&Keypair::from_seed(&[4; 32]), receipt).expect("a receipt");
    Case { offer: offer.clone(), receipt, tokens: answer.tokens.clone() }
}

#[test]
fn an_audit_passes_who_followed_the_constraint_and_finds_who_did_not() {
    let auditor = Keypair::from_seed(&[5; 32]).public();
    let bound = signed(offer("Describe a person.", sampled(Some(schema(PERSON))), 48));
    let honest = SERVICE.generate(job(&bound)).expect("an answer");
    let found = audit(&*REPLAYER, &case(&bound, &honest), None, &auditor).expect("an audit");
    assert_eq!(found.outcome, Outcome::Pass);

    // The same model, seed and digests, and every rule but the mask.
    let mut ignoring = job(&bound);
    ignoring.sampling.constraint = None;
    let free = SERVICE.generate(ignoring).expect("an answer");
    let found = audit(&*REPLAYER, &case(&bound, &free), None, &auditor).expect("an audit");
    let Outcome::Fail(mismatch) = found.outcome else { panic!("passed: {}", free.text) };
    assert_eq!(mismatch.what, Difference::Token);

    // A schema of its own instead of the offer's.
    let mut other = job(&bound);
    other.sampling.constraint = Some(schema(UNICODE));
    let other = SERVICE.generate(other).expect("an answer");
    let found = audit(&*REPLAYER, &case(&bound, &other), None, &auditor).expect("an audit");
    assert!(matches!(found.outcome, Outcome::Fail(_)));
}

#[test]
fn rules_that_are_not_known_are_refused_and_never_judged() {
    let unknown = Constraint { rules: "llguidance-9.9.9/1".into(), form: Form::JsonObject };
    let regex = Constraint { rules: RULES.into(), form: Form::Regex("a+".into()) };
    for (constraint, named) in [
        (unknown, "llguidance-9.9.9/1"),
        (regex, "regex"),
        (schema(r#"{"type":"string","minLength":3,"maxLength":2}"#), "nsatisfiable"),
        (schema(r#"{"not":{}}"#), "not"),
        (schema("[1"), "JSON"),
    ] {
        let named_in = |error: String| assert!(error.contains(named), "{error} lacks {named}");
        named_in(constraint::verify(&constraint).expect_err(named).to_string());
        let bound = signed(offer("Hello.", sampled(Some(constraint)), 8));
        let refusal = SERVICE.generate(job(&bound)).expect_err(named);
        assert!(matches!(refusal, Refusal::Constraint(_)), "{refusal}");
        named_in(refusal.to_string());

        let free = SERVICE.generate(Job { sampling: sampled(None), ..job(&bound) });
        let case = case(&bound, &free.expect("an answer"));
        let auditor = Keypair::from_seed(&[5; 32]).public();
        let error = audit(&*REPLAYER, &case, None, &auditor).expect_err(named);
        assert!(matches!(error, AuditError::Replay(_)), "{error}");
    }
}

#[test]
fn a_client_that_leaves_frees_its_place() {
    let service = service(&ServiceOptions { max_active: 1, ..Default::default() });
    let bound = signed(offer("Describe a person.", sampled(Some(schema(PERSON))), 4_000));
    for events_wanted in [0, 1, 3] {
        let mut events = 0;
        let sink = move |_| {
            events += 1;
            if events > events_wanted { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        service.submit(job(&bound), Box::new(sink)).expect("a place");
    }
    let short = Job { max_tokens: 1, ..job(&bound) };
    assert_eq!(service.generate(short).expect("an answer").tokens.len(), 1);
}
