//! The serving loop, the rules that end an answer, and the replay of it, on the
//! default model.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, LazyLock};

use peerproof_engine::execute::{ReplayError, Replayer};
use peerproof_engine::model::{Model, ModelError, PromptError};
use peerproof_engine::service::{Event, Generated, Job, Load, Refusal, Service, ServiceOptions};
use peerproof_engine::transformer::LoadOptions;
use peerproof_proof::{Execute, Step};
use peerproof_wire::{ChatMessage, Digest, Level, ModelId, Offer, Prompt, Sampling, Stop};

static MODEL: LazyLock<Arc<Model>> =
    LazyLock::new(|| Model::open(support::real_model(), &LoadOptions::default()).unwrap());

static SERVICE: LazyLock<Service> = LazyLock::new(|| service(&ServiceOptions::default()));

fn sampled() -> Sampling {
    Sampling { temperature_q16: 60_000, top_k: 40, top_p_q16: 62_000, ..Sampling::GREEDY }
}

fn service(options: &ServiceOptions) -> Service {
    let options = ServiceOptions { threads: 2, ..*options };
    Service::start(Arc::clone(&MODEL), &options).unwrap()
}

fn chat(content: &str) -> Prompt {
    Prompt::Chat(vec![ChatMessage { role: "user".into(), content: content.into() }])
}

fn job(prompt: &Prompt, max_tokens: u32) -> Job {
    Job {
        key: Digest::from_bytes([3; 32]),
        seed: Digest::from_bytes([5; 32]),
        prompt: MODEL.prompt_tokens(prompt).unwrap(),
        resume: vec![],
        sampling: Sampling::GREEDY,
        max_tokens,
        stop: vec![],
        salt: Digest::from_bytes([7; 32]),
    }
}

fn capital(max_tokens: u32) -> Job {
    job(&chat("What is the capital of France?"), max_tokens)
}

/// Submits a job and hands back its events.
fn events(service: &Service, job: Job) -> Receiver<Event> {
    let (sender, receiver) = mpsc::channel();
    let sink = move |event| match sender.send(event) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    };
    service.submit(job, Box::new(sink)).unwrap();
    receiver
}

/// The step an event tells of.
fn step(event: Event) -> Option<Step> {
    match event {
        Event::Prompt { step } | Event::Token { step, .. } => Some(step),
        _ => None,
    }
}

/// The parts of an answer that everyone must agree on.
fn essence(answer: &Generated) -> (&[u32], &str, Stop, &[Step]) {
    (&answer.tokens, &answer.text, answer.stop, &answer.steps)
}

#[test]
fn the_model_answers() {
    let answer = SERVICE.generate(capital(32)).unwrap();
    assert!(answer.text.contains("Paris"), "{}", answer.text);
    assert_eq!(answer.stop, Stop::EndOfText);
    assert!(MODEL.tokenizer().is_end(*answer.tokens.last().unwrap()));
}

#[test]
fn the_models_facts() {
    assert_eq!((MODEL.architecture(), MODEL.quantisation()), ("llama", "Q4_1"));
    assert_eq!((MODEL.context_length(), MODEL.vocabulary()), (8_192, 49_152));
    assert_eq!(MODEL.end_tokens(), [0, 2]);
    let file = std::fs::read(support::real_model()).unwrap();
    assert_eq!(MODEL.id(), ModelId::from_bytes(*blake3::hash(&file).as_bytes()));
}

#[test]
fn events_come_in_order_and_cover_every_position() {
    let job = capital(4);
    let prompt = job.prompt.clone();
    let seen: Vec<Event> = events(&SERVICE, job).into_iter().collect();
    assert!(matches!(seen[0], Event::Started));
    let (mut position, mut streamed) = (0, String::new());
    for event in &seen[1..] {
        match event {
            Event::Prompt { step } => {
                assert_eq!((step.position, step.token), (position, prompt[position as usize]));
                assert!(step.drawn.is_none());
                position += 1;
            }
            Event::Token { index, token, text, step, resumed } => {
                assert_eq!((step.position, *index), (position, position + 1 - prompt.len() as u32));
                assert_eq!(step.drawn.as_ref().unwrap().next, *token);
                assert!(!resumed);
                streamed += text;
                position += 1;
            }
            Event::Finished { stop, tokens, text, .. } => {
                assert_eq!((*stop, *tokens, text), (Stop::Length, 4, &streamed));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(position as usize, prompt.len() + 3);
    assert!(matches!(seen.last(), Some(Event::Finished { .. })));
}

#[test]
fn company_changes_nothing() {
    let story = Job { sampling: sampled(), ..job(&Prompt::Text("Once upon a time".into()), 12) };
    let long = job(&Prompt::Text("All work and no play. ".repeat(20)), 6);
    let jobs = [capital(10), story, long, capital(3)];
    let alone: Vec<Generated> =
        jobs.iter().map(|job| SERVICE.generate(job.clone()).unwrap()).collect();
    let crowd = service(&ServiceOptions { prefill_tokens: 24, ..Default::default() });
    let together: Vec<_> = jobs.iter().map(|job| events(&crowd, job.clone())).collect();
    for (alone, events) in alone.iter().zip(together) {
        let steps: Vec<Step> = events
            .into_iter()
            .filter_map(|event| match event {
                Event::Prompt { step } | Event::Token { step, .. } => Some(step),
                _ => None,
            })
            .collect();
        assert_eq!(steps, alone.steps);
    }
}

#[test]
fn the_seed_decides_what_is_drawn() {
    let prompt = Prompt::Text("My favourite colour is".into());
    let drawn = |seed: u8| {
        let job =
            Job { seed: Digest::from_bytes([seed; 32]), sampling: sampled(), ..job(&prompt, 12) };
        SERVICE.generate(job).unwrap().tokens
    };
    assert_eq!(drawn(1), drawn(1));
    assert!((2..8).any(|seed| drawn(seed) != drawn(1)));
}

#[test]
fn an_answer_goes_on_elsewhere_with_the_identical_token() {
    let job = Job { sampling: sampled(), ..capital(12) };
    let whole = SERVICE.generate(job.clone()).unwrap();
    for taken in [1, whole.tokens.len() / 2, whole.tokens.len()] {
        let resume = whole.tokens[..taken].to_vec();
        let seen = events(&SERVICE, Job { resume, ..job.clone() });
        let resumed = seen.iter().filter(|e| matches!(e, Event::Token { resumed: true, .. }));
        assert_eq!(resumed.count(), taken);
        let resume = whole.tokens[..taken].to_vec();
        let again = SERVICE.generate(Job { resume, ..job.clone() }).unwrap();
        assert_eq!(essence(&again), essence(&whole));
    }
}

#[test]
fn a_wrong_token_to_resume_from_is_named_and_left() {
    let job = capital(8);
    let whole = SERVICE.generate(job.clone()).unwrap();
    let mut resume = whole.tokens[..6].to_vec();
    let expected = resume[2];
    resume[2] = 1234;
    let seen = events(&SERVICE, Job { resume: resume.clone(), ..job.clone() });
    let diverged: Vec<_> =
        seen.iter().filter(|event| matches!(event, Event::Diverged { .. })).collect();
    assert!(matches!(
        diverged[..],
        [Event::Diverged { index: 2, expected: Some(token), got: 1234 }] if token == expected
    ));
    let again = SERVICE.generate(Job { resume, ..job }).unwrap();
    assert_eq!(essence(&again), essence(&whole));
}

#[test]
fn tokens_after_the_end_are_wrong_too() {
    let job = capital(32);
    let whole = SERVICE.generate(job.clone()).unwrap();
    let end = whole.tokens.len() as u32;
    let resume = [&whole.tokens[..], &[7, 8]].concat();
    let seen: Vec<Event> = events(&SERVICE, Job { resume, ..job }).into_iter().collect();
    let [.., diverged, finished] = &seen[..] else { panic!("{seen:?}") };
    assert!(matches!(diverged, Event::Diverged { index, expected: None, got: 7 } if *index == end));
    assert!(matches!(finished, Event::Finished { tokens, .. } if *tokens == end));
}

#[test]
fn stop_strings_end_an_answer_before_themselves() {
    let whole = SERVICE.generate(capital(32)).unwrap();
    // Cut within the text, at a place no token border need respect.
    let at = whole.text.find("capital").unwrap() + 3;
    let stop = whole.text[at..at + 6].to_owned();
    let job = Job { stop: vec!["never".into(), stop.clone()], ..capital(32) };
    let seen: Vec<Event> = events(&SERVICE, job.clone()).into_iter().collect();
    let streamed: String = seen
        .iter()
        .filter_map(|event| match event {
            Event::Token { text, .. } => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(streamed, whole.text[..whole.text.find(&stop).unwrap()]);
    assert!(matches!(
        seen.last(),
        Some(Event::Finished { stop: Stop::StopString, text, .. }) if *text == streamed
    ));
}

#[test]
fn a_client_that_leaves_frees_its_place() {
    let service = service(&ServiceOptions { max_active: 1, ..Default::default() });
    let mut tokens = 0;
    let sink = move |event| {
        tokens += u32::from(matches!(event, Event::Token { .. }));
        if tokens < 2 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    service.submit(capital(8_000), Box::new(sink)).unwrap();
    assert_eq!(service.generate(capital(1)).unwrap().tokens.len(), 1);
    assert_eq!(service.load().queued, 0);
}

#[test]
fn what_cannot_be_done_is_refused_with_the_reason() {
    let refused = |job: Job, service: &Service| service.generate(job).map(drop).unwrap_err();
    for (job, words) in [
        (Job { prompt: vec![], ..capital(1) }, "empty"),
        (Job { prompt: vec![1, 60_000], ..capital(1) }, "prompt token 1"),
        (Job { resume: vec![60_000], ..capital(2) }, "resumed token 0"),
        (Job { resume: vec![1, 2], ..capital(1) }, "resume"),
        (capital(8_192), "8192"),
        (capital(0), "max_tokens"),
    ] {
        let message = refused(job, &SERVICE).to_string();
        assert!(message.contains(words), "{message:?} lacks {words:?}");
    }
    let small = service(&ServiceOptions { kv_bytes: 1 << 20, ..Default::default() });
    let error = refused(capital(100), &small);
    assert!(matches!(error, Refusal::CacheBudget { expected: 1_048_576, .. }), "{error}");
}

#[test]
fn a_full_queue_says_so_and_stopping_ends_all_jobs() {
    let options = ServiceOptions { max_active: 1, max_queued: 1, ..Default::default() };
    let service = service(&options);
    let first = events(&service, capital(8_000));
    assert!(matches!(first.recv(), Ok(Event::Started)));
    let second = events(&service, capital(1));
    let full = service.generate(capital(1)).map(drop).unwrap_err();
    assert!(full.is_busy(), "{full}");
    assert_eq!((service.load().active, service.load().queued), (1, 1));
    drop(service);
    assert!(matches!(first.iter().last(), Some(Event::Refused(Refusal::Stopping))));
    assert!(matches!(second.iter().last(), Some(Event::Refused(Refusal::Stopping))));
}

#[test]
fn a_loop_that_dies_leaves_nobody_waiting() {
    let service = service(&ServiceOptions { max_active: 1, ..Default::default() });
    let (started, wait) = mpsc::channel();
    let (go, gate) = mpsc::channel::<()>();
    let sink = move |_| {
        started.send(()).unwrap();
        gate.recv().unwrap();
        panic!("a sink that panics ends the loop");
    };
    service.submit(capital(4), Box::new(sink)).unwrap();
    wait.recv().unwrap();
    let second = events(&service, capital(1));
    go.send(()).unwrap();
    assert!(matches!(second.recv(), Ok(Event::Refused(Refusal::Stopping))));
    assert!(second.recv().is_err());
    assert!(matches!(service.generate(capital(1)), Err(Refusal::Stopping)));
}

#[test]
fn a_sink_may_ask_the_service() {
    let service = Arc::new(service(&ServiceOptions::default()));
    let (sender, loads) = mpsc::channel();
    let asked = Arc::downgrade(&service);
    let sink = move |_| {
        sender.send(asked.upgrade().map(|service| service.load())).unwrap();
        ControlFlow::Continue(())
    };
    service.submit(capital(1), Box::new(sink)).unwrap();
    assert!(loads.into_iter().all(|load| load.is_none_or(|load| load.active == 1)));
}

#[test]
fn the_last_handle_may_be_dropped_by_a_sink() {
    let (sender, dropped) = mpsc::channel();
    let (give, take) = mpsc::channel::<Service>();
    let sink = move |_| {
        drop(take.recv());
        sender.send(()).unwrap();
        ControlFlow::Continue(())
    };
    let service = service(&ServiceOptions::default());
    service.submit(capital(1), Box::new(sink)).unwrap();
    give.send(service).unwrap();
    drop(give);
    assert!(dropped.iter().count() > 0);
}

/// Waits until no job is left, and checks that none holds a page.
fn all_is_free(service: &Service) -> Load {
    while service.load().active > 0 || service.load().queued > 0 {
        std::thread::yield_now();
    }
    let load = service.load();
    assert_eq!(load.pages, load.pages_idle, "{load:?}");
    load
}

fn salted(salt: u8, job: &Job) -> Job {
    Job { salt: Digest::from_bytes([salt; 32]), ..job.clone() }
}

#[test]
fn a_prompt_is_taken_over_from_the_same_client_only() {
    let service = service(&ServiceOptions::default());
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(16);
    let job = Job { sampling: sampled(), ..job(&Prompt::Text(text), 80) };
    let (mut last, pages) = (0, job.prompt.len() / 64);
    assert!(pages >= 2);
    let mut reused = |job: Job| {
        let answer = service.generate(job).unwrap();
        let all = all_is_free(&service).reused;
        (answer, all - std::mem::replace(&mut last, all))
    };
    let (first, none) = reused(salted(1, &job));
    assert_eq!(none, 0);
    // Another client gains nothing from it, and so learns nothing.
    let (other, none) = reused(salted(2, &job));
    assert_eq!((essence(&other), none), (essence(&first), 0));
    let (again, some) = reused(Job { key: Digest::from_bytes([4; 32]), ..salted(1, &job) });
    let length = job.prompt.len();
    assert_eq!(some as usize, (length - 1) / 64 * 64);
    assert_eq!(again.tokens, first.tokens);
    assert_ne!(again.steps[0].state, first.steps[0].state);
    let (again, _) = reused(salted(1, &job));
    assert_eq!(essence(&again), essence(&first));
    // The next turn of a chat finds the answer's pages as well.
    let prompt = [&job.prompt[..], &first.tokens, &[5, 6, 7]].concat();
    let next = Job { prompt, max_tokens: 2, ..job.clone() };
    let (one, some) = reused(salted(1, &next));
    assert_eq!(some as usize, (length + first.tokens.len() - 1) / 64 * 64);
    assert_eq!(essence(&one), essence(&reused(salted(3, &next)).0));
}

#[test]
fn jobs_that_are_set_back_give_the_same_leaves() {
    let page = SERVICE.page_bytes();
    let text = |n: usize| Prompt::Text("All work and no play. ".repeat(n));
    let jobs = [
        Job { sampling: sampled(), ..job(&text(1), 70) },
        job(&text(9), 20),
        salted(9, &job(&text(9), 20)),
        Job { sampling: sampled(), ..job(&text(14), 30) },
    ];
    let alone: Vec<_> =
        jobs.iter().map(|job| SERVICE.generate(job.clone()).unwrap().steps).collect();
    for (budget, prefill_tokens) in [(2, 128), (4, 7)] {
        let kv_bytes = budget * page + page / 2;
        let crowd = service(&ServiceOptions { kv_bytes, prefill_tokens, ..Default::default() });
        let together: Vec<_> = jobs.iter().map(|job| events(&crowd, job.clone())).collect();
        for (expected, events) in alone.iter().zip(together) {
            let steps: Vec<Step> = events.into_iter().filter_map(step).collect();
            assert_eq!(&steps, expected, "{budget}");
        }
        let load = all_is_free(&crowd);
        assert!(load.pages <= budget && load.max_pages == budget, "{load:?}");
        assert!(load.evicted > 0 && (budget > 2 || load.preempted > 0), "{load:?}");
    }
}

#[test]
fn a_job_is_cancelled_in_every_phase() {
    let service = service(&ServiceOptions { max_active: 1, ..Default::default() });
    let submit = |job: Job| {
        let (sender, receiver) = mpsc::channel();
        let sink = move |event| match sender.send(event) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        };
        (service.submit(job, Box::new(sink)).unwrap(), receiver)
    };
    let (reading, read) = submit(job(&Prompt::Text("word ".repeat(6_000)), 10));
    assert!(matches!(read.recv(), Ok(Event::Started)));
    // One that waits goes at once, its sink with it.
    let (waiting, waited) = submit(capital(8_000));
    waiting.cancel();
    assert!(waited.recv().is_err());
    reading.cancel();
    assert!(!read.iter().any(|event| matches!(event, Event::Token { .. })));
    let (writing, written) = submit(capital(8_000));
    assert!(written.iter().any(|event| matches!(event, Event::Token { .. })));
    writing.cancel();
    assert!(written.iter().all(|event| !matches!(event, Event::Finished { .. })));
    writing.cancel();
    all_is_free(&service);
}

#[test]
fn another_client_is_not_kept_waiting_by_many_jobs() {
    let service = service(&ServiceOptions { max_active: 2, ..Default::default() });
    let many: Vec<_> = (0..6).map(|_| events(&service, salted(1, &capital(8_000)))).collect();
    assert!(matches!(many[1].recv(), Ok(Event::Started)));
    // Two of six are in the making and never end by themselves in time.
    let other = service.generate(salted(2, &capital(3))).unwrap();
    assert_eq!(other.tokens.len(), 3);
    drop(many);
    all_is_free(&service);
}

#[test]
fn prompts_around_the_limit_of_the_context() {
    for (length, fits) in [(8_190, true), (8_191, true), (8_192, false), (8_193, false)] {
        let job = Job { prompt: vec![9; length], ..capital(1) };
        match SERVICE.submit(job, Box::new(|_| ControlFlow::Break(()))) {
            Ok(_) => assert!(fits, "{length}"),
            Err(refusal) => assert!(!fits && refusal.to_string().contains("8192"), "{refusal}"),
        }
    }
}

fn offer(prompt: Prompt) -> Offer {
    Offer {
        model_id: MODEL.id(),
        prompt,
        sampling: sampled(),
        max_tokens: 12,
        stop: vec!["zzz".into()],
        level: Level::Full,
        public_nonce: [1; 32],
        client_nonce_hash: Digest::from_bytes([2; 32]),
        deadline_ms: 1_000,
        pooling: None,
        class: peerproof_wire::Class::Exact,
    }
}

#[test]
fn a_replay_gives_every_step_of_the_answer() {
    let offer = offer(chat("Name a fruit."));
    let job = Job { sampling: sampled(), ..job(&offer.prompt, offer.max_tokens) };
    let answer = SERVICE.generate(job.clone()).unwrap();
    let replayer = Replayer::new(Arc::clone(&MODEL), 2).unwrap();
    assert_eq!(replayer.model_id(), MODEL.id());
    assert_eq!(replayer.prompt_tokens(&offer).unwrap(), job.prompt);
    let replay = |tokens: &[u32]| {
        let mut steps = Vec::new();
        let mut on_step = |step| steps.push(step);
        replayer.replay(&offer, &job.key, &job.seed, &job.prompt, tokens, &mut on_step).unwrap();
        steps
    };
    assert_eq!(replay(&answer.tokens), answer.steps);
    let ending = replayer.ending(&offer, &answer.tokens).unwrap();
    assert_eq!((ending.stop, &ending.text), (Some(answer.stop), &answer.text));
    assert_eq!(ending.tokens as usize, answer.tokens.len());
    // A tampered token is read as claimed; beside it stands what the model says.
    let mut tampered = answer.tokens.clone();
    tampered[1] = 99;
    let steps = replay(&tampered);
    let last = job.prompt.len() - 1;
    assert_eq!(steps[..last + 2], answer.steps[..last + 2]);
    assert_eq!(steps[last + 2].token, 99);
    assert_ne!(steps[last + 2].state, answer.steps[last + 2].state);
}

#[test]
fn an_ending_is_read_from_the_first_token_on() {
    let replayer = Replayer::new(Arc::clone(&MODEL), 1).unwrap();
    let offer = Offer { max_tokens: 4, stop: vec!["b c".into()], ..offer(chat("x")) };
    let ids = |text: &str| MODEL.prompt_tokens(&Prompt::Text(text.into())).unwrap();
    let end = [2];
    for (answer, text, stop, tokens) in [
        (&[][..], "", None, 0),
        (&ids("a")[..], "a", None, 1),
        (&[&ids("a")[..], &end, &ids("b")].concat(), "a", Some(Stop::EndOfText), 2),
        (&ids("a b c d"), "a ", Some(Stop::StopString), 3),
        (&ids("a b d e f g"), "a b d e", Some(Stop::Length), 4),
        (&ids("a b"), "a b", None, 2),
    ] {
        let ending = replayer.ending(&offer, answer).unwrap();
        assert_eq!((ending.text.as_str(), ending.stop, ending.tokens), (text, stop, tokens));
    }
}

#[test]
fn a_replay_of_something_else_is_refused() {
    let replayer = Replayer::new(Arc::clone(&MODEL), 1).unwrap();
    let other = Offer { model_id: ModelId::from_bytes([0; 32]), ..offer(chat("x")) };
    assert!(matches!(replayer.prompt_tokens(&other), Err(ReplayError::Model { .. })));
    let key = Digest::from_bytes([0; 32]);
    let replay = |prompt: &[u32], answer: &[u32]| {
        replayer.replay(&offer(chat("x")), &key, &key, prompt, answer, &mut |_| {}).unwrap_err()
    };
    assert!(matches!(replay(&[], &[1]), ReplayError::Prompt(PromptError::Empty)));
    assert!(matches!(
        replay(&[1; 8_192], &[1, 2]),
        ReplayError::Prompt(PromptError::TooLong { .. })
    ));
    assert!(matches!(replay(&[1], &[60_000, 1]), ReplayError::Forward(_)));
}

#[test]
fn a_replay_keeps_within_its_cache() {
    // A page of 64 positions fits, a second one doesn't.
    let replayer = Replayer::new(Arc::clone(&MODEL), 1).unwrap().limited_to(2 << 20);
    let (asked, key) = (offer(chat("x")), Digest::from_bytes([0; 32]));
    let replay = |positions: usize| {
        replayer.replay(&asked, &key, &key, &vec![1; positions], &[1], &mut |_| {}).map(drop)
    };
    let embed =
        |positions: usize| replayer.embed(&asked, &key, &vec![1; positions], &mut |_| {}).map(drop);
    replay(64).unwrap();
    embed(64).unwrap();
    for refused in [replay(65), embed(65)] {
        let error = refused.unwrap_err();
        let said = error.to_string();
        assert!(matches!(error, ReplayError::CacheBudget { .. }), "{said}");
        assert!(said.contains("2097152"), "{said}");
    }
    assert!(MODEL.transformer().footprint().kv_whole > 100 << 20);
}

#[test]
fn other_architectures_are_refused_by_name() {
    let writer = support::Writer::default().str("general.architecture", "mamba");
    let file = peerproof_engine::gguf::Gguf::parse(writer.bytes()).unwrap();
    let error = Model::from_gguf(&file, &LoadOptions::default()).map(drop).unwrap_err();
    assert!(matches!(error, ModelError::Architecture { .. }));
    let message = error.to_string();
    assert!(message.contains("llama") && message.contains("mamba"), "{message}");
}

#[test]
fn prompts_that_are_none_are_refused() {
    for (prompt, words) in [
        (Prompt::Text(String::new()), "empty"),
        (Prompt::Chat(vec![]), "empty"),
        (Prompt::Tokens(vec![]), "empty"),
        (Prompt::Tokens(vec![0, 49_152]), "prompt token 1"),
        (Prompt::Chat(vec![ChatMessage { role: "judge".into(), content: "x".into() }]), "judge"),
    ] {
        let message = MODEL.prompt_tokens(&prompt).unwrap_err().to_string();
        assert!(message.contains(words), "{message:?} lacks {words:?}");
    }
}

#[test]
fn a_replay_stops_when_it_is_told_to() {
    let replayer = Replayer::new(Arc::clone(&MODEL), 1).expect("kernels");
    let offer = offer(chat("x"));
    let stop = AtomicBool::new(false);
    let (prompt, mut steps) = (vec![9; 400], 0);
    let mut on_step = |_| {
        steps += 1;
        stop.store(true, Ordering::Relaxed);
    };
    let zero = Digest::from_bytes([0; 32]);
    let given_up = replayer.until(&stop).replay(&offer, &zero, &zero, &prompt, &[1], &mut on_step);
    assert!(
        matches!(given_up, Err(ReplayError::Stopped { read: 256, tokens: 400 })),
        "{given_up:?}"
    );
    assert_eq!(steps, 256);
}
