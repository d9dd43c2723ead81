//! Bytes from anyone: no panic, no growth beyond what came, and what decodes is canonical.

use proptest::prelude::*;
use proptest::sample::Index;

use crate::*;

use super::samples;

/// A frame full of tiny messages would grow a hundredfold in memory; it is
/// refused at the first one over the limit.
#[test]
fn amplification_is_refused_on_the_raw_bytes() {
    let check = |head: &[u8], part: &[u8], place: &'static str, limit: usize| {
        let body: Vec<u8> = part.repeat(400_000 / part.len());
        let mut bytes = head.to_vec();
        prost::encoding::encode_varint(body.len() as u64, &mut bytes);
        bytes.extend(body);
        let expected = WireError::OverLimit { place, limit: limit as u64, got: limit as u64 + 1 };
        assert_eq!(ProviderFrame::decode(&bytes), Err(expected));
    };
    let openings = [0x22];
    check(&openings, &[0x0a, 0], "openings.openings", limits::MAX_OPENINGS);
    let error = Offer::decode(&[0x4a, 0].repeat(400)).unwrap_err();
    let expected = WireError::OverLimit { place: "offer.stop", limit: 16, got: 17 };
    assert_eq!(error, expected);
}

fn decode_all(bytes: &[u8]) {
    for sample in samples::all() {
        if let Ok((_, encoded)) = (sample.decode)(bytes) {
            assert_eq!(encoded, bytes, "{}", sample.name);
        }
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        decode_all(&bytes);
    }

    /// Valid messages with bytes replaced, inserted and removed, which get
    /// further than noise.
    #[test]
    fn damaged_messages_never_panic(
        which: Index,
        edits in prop::collection::vec((any::<Index>(), any::<u8>(), 0..3u8), 1..6),
    ) {
        let samples = samples::all();
        let sample = &samples[which.index(samples.len())];
        let mut bytes = sample.bytes.clone();
        for (at, byte, edit) in edits {
            let at = at.index(bytes.len().max(1));
            match edit {
                0 if at < bytes.len() => bytes[at] = byte,
                1 if at < bytes.len() => { bytes.remove(at); }
                _ => bytes.insert(at.min(bytes.len()), byte),
            }
        }
        if let Ok((_, encoded)) = (sample.decode)(&bytes) {
            prop_assert_eq!(encoded, bytes);
        }
    }

    #[test]
    fn messages_taken_for_others_never_panic(which: Index) {
        let samples = samples::all();
        decode_all(&samples[which.index(samples.len())].bytes);
    }

    #[test]
    fn offers_survive_the_way(
        text in ".{1,200}",
        stop in prop::collection::vec(".{1,20}", 0..4),
        (temperature_q16, top_k, top_p_q16) in (0..=limits::MAX_TEMPERATURE_Q16, 0..=limits::MAX_TOP_K, 1..=limits::MAX_TOP_P_Q16),
        max_tokens in 1..=limits::MAX_ANSWER_TOKENS,
        deadline_ms in 1..=limits::MAX_DEADLINE_MS,
        public_nonce: [u8; 32],
    ) {
        let offer = Offer {
            prompt: Prompt::Text(text),
            sampling: Sampling { temperature_q16, top_k, top_p_q16, ..samples::sampling() },
            stop, max_tokens, deadline_ms, public_nonce,
            ..samples::offer()
        };
        prop_assert_eq!(Offer::decode(&offer.encode().unwrap()).unwrap(), offer);
    }

    #[test]
    fn offers_of_embeddings_survive_the_way(
        pooling in prop::sample::select(vec![Pooling::Model, Pooling::Mean, Pooling::Last]),
        max_tokens in 1..=limits::MAX_ANSWER_TOKENS,
    ) {
        let offer = Offer {
            sampling: Sampling::GREEDY,
            stop: vec![],
            pooling: Some(pooling),
            max_tokens,
            ..samples::offer()
        };
        prop_assert_eq!(Offer::decode(&offer.encode().unwrap()).unwrap(), offer);
    }

    #[test]
    fn pieces_of_answers_survive_the_way(
        start in 0..1000u32,
        ids in prop::collection::vec(0..=limits::MAX_TOKEN_ID, 1..100),
        text: String,
    ) {
        let logprobs = vec![samples::token_logprobs(); ids.len() / 2];
        let frame = Tokens { start, tokens: ids, text, commitment: None, logprobs };
        let frame = ProviderFrame::Tokens(frame);
        prop_assert_eq!(ProviderFrame::decode(&frame.encode().unwrap()).unwrap(), frame);
    }

    #[test]
    fn failures_can_say_anything(message: String) {
        let failure = Failure::new(FailureCode::Internal, &message);
        prop_assert_eq!(Failure::decode(&failure.encode().unwrap()).unwrap(), failure);
    }

    #[test]
    fn digests_read_what_they_print(bytes: [u8; 32], noise in ".{0,70}") {
        let digest = Digest::from_bytes(bytes);
        prop_assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        let _ = noise.parse::<ModelId>();
    }
}

#[test]
fn only_sixty_four_hexadecimal_digits_are_a_digest() {
    let good = "0123456789abcdefABCDEF0123456789abcdef0123456789abcdef0123456789";
    assert!(good.parse::<Digest>().is_ok());
    for bad in [&good[1..], &format!("{good}0"), &good.replace('a', "g"), ""] {
        let error = bad.parse::<Digest>().unwrap_err();
        assert!(matches!(error, WireError::NotHex { .. }), "{bad}");
    }
    assert!(Digest::from_slice(&[0; 31]).is_err());
}
