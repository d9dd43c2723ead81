//! Routers that take what they can get: streams that say nothing, readers that do not read.

use std::time::Instant;

use peerproof_wire::{JOB_PROTOCOL, Prompt};

use super::provider::victim;
use super::stage::{PATIENCE, Router, receive, runtime};

#[test]
fn two_hundred_silent_streams() {
    runtime().block_on(async {
        let (_turn, provider) = victim().await;
        let routers = [Router::to(provider).await, Router::to(provider).await];
        let mut silent = Vec::new();
        for number in 0..200 {
            let mut stream = routers[number % 2].stream_of(JOB_PROTOCOL).await.unwrap();
            // Some begin a frame and never end it; those that find no place are closed.
            if number % 3 == 0 {
                stream.send_raw(&[0xff, 0xff, 0x3f, 0x0a]).await;
            }
            silent.push(stream);
        }
        provider.is_sound("200 silent streams").await;
        let since = Instant::now();
        for stream in &mut silent {
            assert!(receive(stream).await.is_err(), "a silent stream was answered");
        }
        assert!(since.elapsed() < PATIENCE);
        // The places are free again while the silent side still holds its ends.
        for router in &routers {
            let mut waiting = router.stream_of(JOB_PROTOCOL).await;
            while waiting.is_err() && since.elapsed() < PATIENCE {
                waiting = router.stream_of(JOB_PROTOCOL).await;
            }
            let mut stream = waiting.unwrap();
            router.open(&mut stream, &router.offer(|_| {}), &[]).await;
            super::stage::collect(&mut stream).await.unwrap();
        }
        provider.is_sound("200 silent streams, closed").await;
    });
}

#[test]
fn readers_that_do_not_read() {
    runtime().block_on(async {
        let (_turn, provider) = victim().await;
        let router = Router::to(provider).await;
        let mut held = Vec::new();
        for _ in 0..6 {
            let mut stream = router.stream().await;
            let offer = router.offer(|offer| {
                offer.max_tokens = 300;
                offer.deadline_ms = 6_000;
            });
            router.open(&mut stream, &offer, &[]).await;
            held.push(stream);
        }
        // The streams are kept, and nothing is taken from them: the engine is free all the same.
        provider.idle("readers that do not read").await;
        provider.is_sound("readers that do not read").await;
        drop(held);
    });
}

#[test]
fn large_prompts_that_are_cancelled() {
    runtime().block_on(async {
        let (_turn, provider) = victim().await;
        let router = Router::to(provider).await;
        for _ in 0..12 {
            let mut stream = router.stream().await;
            let prompt = Prompt::Text("aB3 \u{e9}\u{4e2d}".repeat(45_000));
            let offer = router.offer(|offer| offer.prompt = prompt);
            router.open(&mut stream, &offer, &[]).await;
            super::stage::send(&mut stream, &peerproof_wire::RouterFrame::Cancel).await;
        }
        provider.is_sound("large prompts").await;
    });
}
