//! Who is served when, what is kept in memory, and that neither changes a bit:
//! on a model so small that hundreds of jobs take a moment.
//!
//! Order is made, not hoped for: a first job's sink holds the loop until all
//! others wait, and what is counted is passes and events, never time.

mod support;

use std::cell::Cell;
use std::ops::ControlFlow;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, LazyLock, Mutex};

use peerproof_engine::gguf::Gguf;
use peerproof_engine::kernels::KernelPath;
use peerproof_engine::model::Model;
use peerproof_engine::service::{
    Event, Generated, Job, Load, Refusal, Service, ServiceOptions, Ticket,
};
use peerproof_engine::transformer::LoadOptions;
use peerproof_proof::Step;
use peerproof_wire::{Digest, Sampling};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use support::Writer;

const CONTEXT: u32 = 512;
const LETTERS: u32 = 26;
const WIDTH: u64 = 64;
const LAYERS: u64 = 2;

/// Blocks of 32 weights with 8 bits each, pseudo-random.
fn matrix(seed: &mut u64, cols: u64, rows: u64) -> Vec<u8> {
    let mut next = || {
        *seed =
            seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 40) as u16
    };
    let mut bytes = Vec::new();
    for _ in 0..cols * rows / 32 {
        bytes.extend((0x1000 | next() & 0x3ff).to_le_bytes());
        bytes.extend((0..32).map(|_| next() as u8));
    }
    bytes
}

fn ones() -> Vec<u8> {
    (0..WIDTH).flat_map(|_| 1f32.to_le_bytes()).collect()
}

static MODEL: LazyLock<Arc<Model>> = LazyLock::new(|| {
    let letters = (b'a'..=b'z').map(|letter| char::from(letter).to_string());
    let tokens: Vec<String> = letters.chain(["<end>".into()]).collect();
    let mut kinds = vec![1; LETTERS as usize];
    kinds.push(3);
    let mut writer = Writer::default()
        .str("general.architecture", "llama")
        .u32("llama.block_count", LAYERS as u32)
        .u32("llama.context_length", CONTEXT)
        .u32("llama.embedding_length", WIDTH as u32)
        .u32("llama.feed_forward_length", 96)
        .u32("llama.attention.head_count", 4)
        .u32("llama.attention.head_count_kv", 2)
        .u32("llama.rope.dimension_count", 16)
        .f32("llama.attention.layer_norm_rms_epsilon", 1e-6)
        .str("tokenizer.ggml.model", "gpt2")
        .str("tokenizer.ggml.pre", "gpt-2")
        .strings("tokenizer.ggml.tokens", &tokens)
        .i32s("tokenizer.ggml.token_type", &kinds)
        .strings::<&str>("tokenizer.ggml.merges", &[])
        .u32("tokenizer.ggml.eos_token_id", LETTERS);
    let mut seed = 7;
    let mut add = |writer: Writer, name: &str, cols, rows| {
        writer.tensor(&format!("{name}.weight"), &[cols, rows], 8, &matrix(&mut seed, cols, rows))
    };
    writer = add(writer, "token_embd", WIDTH, u64::from(LETTERS) + 1);
    writer = writer.tensor("output_norm.weight", &[WIDTH], 0, &ones());
    for layer in 0..LAYERS {
        let shapes = [
            ("attn_q", WIDTH, WIDTH),
            ("attn_k", WIDTH, 32),
            ("attn_v", WIDTH, 32),
            ("attn_output", WIDTH, WIDTH),
            ("ffn_gate", WIDTH, 96),
            ("ffn_up", WIDTH, 96),
            ("ffn_down", 96, WIDTH),
        ];
        for (name, cols, rows) in shapes {
            writer = add(writer, &format!("blk.{layer}.{name}"), cols, rows);
        }
        for name in ["attn_norm", "ffn_norm"] {
            writer = writer.tensor(&format!("blk.{layer}.{name}.weight"), &[WIDTH], 0, &ones());
        }
    }
    let file = Gguf::parse(writer.bytes()).expect("a good file");
    Model::from_gguf(&file, &LoadOptions::default()).expect("a model")
});

/// Serves one job after the other.
static ALONE: LazyLock<Service> =
    LazyLock::new(|| start(&ServiceOptions { max_active: 1, threads: 1, ..Default::default() }));

fn start(options: &ServiceOptions) -> Service {
    Service::start(Arc::clone(&MODEL), options).expect("a service")
}

/// A prompt of `length` letters; those of one kind begin alike.
fn prompt(kind: u32, length: usize) -> Vec<u32> {
    (0..length as u32).map(|at| (at * at * (kind + 1) + at / 7) % LETTERS).collect()
}

fn job(client: u8, prompt: Vec<u32>, max_tokens: u32) -> Job {
    // The end is as far away as every job of a test wants it.
    let bias = vec![peerproof_wire::LogitBias { token: LETTERS, bias_q16: -100 << 16 }];
    Job {
        key: Digest::from_bytes([client; 32]),
        seed: Digest::from_bytes([9; 32]),
        prompt,
        resume: vec![],
        sampling: Sampling { bias, ..Sampling::GREEDY },
        max_tokens,
        stop: vec![],
        salt: Digest::from_bytes([client; 32]),
    }
}

/// What a job's sink has heard, with the job's name.
type Heard = (usize, Event);

fn submit(service: &Service, name: usize, job: Job, to: &Sender<Heard>) -> Ticket {
    let to = to.clone();
    let sink =
        move |event| to.send((name, event)).map_or(ControlFlow::Break(()), ControlFlow::Continue);
    service.submit(job, Box::new(sink)).expect("a job that fits")
}

/// Holds the loop in a job's first event; the service goes on when the sender goes.
fn hold(service: &Service) -> Sender<()> {
    let (go, gate) = mpsc::channel::<()>();
    let (started, is_started) = mpsc::channel();
    let sink = move |_| {
        let _ = started.send(());
        let _ = gate.recv();
        ControlFlow::Break(())
    };
    service.submit(job(255, prompt(0, 1), 1), Box::new(sink)).expect("a job that fits");
    is_started.recv().expect("a loop");
    go
}

/// Waits until no job is left; checks what they leave behind, and that it goes.
fn all_is_free(service: &Service) -> Load {
    let settled = |done: fn(&Load) -> bool| loop {
        let load = service.load();
        if load.active + load.queued == 0 && done(&load) {
            return load;
        }
        std::thread::yield_now();
    };
    let load = settled(|_| true);
    assert_eq!((load.pages, load.bytes), (load.pages_idle, load.pages * service.page_bytes()));
    service.forget();
    let last = settled(|load| load.pages == 0);
    assert_eq!(last.bytes, 0, "{last:?}");
    load
}

fn step(event: &Event) -> Option<&Step> {
    match event {
        Event::Prompt { step } | Event::Token { step, .. } => Some(step),
        _ => None,
    }
}

fn alone(job: &Job) -> Generated {
    // A salt of its own: nothing is taken over.
    let salt = Digest::from_bytes([254; 32]);
    ALONE.generate(Job { salt, ..job.clone() }).expect("an answer")
}

#[test]
fn many_long_prompts_of_one_client_do_not_keep_another_waiting() {
    let service = start(&ServiceOptions { max_active: 4, ..Default::default() });
    let go = hold(&service);
    let (sender, heard) = mpsc::channel();
    for name in 0..20 {
        submit(&service, name, job(1, prompt(name as u32, 400), 60), &sender);
    }
    submit(&service, 20, job(2, prompt(3, 20), 5), &sender);
    drop((go, sender));
    // The short one is read in its first pass and has a token in each.
    let mut others = 0;
    for (name, event) in &heard {
        match (name, event) {
            (20, Event::Finished { .. }) => break,
            (20, _) => {}
            (name, Event::Finished { .. }) => panic!("{name} was done first"),
            _ => others += 1,
        }
    }
    // Four started; in each of five passes they had what the short one left of 128.
    assert!(others <= 4 + 108 + 4 * 64, "{others}");
    drop(heard);
    all_is_free(&service);
}

#[test]
fn the_longest_prompt_does_not_stop_answers_in_the_making() {
    let service = start(&ServiceOptions::default());
    let (sender, heard) = mpsc::channel();
    let go = hold(&service);
    submit(&service, 0, job(1, prompt(1, 2), 100), &sender);
    submit(&service, 1, job(1, prompt(2, 500), 1), &sender);
    drop((go, sender));
    let order: Vec<Heard> = heard.iter().collect();
    let end =
        order.iter().position(|(name, event)| *name == 1 && matches!(event, Event::Token { .. }));
    let before = &order[..end.expect("a token")];
    let tokens =
        before.iter().filter(|(name, event)| *name == 0 && matches!(event, Event::Token { .. }));
    // 126 positions beside the first job's two, 63 beside each of its tokens: 6 passes more.
    assert_eq!(tokens.count(), 7);
    let load = all_is_free(&service);
    assert_eq!((load.passes, load.computed), (100, 2 + 99 + 500));
}

/// Where a job is given up.
fn leave(service: &Service, job: Job, leaves: impl Fn(&Event) -> bool + Send + 'static) {
    let (sender, gone) = mpsc::channel::<()>();
    let sink = move |event| {
        let _alive = &sender;
        if leaves(&event) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    service.submit(job, Box::new(sink)).expect("a job that fits");
    // The sink goes with the job.
    assert!(gone.recv().is_err());
    all_is_free(service);
}

#[test]
fn a_client_that_leaves_in_any_phase_frees_all() {
    let service = start(&ServiceOptions { prefill_tokens: 50, ..Default::default() });
    let whole = || job(1, prompt(1, 130), 80);
    leave(&service, whole(), |event| matches!(event, Event::Started));
    for position in [0, 49, 50, 63, 64, 99, 128] {
        leave(&service, whole(), move |event| step(event).is_some_and(|s| s.position == position));
    }
    for last in [0, 1, 40, 78, 79] {
        leave(
            &service,
            whole(),
            move |e| matches!(e, Event::Token { index, .. } if *index == last),
        );
    }
    leave(&service, whole(), |event| matches!(event, Event::Finished { .. }));
    leave(&service, whole(), |_| false);
    let wrong = Job { resume: vec![LETTERS; 70], ..whole() };
    leave(&service, wrong.clone(), |event| matches!(event, Event::Diverged { .. }));
    leave(&service, wrong, |_| false);
}

#[test]
fn a_ticket_ends_a_job_in_any_phase() {
    let service =
        start(&ServiceOptions { max_active: 2, prefill_tokens: 20, ..Default::default() });
    let (sender, heard) = mpsc::channel();
    let go = hold(&service);
    let tickets: Vec<Ticket> =
        (0..5).map(|name| submit(&service, name, job(1, prompt(1, 150), 300), &sender)).collect();
    // One that waits goes at once: the loop stands still.
    tickets[4].cancel();
    assert_eq!(service.load().queued, 4);
    drop((go, sender));
    let mut ended = Vec::new();
    for (name, event) in heard.iter() {
        assert!(name != 4);
        // The loop goes on meanwhile: a job is in the middle of its prompt, between
        // chunks, or writes.
        let last = match name {
            0 => matches!(&event, Event::Prompt { step } if step.position == 30),
            1 => matches!(&event, Event::Prompt { step } if step.position == 148),
            2 => matches!(&event, Event::Token { index: 0, .. }),
            _ => matches!(&event, Event::Token { index: 70, .. }),
        };
        if last {
            tickets[name].cancel();
            tickets[name].cancel();
            ended.push(name);
        }
        assert!(!matches!(event, Event::Refused(_)), "{event:?}");
    }
    ended.sort_unstable();
    assert_eq!(ended, [0, 1, 2, 3]);
    tickets.iter().for_each(Ticket::cancel);
    all_is_free(&service);
}

#[test]
fn memory_stays_within_its_budget_and_what_cannot_fit_is_told_so() {
    let page = start(&ServiceOptions::default()).page_bytes();
    let options = ServiceOptions { kv_bytes: 3 * page + page / 2, ..Default::default() };
    let service = start(&options);
    let fits =
        |length| service.submit(job(1, prompt(1, length), 1), Box::new(|_| ControlFlow::Break(())));
    assert!(fits(192).is_ok());
    match fits(193) {
        Err(Refusal::CacheBudget { expected, got }) => {
            assert_eq!((expected, got), (options.kv_bytes, 4 * page));
        }
        other => panic!("{other:?}"),
    }
    let above = job(1, prompt(1, CONTEXT as usize - 9), 10);
    let refusal = ALONE.submit(above, Box::new(|_| ControlFlow::Break(()))).expect_err("too long");
    let words = refusal.to_string();
    assert!(["503", "10", "512"].iter().all(|number| words.contains(number)), "{words}");
    assert!(fits(0).is_err());
    all_is_free(&service);
}

#[test]
fn a_full_queue_pushes_back() {
    let service = start(&ServiceOptions { max_queued: 3, ..Default::default() });
    let go = hold(&service);
    let (sender, heard) = mpsc::channel();
    let tickets: Vec<_> =
        (0..3).map(|name| submit(&service, name, job(1, prompt(1, 9), 2), &sender)).collect();
    let one_more = || service.submit(job(2, prompt(1, 9), 2), Box::new(|_| ControlFlow::Break(())));
    let refusal = one_more().expect_err("no place");
    assert!(refusal.is_busy() && refusal.to_string().contains('3'), "{refusal}");
    tickets[1].cancel();
    assert!(one_more().is_ok());
    drop((go, sender));
    let finished = heard.iter().filter(|(_, event)| matches!(event, Event::Finished { .. }));
    assert_eq!(finished.count(), 2);
    all_is_free(&service);
}

/// A job of a crowd, and after how many events its client leaves.
#[derive(Clone, Debug)]
struct Guest {
    job: Job,
    stays: Option<usize>,
}

fn guest() -> impl Strategy<Value = Guest> {
    let lengths = prop_oneof![1usize..40, 60usize..200];
    let rules = (0u32..2, prop::option::weighted(0.2, 0usize..60), 0usize..30);
    (0u8..3, 0u32..2, lengths, 1u32..90, rules).prop_map(
        |(client, kind, length, max_tokens, (warm, stays, resumed))| {
            let mut job = job(client, prompt(kind, length), max_tokens);
            job.sampling.temperature_q16 = warm << 16;
            // Tokens that are mostly wrong.
            job.resume = prompt(kind, resumed.min(max_tokens as usize));
            Guest { job, stays }
        },
    )
}

fn options() -> impl Strategy<Value = ServiceOptions> {
    let path = prop::sample::select(KernelPath::available());
    (1usize..6, 5usize..16, 1usize..150, 1usize..3, path).prop_map(
        |(max_active, pages, prefill_tokens, threads, path)| {
            let kv_bytes = pages * ALONE.page_bytes();
            ServiceOptions { threads, path, max_active, kv_bytes, prefill_tokens, max_queued: 32 }
        },
    )
}

/// What a guest hears, as far as it stays.
fn visit(service: &Service, guest: &Guest) -> Receiver<Event> {
    let (sender, heard) = mpsc::channel();
    let left = Mutex::new(guest.stays);
    let sink = move |event| {
        let sent = sender.send(event);
        let mut left = left.lock().expect("one thread");
        *left = left.map(|left| left.wrapping_sub(1));
        let goes = sent.is_err() || *left == Some(0);
        if goes { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    service.submit(guest.job.clone(), Box::new(sink)).expect("a job that fits");
    heard
}

/// Serves a crowd, and compares each guest's steps with those of its job alone.
fn serve(options: &ServiceOptions, guests: &[Guest]) -> Result<Load, TestCaseError> {
    let service = start(options);
    let go = hold(&service);
    let heard: Vec<_> = guests.iter().map(|guest| visit(&service, guest)).collect();
    drop(go);
    for (guest, heard) in guests.iter().zip(heard) {
        let events: Vec<Event> = heard.into_iter().collect();
        let steps: Vec<&Step> = events.iter().filter_map(step).collect();
        let expected = alone(&guest.job);
        prop_assert!(steps.len() <= expected.steps.len());
        prop_assert!(steps.iter().zip(&expected.steps).all(|(got, expected)| *got == expected));
        if guest.stays.is_none_or(|stays| stays == 0) {
            prop_assert_eq!(steps.len(), expected.steps.len());
            let told = matches!(events.last(), Some(Event::Finished { text, .. }) if *text == expected.text);
            prop_assert!(told);
        }
    }
    let load = all_is_free(&service);
    prop_assert!(load.pages <= load.max_pages);
    Ok(load)
}

#[test]
fn company_memory_and_order_change_no_bit() {
    let seen = Cell::new([0; 3]);
    let config = Config { cases: 48, failure_persistence: None, ..Config::default() };
    let crowds = (options(), prop::collection::vec(guest(), 1..12));
    let outcome = TestRunner::new(config).run(&crowds, |(options, guests)| {
        let Load { reused, evicted, preempted, .. } = serve(&options, &guests)?;
        let [a, b, c] = seen.get();
        seen.set([a + reused, b + evicted, c + preempted]);
        Ok(())
    });
    outcome.expect("the same bits");
    // All of what might change them has happened.
    assert!(seen.get().iter().all(|&times| times > 0), "{:?}", seen.get());
}
