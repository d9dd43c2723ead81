//! The log and what follows from it: remember at once, then make it last.

use peerproof_identity::PeerId;
use peerproof_job::router;
use peerproof_wire::{Digest, Evidence, LogBody, LogEntry, LogProof, Message as _, NetworkGroup};

use crate::check::Violation;
use crate::world::{Context, Wake};

use super::Node;

impl Node {
    /// Takes something into account and appends it.
    pub(super) fn record(&mut self, context: &mut Context, mut body: LogBody) {
        if let LogBody::Accepted(accepted) = &mut body
            && let Some(by) = &mut accepted.auditor
        {
            // All of them are on one private network.
            by.group = NetworkGroup::Local;
        }
        let entry = LogEntry { unix_ms: self.unix_ms(context.now), body };
        let before: Vec<PeerId> = self.barred().collect();
        self.reputation.note(&entry);
        let barred: Vec<PeerId> = self.barred().filter(|peer| !before.contains(peer)).collect();
        self.tell_jobs(context, &barred);
        if let LogBody::Evidence(evidence) = &entry.body {
            self.watch(context, evidence);
            self.spread_evidence(evidence);
        }
        self.append(context, &entry);
    }

    /// A bar reaches every job, whichever found the reason.
    fn tell_jobs(&self, context: &mut Context, barred: &[PeerId]) {
        for peer in barred {
            for job in self.jobs.keys() {
                let event = router::In::Barred(*peer, "barred meanwhile".into());
                self.wake_after(context, 0, Wake::Job(*job, Box::new(event)));
            }
        }
    }

    /// Appends an entry; gives back its place once it is safe.
    pub(super) fn append(&mut self, context: &mut Context, entry: &LogEntry) -> Option<LogProof> {
        let payload = entry.encode().expect("this node's own entries keep the limits");
        let log = self.log.as_mut()?;
        match log.append(&[&payload]) {
            Ok(positions) => {
                let hash = *blake3::hash(&payload).as_bytes();
                context.facts.acknowledged[self.index].push(hash);
                self.note_checkpoint(context);
                self.proof_of(positions.start)
            }
            Err(error) => {
                if self.disk.is_dead() {
                    context.dying.push(self.index);
                } else {
                    let why = error.to_string();
                    context.facts.violate(Violation::NotAppended { node: self.index, why });
                }
                None
            }
        }
    }

    fn proof_of(&self, index: u64) -> Option<LogProof> {
        let log = self.log.as_ref()?;
        let path = log.inclusion(index, log.len()).ok()?;
        Some(LogProof {
            index,
            checkpoint: log.checkpoint()?.note().to_owned(),
            path: path.into_iter().map(Digest::from_bytes).collect(),
        })
    }

    /// The world remembers what this node let others see.
    pub(super) fn note_checkpoint(&self, context: &mut Context) {
        if let Some(checkpoint) = self.log.as_ref().and_then(|log| log.checkpoint()) {
            context.facts.shown[self.index].insert((checkpoint.size(), *checkpoint.root()));
        }
    }

    /// The world's own view of what this node writes about others.
    fn watch(&self, context: &mut Context, evidence: &Evidence) {
        let (accused, convinces, code) = match evidence {
            Evidence::WrongAnswer(wrong) => (wrong.case.receipt.key(), true, "wrong-answer"),
            Evidence::Equivocation(two) => (two.first.key(), true, "equivocation"),
            Evidence::Fork(fork) => (fork.key, true, "fork"),
            Evidence::Fraud(claim) => (claim.accused, true, "fraud-proof"),
            Evidence::FalseVerdict(said) => (said.verdict.key(), false, "false-verdict"),
            Evidence::Observation(seen) => {
                (seen.provider, false, seen.reason.split(':').next().unwrap_or_default())
            }
        };
        let Some(accused) = self.node_of(context, accused.peer_id()) else { return };
        context.trace.note(
            context.now,
            format_args!("node {} records {code} of node {accused}", self.index),
        );
        if !self.conduct.is_honest() {
            return;
        }
        let honest = context.scenario.nodes[accused].conduct.is_honest();
        // What a bad network does to an honest provider.
        let weather = ["unreachable", "dropped", "stalled", "refused", "unanswered-challenge"];
        // What liars can make others say, which bars nobody.
        let liars = context.scenario.nodes.iter().any(|node| !node.conduct.is_honest());
        let word = liars && matches!(code, "minority" | "accused");
        if honest && !word && !weather.contains(&code) {
            let code = code.to_owned();
            let by = self.index;
            context.facts.violate(Violation::FalseAccusation { by, accused, code });
        }
        context.facts.marked.insert(accused);
        if convinces {
            context.facts.convict(accused, self.index);
        }
    }

    pub(super) fn node_of(&self, context: &Context, peer: PeerId) -> Option<usize> {
        context.peers.iter().position(|known| *known == peer)
    }
}
