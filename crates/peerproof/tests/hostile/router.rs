//! Providers that lie to a router, which asks them first and has honest ones to turn to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use peerproof::client::{
    AskError, JobSpec, Level, LogitBias, Outcome, Preference, Prompt, Sampling,
};
use peerproof::{Client, Node, Settings, store};
use peerproof_identity::Keypair;
use peerproof_wire::evidence::{Evidence, LogBody};
use peerproof_wire::{
    Commitment, Delivered, Digest, Failure, FailureCode, ModelId, Opening, Openings, ProviderFrame,
    Receipt, Signed, Stop, TokenLogprobs, Tokens,
};
use tokio::sync::{OnceCell, Semaphore};

use super::fake::{Fake, Honest, Move, Script, compute, deliver, delivered, logged, tokens};
use super::stage::{PATIENCE, Provider, model, random, runtime, settings};

/// How an attack may end.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// The honest answer, audited; the liar was left for this, and it is in the log.
    Recovers(&'static str),
    /// An error that names the liar and this reason; the liar is barred.
    Refused(&'static str),
    /// An error with this reason, and nobody barred: nobody can know who it was.
    Unsettled(&'static str),
    /// The honest answer, audited; what was wrong with it means nothing.
    Answers,
    /// With nobody else to turn to, an error; the reason is in the log.
    Left(&'static str),
}

type Attack = (&'static str, Script, End);

fn attack(
    name: &'static str,
    end: End,
    script: impl Fn(Honest) -> Vec<Move> + Send + Sync + 'static,
) -> Attack {
    (name, Arc::new(script), end)
}

/// An attack on the receipt alone.
fn receipt(
    name: &'static str,
    end: End,
    change: impl Fn(&mut Receipt) + Send + Sync + 'static,
) -> Attack {
    attack(name, end, move |honest| {
        let mut receipt = honest.receipt.clone();
        change(&mut receipt);
        honest.with_receipt(receipt)
    })
}

/// An attack on the delivery alone.
fn delivery(
    name: &'static str,
    end: End,
    change: impl Fn(&Honest, &mut Delivered) + Send + Sync + 'static,
) -> Attack {
    attack(name, end, move |honest| {
        let mut delivery = deliver(&honest.key, honest.receipt.clone());
        change(&honest, &mut delivery);
        let mut moves = honest.beginning(honest.frames.len());
        moves.push(delivered(delivery));
        moves
    })
}

async fn honest() -> &'static Provider {
    static HONEST: OnceCell<Provider> = OnceCell::const_new();
    HONEST.get_or_init(Provider::start).await
}

/// Tokens of most answers: enough to lie about, and computed before a router gets impatient.
const TOKENS: u32 = 10;

fn question(level: Level) -> JobSpec {
    let mut spec =
        JobSpec::new(&model().id, Prompt::Text("Once upon a time, in a city by the sea,".into()));
    spec.sampling = rules();
    spec.seed = Some(11);
    spec.max_tokens = Some(TOKENS);
    spec.verification.level = level;
    spec
}

/// Every rule at once.
fn rules() -> Sampling {
    Sampling {
        temperature_q16: 65_536,
        top_k: 40,
        top_p_q16: 62_000,
        min_p_q16: 3_000,
        repetition_q16: 90_000,
        presence_q16: 65_536,
        frequency_q16: 65_536,
        bias: (300..340).map(|token| LogitBias { token, bias_q16: 4 << 16 }).collect(),
        logprobs: Some(2),
        ..Sampling::GREEDY
    }
}

/// What every honest provider answers.
async fn expected() -> &'static str {
    static EXPECTED: OnceCell<String> = OnceCell::const_new();
    EXPECTED
        .get_or_init(|| async {
            let home = tempfile::tempdir().unwrap();
            let node = Node::start(settings(&home, vec![honest().await.address()])).await.unwrap();
            let answer = node.client().ask(question(Level::Receipt)).await.unwrap().text().await;
            let (text, outcome) = answer.unwrap();
            assert_eq!(outcome.output_tokens, TOKENS, "the attacks need an answer that goes on");
            node.shutdown().await;
            text
        })
        .await
}

/// Waits until the router knows that these peers serve the model.
pub(super) async fn knows(client: &Client, peers: &[String]) {
    let since = Instant::now();
    loop {
        let known = client.models();
        let knows = |peer: &String| {
            known.iter().any(|m| m.providers.contains(peer) || m.auditors.contains(peer))
        };
        if peers.iter().all(knows) {
            return;
        }
        assert!(since.elapsed() < PATIENCE, "the router never heard of {peers:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Runs attacks a few at a time and reports all that succeed.
fn all(attacks: Vec<Attack>) {
    let asked = |(name, script, end)| (name, script, end, question(Level::Full));
    all_asked(attacks.into_iter().map(asked).collect());
}

/// As `all`, each with a question of its own.
fn all_asked(attacks: Vec<(&'static str, Script, End, JobSpec)>) {
    runtime().block_on(async {
        expected().await;
        let places = Arc::new(Semaphore::new(2));
        let mut running = tokio::task::JoinSet::new();
        for (name, script, end, spec) in attacks {
            let places = Arc::clone(&places);
            running.spawn(async move {
                let _place = places.acquire().await;
                let tried = tokio::time::timeout(PATIENCE, one(script, end, spec)).await;
                tried.unwrap_or_else(|_| Err("it hangs".into())).map_err(|e| format!("{name}: {e}"))
            });
        }
        let results = running.join_all().await;
        let failures: Vec<String> = results.into_iter().filter_map(Result::err).collect();
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    });
}

async fn one(script: Script, end: End, mut spec: JobSpec) -> Result<(), String> {
    let fake = Fake::start(script).await;
    let home = tempfile::tempdir().unwrap();
    let peers = vec![honest().await.address(), fake.address().await];
    let settings = Settings { hold: vec![model().clone()], ..settings(&home, peers) };
    let at_home = settings.home.clone();
    let node = Node::start(settings).await.unwrap();
    let client = node.client();
    let liar = fake.peer.to_string();
    knows(&client, &[honest().await.peer().to_string(), liar.clone()]).await;
    spec.preference = match end {
        End::Recovers(_) | End::Refused("false-prefix") | End::Unsettled(_) => {
            Preference { order: vec![liar.clone()], ..Preference::default() }
        }
        _ => Preference { only: vec![liar.clone()], ..Preference::default() },
    };
    if let End::Left(_) = end {
        spec.max_tokens = Some(36);
    }
    let result = client.ask(spec).await.unwrap().text().await;
    let barred = client.peers().await.into_iter().any(|p| p.peer == liar && p.barred.is_some());
    node.shutdown().await;
    let log = at_home.log(&at_home.key().unwrap().public().peer_id());
    let log = store::read(&log).map_err(|e| e.to_string())?;
    let noted: Vec<LogBody> = log.entries().map(|(_, entry)| entry.unwrap().body).collect();
    fake.net.shutdown().await;
    judge(end, result, &liar, barred, &noted).await
}

async fn judge(
    end: End,
    result: Result<(String, Outcome), AskError>,
    liar: &str,
    barred: bool,
    noted: &[LogBody],
) -> Result<(), String> {
    let observed = |reason: &str| {
        noted.iter().any(|body| match body {
            LogBody::Evidence(Evidence::Observation(seen)) => {
                seen.provider.peer_id().to_string() == liar && seen.reason.contains(reason)
            }
            LogBody::Evidence(Evidence::WrongAnswer(_)) => reason == "wrong-answer",
            _ => false,
        })
    };
    let whole = |text: &str, outcome: &Outcome, expected: &str| {
        text == expected && outcome.verification.audited
    };
    let expected = expected().await;
    let notes: Vec<&str> = noted.iter().map(note).collect();
    let result_seen = match &result {
        Ok((text, outcome)) => {
            let by = if outcome.provider == liar { "the liar" } else { "another" };
            let right = if text == expected { "right" } else { "wrong" };
            format!("a {right} text by {by}, {:?}, trail {:?}", outcome.verification, outcome.trail)
        }
        Err(error) => error.to_string(),
    };
    let seen = format!("{result_seen}; barred {barred}; noted {notes:?}");
    let fine = match (end, &result) {
        (End::Recovers(why), Ok((text, outcome))) => {
            whole(text, outcome, expected) && outcome.provider != liar && observed(why)
        }
        (End::Answers, Ok((text, outcome))) => whole(text, outcome, expected) && !barred,
        (End::Refused(why), Err(AskError::Refused { provider, evidence, .. })) => {
            provider == liar
                && barred
                && observed(why)
                && std::path::Path::new(evidence).is_absolute()
        }
        (End::Left(why), Err(AskError::Failed { .. })) => observed(why),
        (End::Unsettled(why), Err(error)) => error.to_string().contains(why) && !barred,
        _ => false,
    };
    if fine { Ok(()) } else { Err(format!("expected {end:?}, got {seen}")) }
}

fn note(body: &LogBody) -> &str {
    match body {
        LogBody::Evidence(Evidence::Observation(seen)) => &seen.reason,
        LogBody::Evidence(Evidence::WrongAnswer(_)) => "a wrong answer",
        LogBody::Accepted(_) => "an accepted answer",
        _ => "something else",
    }
}

#[test]
fn frames_out_of_order() {
    let order = End::Recovers("out-of-order");
    all(vec![
        attack("tokens in another order", order, |honest| {
            let mut moves = honest.beginning(8);
            moves.swap(4, 5);
            moves
        }),
        attack("a frame twice", order, |honest| {
            let mut moves = honest.beginning(8);
            moves.push(tokens(honest.frames[7].clone()));
            moves
        }),
        attack("a frame left out", order, |honest| {
            let mut moves = honest.beginning(8);
            moves.remove(5);
            moves
        }),
        attack("tokens before the acceptance", order, |honest| {
            let mut moves = honest.beginning(8);
            moves.remove(0);
            moves
        }),
        attack("a receipt before the acceptance", order, |honest| {
            vec![delivered(deliver(&honest.key, honest.receipt.clone()))]
        }),
        attack("accepted twice", order, |honest| vec![honest.accept(), honest.accept()]),
        attack("no commitment", End::Left("out-of-order"), |mut honest| {
            honest.frames[31].commitment = None;
            honest.beginning(honest.frames.len())
        }),
        attack("openings that nobody asked for", order, |honest| {
            let mut moves = honest.beginning(3);
            let leaf_hashes = vec![Digest::from_bytes([1; 32]); 16_384];
            let openings: Vec<Opening> = vec![];
            moves.push(Move::Send(ProviderFrame::Openings(Openings { openings, leaf_hashes })));
            moves
        }),
    ]);
}

#[test]
fn frames_that_say_nonsense() {
    let garbage = End::Recovers("garbage");
    all(vec![
        attack("another offer accepted", garbage, |mut honest| {
            honest.accepted.offer_id = Digest::from_bytes([4; 32]);
            honest.beginning(honest.frames.len())
        }),
        attack("too much text", garbage, |mut honest| {
            honest.frames[3].text = "x".repeat(65_536);
            honest.beginning(honest.frames.len())
        }),
        attack("text without tokens", garbage, |mut honest| {
            honest.frames[3].tokens.clear();
            honest.frames[3].logprobs.clear();
            honest.beginning(honest.frames.len())
        }),
        attack("more tokens than asked for", garbage, |honest| {
            let mut moves = honest.beginning(honest.frames.len());
            moves.push(tokens(Tokens { start: TOKENS, tokens: vec![1], ..Tokens::default() }));
            moves
        }),
        attack("a commitment to what is not there", garbage, |mut honest| {
            let root = Digest::from_bytes([1; 32]);
            honest.frames[2].commitment = Some(Commitment { leaves: 196_608, root });
            honest.beginning(honest.frames.len())
        }),
        attack("bytes that are no frame", garbage, |honest| {
            let mut moves = honest.beginning(3);
            moves.push(Move::Raw(vec![0x05, 1, 2, 3, 4, 5]));
            moves
        }),
        attack("a frame of 2 MiB", garbage, |honest| {
            let mut moves = honest.beginning(3);
            moves.push(Move::Raw(vec![0x80, 0x80, 0x80, 0x01]));
            moves
        }),
    ]);
}

#[test]
fn leaving_and_stalling() {
    let dropped = End::Recovers("dropped");
    let stalled = End::Recovers("stalled");
    let mut attacks = vec![
        attack("gone before the acceptance", dropped, |_| vec![Move::Close]),
        attack("gone after 5 tokens", dropped, |honest| with(honest.beginning(5), Move::Close)),
        attack("gone before the receipt", dropped, |honest| {
            with(honest.beginning(honest.frames.len()), Move::Close)
        }),
        attack("half a frame, then gone", dropped, |honest| {
            let moves = with(honest.beginning(5), Move::Raw(vec![0x7f, 0x0a, 0x01]));
            with(moves, Move::Close)
        }),
        attack("silent after 5 tokens", stalled, |honest| with(honest.beginning(5), Move::Stall)),
        attack("silent before the receipt", stalled, |honest| {
            with(honest.beginning(honest.frames.len()), Move::Stall)
        }),
    ];
    for code in [
        FailureCode::Internal,
        FailureCode::Replayed,
        FailureCode::UnknownModel,
        FailureCode::BadOffer,
    ] {
        attacks.push(attack("refused after 5 tokens", End::Recovers("refused"), move |honest| {
            let failure = Failure::new(code, "no\u{7} reason\n at all");
            with(honest.beginning(5), Move::Send(ProviderFrame::Failure(failure)))
        }));
    }
    all(attacks);
}

fn with(mut moves: Vec<Move>, last: Move) -> Vec<Move> {
    moves.push(last);
    moves
}

#[test]
fn receipts_that_belong_to_something_else() {
    let bindings = End::Refused("bindings");
    let log = End::Refused("log-proof");
    let other = || Digest::from_bytes([6; 32]);
    all(vec![
        receipt("for another offer", bindings, move |r| r.offer_id = other()),
        receipt("for another model", bindings, |r| r.model_id = ModelId::from_bytes([6; 32])),
        receipt("for other tokens", bindings, move |r| r.output_hash = other()),
        receipt("for another text", bindings, move |r| r.text_hash = other()),
        receipt("fewer tokens", bindings, |r| r.output_tokens -= 1),
        receipt("more tokens", bindings, |r| r.output_tokens += 1),
        receipt("another prompt", bindings, |r| r.prompt_tokens += 1),
        receipt("another length", bindings, |r| r.leaves -= 1),
        receipt("a stop string that nobody asked for", bindings, |r| r.stop = Stop::StopString),
        delivery("signed by another key", bindings, |honest, delivery| {
            let key = Arc::new(Keypair::from_seed(&[55; 32]));
            *delivery = deliver(&key, honest.receipt.clone());
        }),
        delivery("an old one", bindings, |honest, delivery| {
            let mut old = honest.offer.statement().clone();
            old.public_nonce = random();
            let old = Signed::sign(&Keypair::from_seed(&[56; 32]), old).unwrap();
            let old = compute(&honest.key, &old, &[], old.sampling.clone());
            *delivery = deliver(&honest.key, old.receipt);
        }),
        delivery("another place in the log", log, |_, delivery| delivery.log.index = 0),
        delivery("a path of nothing", log, |_, delivery| delivery.log.path.clear()),
        delivery("a false path", log, |_, delivery| {
            delivery.log.path[0] = Digest::from_bytes([1; 32])
        }),
        delivery("a checkpoint of garbage", log, |_, delivery| {
            delivery.log.checkpoint = "trust me\n".into()
        }),
        delivery("another's log", log, |_, delivery| {
            let key = Arc::new(Keypair::from_seed(&[57; 32]));
            delivery.log = logged(&key, &delivery.receipt);
        }),
        delivery("a log without it", log, |honest, delivery| {
            let mut other = honest.receipt.clone();
            other.issued_unix_ms += 1;
            delivery.log = deliver(&honest.key, other).log;
        }),
    ]);
}

#[test]
fn wrong_answers() {
    let wrong = End::Refused("wrong-answer");
    all(vec![
        receipt("a root of nothing", wrong, |r| r.transcript_root = Digest::from_bytes([1; 32])),
        attack("one token changed", wrong, |honest| honest.inventing(|ids, _| ids[6] ^= 1)),
        attack("a token nobody has", wrong, |honest| {
            honest.inventing(|ids, _| ids[6] = 16_777_215)
        }),
        attack("text of its own", wrong, |honest| {
            honest.inventing(|_, text| text.push_str(" Buy now!"))
        }),
        attack("an early end", wrong, |mut honest| {
            honest.receipt.stop = Stop::EndOfText;
            honest.inventing(|ids, _| ids.truncate(5))
        }),
        attack("greedy instead of sampled", wrong, |honest| {
            let logprobs = honest.offer.sampling.logprobs;
            let greedy = Sampling { logprobs, ..Sampling::GREEDY };
            let greedy = compute(&honest.key, &honest.offer, &[], greedy);
            greedy.with_receipt(greedy.receipt.clone())
        }),
        attack("the answer to another seed", wrong, |honest| {
            let mut offer = honest.offer.statement().clone();
            offer.public_nonce = [1; 32];
            let offer = Signed::sign(&Keypair::from_seed(&[58; 32]), offer).unwrap();
            let mut other = compute(&honest.key, &offer, &[], offer.sampling.clone());
            other.accepted = honest.accepted.clone();
            other.receipt.offer_id = honest.offer.id();
            other.with_receipt(other.receipt.clone())
        }),
        attack("another provider's transcript", wrong, |honest| {
            // Tokens are right, the leaves were made for another router's offer.
            let offer = honest.offer.statement().clone();
            let offer = Signed::sign(&Keypair::from_seed(&[59; 32]), offer).unwrap();
            let copied = compute(&honest.key, &offer, &[], offer.sampling.clone());
            let mut receipt = copied.receipt;
            receipt.offer_id = honest.offer.id();
            honest.with_receipt(receipt)
        }),
    ]);
}

/// A question with one rule beside the temperature, answered as if it had another.
fn ruled(
    name: &'static str,
    prompt: &str,
    rules: Sampling,
    instead: Sampling,
) -> (&'static str, Script, End, JobSpec) {
    let mut spec = question(Level::Full);
    (spec.prompt, spec.sampling) = (Prompt::Text(prompt.into()), rules);
    let script = move |honest: Honest| {
        let other = compute(&honest.key, &honest.offer, &[], instead.clone());
        let tokens = |all: &Honest| all.frames.iter().flat_map(|f| f.tokens.clone()).collect();
        let (left, right): (Vec<u32>, Vec<u32>) = (tokens(&honest), tokens(&other));
        assert_ne!(left, right, "{name}: nothing to find out");
        other.with_receipt(other.receipt.clone())
    };
    (name, Arc::new(script), End::Refused("wrong-answer"), spec)
}

#[test]
fn rules_of_sampling_left_out() {
    const STORY: &str = "Once upon a time, in a city by the sea,";
    const SONG: &str = "la la la la la la la la la la la la";
    let warm = || Sampling { temperature_q16: 1 << 16, ..Sampling::GREEDY };
    let hot = || Sampling { temperature_q16: 2 << 16, ..Sampling::GREEDY };
    let bias = || (300..340).map(|token| LogitBias { token, bias_q16: 8 << 16 }).collect();
    all_asked(vec![
        ruled("another temperature", STORY, warm(), hot()),
        ruled("no top-k", STORY, Sampling { top_k: 2, ..hot() }, hot()),
        ruled("no top-p", STORY, Sampling { top_p_q16: 20_000, ..hot() }, hot()),
        ruled("no min-p", STORY, Sampling { min_p_q16: 20_000, ..hot() }, hot()),
        ruled(
            "no repetition penalty",
            SONG,
            Sampling { repetition_q16: 2 << 16, ..warm() },
            warm(),
        ),
        ruled("no presence penalty", SONG, Sampling { presence_q16: 2 << 16, ..warm() }, warm()),
        ruled("no frequency penalty", SONG, Sampling { frequency_q16: 2 << 16, ..warm() }, warm()),
        ruled("no bias", STORY, Sampling { bias: bias(), ..warm() }, warm()),
    ]);
}

/// The honest tokens, with reports that `change` makes of the honest ones.
fn reported(
    name: &'static str,
    end: End,
    is_signed: bool,
    change: fn(&mut TokenLogprobs),
) -> Attack {
    attack(name, end, move |mut honest| {
        honest.frames[6].logprobs.iter_mut().for_each(change);
        let mut receipt = honest.receipt.clone();
        if is_signed {
            let text: String = honest.frames.iter().map(|frame| frame.text.as_str()).collect();
            let all: Vec<_> = honest.frames.iter().flat_map(|f| f.logprobs.clone()).collect();
            receipt.text_hash = peerproof_proof::receipt::shown_hash(&text, &all);
        }
        honest.with_receipt(receipt)
    })
}

#[test]
fn probabilities_reported_falsely() {
    let wrong = End::Refused("wrong-answer");
    let surer: fn(&mut TokenLogprobs) = |report| report.chosen_q16 /= 2;
    all(vec![
        reported("a surer token", wrong, true, surer),
        reported("another runner-up", wrong, true, |report| report.top[1].0 ^= 1),
        reported("other words", wrong, true, |report| report.spellings[1] = b" safe".to_vec()),
        reported("fewer of them", wrong, true, |report| {
            report.top.pop();
            report.spellings.pop();
        }),
        reported("one thing signed, another shown", End::Refused("bindings"), false, surer),
        attack("none at all", End::Recovers("garbage"), |mut honest| {
            honest.frames.iter_mut().for_each(|frame| frame.logprobs.clear());
            honest.with_receipt(honest.receipt.clone())
        }),
        attack("a surer token, then gone", End::Unsettled("disagree"), |mut honest| {
            honest.frames[4].logprobs[0].chosen_q16 /= 2;
            with(honest.beginning(8), Move::Close)
        }),
    ]);
}

#[test]
fn false_beginnings_left_to_others() {
    let prefix = End::Refused("false-prefix");
    all(vec![
        attack("a false token, then gone", prefix, |mut honest| {
            honest.frames[4].tokens[0] ^= 1;
            with(honest.beginning(8), Move::Close)
        }),
        attack("a token nobody has, then gone", prefix, |mut honest| {
            honest.frames[4].tokens[0] = 16_777_215;
            with(honest.beginning(8), Move::Close)
        }),
        attack("a false text, then gone", End::Unsettled("disagree"), |mut honest| {
            honest.frames[4].text = " lies".into();
            with(honest.beginning(8), Move::Close)
        }),
    ]);
}

#[test]
fn chatter_means_nothing() {
    all(vec![
        attack("tokens after the receipt", End::Answers, |honest| {
            let moves = honest.with_receipt(honest.receipt.clone());
            let moves =
                with(moves, tokens(Tokens { start: TOKENS, tokens: vec![1], ..Tokens::default() }));
            with(moves, Move::Raw(vec![0xff; 64]))
        }),
        attack("a second receipt", End::Answers, |honest| {
            let mut other = honest.receipt.clone();
            other.transcript_root = Digest::from_bytes([1; 32]);
            with(
                honest.with_receipt(honest.receipt.clone()),
                delivered(deliver(&honest.key, other)),
            )
        }),
        attack("gone after the receipt", End::Answers, |honest| {
            with(honest.with_receipt(honest.receipt.clone()), Move::Close)
        }),
    ]);
}
