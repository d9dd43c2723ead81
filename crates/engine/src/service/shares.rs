//! Who reads how much in the next pass.

use std::collections::BTreeMap;

use peerproof_wire::Digest;

/// How many tokens each job reads: one for an answer in the making; of `prefill`
/// every client with a prompt to read has an equal share, and every prompt of a
/// client an equal share of that, at least one token. What a client or a prompt
/// leaves over goes to the next.
///
/// While answers are being made, they and the prompts have half of `prefill`
/// together, so that a pass stays short; an eighth is the prompts' in any case.
pub(super) fn shares(pending: &[(Digest, usize)], prefill: usize) -> Vec<usize> {
    let mut shares: Vec<usize> = pending.iter().map(|&(_, tokens)| tokens.min(1)).collect();
    let decoding = pending.iter().filter(|&&(_, tokens)| tokens == 1).count();
    let beside = (prefill / 2).saturating_sub(decoding).max(prefill / 8);
    let budget = if decoding > 0 { beside } else { prefill };
    let mut clients: BTreeMap<Digest, Vec<usize>> = BTreeMap::new();
    for (at, &(client, tokens)) in pending.iter().enumerate() {
        if tokens > 1 {
            clients.entry(client).or_default().push(at);
        }
    }
    let jobs: Vec<Vec<usize>> = clients.into_values().collect();
    let wants: Vec<usize> =
        jobs.iter().map(|jobs| jobs.iter().map(|&at| pending[at].1).sum()).collect();
    for (jobs, budget) in jobs.iter().zip(split(&wants, budget)) {
        let wants: Vec<usize> = jobs.iter().map(|&at| pending[at].1).collect();
        for (&at, share) in jobs.iter().zip(split(&wants, budget)) {
            shares[at] = share.max(1);
        }
    }
    shares
}

/// Equal parts of `budget`, none larger than wanted.
fn split(wants: &[usize], mut budget: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..wants.len()).collect();
    order.sort_by_key(|&at| wants[at]);
    let mut parts = vec![0; wants.len()];
    for (done, at) in order.into_iter().enumerate() {
        parts[at] = wants[at].min(budget / (wants.len() - done));
        budget -= parts[at];
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_clients(pending: &[(u8, usize)], prefill: usize) -> Vec<usize> {
        let pending: Vec<_> =
            pending.iter().map(|&(c, n)| (Digest::from_bytes([c; 32]), n)).collect();
        shares(&pending, prefill)
    }

    #[test]
    fn every_job_moves_in_every_turn() {
        for (pending, prefill, expected) in [
            (&[][..], 128, &[][..]),
            (&[1, 1], 128, &[1, 1]),
            (&[500], 128, &[128]),
            (&[1, 500], 128, &[1, 63]),
            (&[500, 10, 500], 128, &[59, 10, 59]),
            (&[1, 9, 500, 1], 128, &[1, 9, 53, 1]),
            (&[9, 9, 9], 1, &[1, 1, 1]),
            (&[2], 0, &[1]),
        ] {
            let pending: Vec<_> = pending.iter().map(|&n| (0, n)).collect();
            assert_eq!(of_clients(&pending, prefill), expected, "{pending:?}");
        }
        let crowd: Vec<_> =
            (0..101).map(|client| (client, if client < 100 { 1 } else { 500 })).collect();
        assert_eq!(of_clients(&crowd, 128)[100], 16);
    }

    #[test]
    fn many_prompts_of_one_client_share_what_one_of_another_has() {
        let mut pending = vec![(1, 500); 30];
        pending.push((2, 500));
        let shares = of_clients(&pending, 128);
        assert_eq!(shares[30], 64);
        assert!(shares[..30].iter().all(|share| (2..=3).contains(share)));
        assert_eq!(of_clients(&[(1, 500), (1, 500), (2, 20)], 128), [54, 54, 20]);
    }
}
