//! Proofs passed from peer to peer: gossipsub with one topic, and a judge.
//!
//! A message is taken from the network, held to a pace and a size, and waits for
//! the application's [`Judgement`]; only what is accepted goes on to others. A
//! message that is rejected costs its sender score, and a sender with too little
//! of it is heard no more for a while. Messages carry no author and no number:
//! what they say proves itself, and their id is their SHA-256, so the same one
//! passes a node once. Absent: what a message means, and any memory of it beyond
//! a few minutes.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use libp2p::gossipsub::{
    Behaviour, Config, ConfigBuilder, Event, IdentTopic, IdentityTransform, MessageAcceptance,
    MessageAuthenticity, MessageId, PeerScoreParams, PeerScoreThresholds, TopicScoreParams,
    ValidationMode, WhitelistSubscriptionFilter,
};
use peerproof_identity::PeerId;
use peerproof_wire::EVIDENCE_TOPIC;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use crate::address::from_libp2p;
use crate::limits::{
    GOSSIP_BURST, GOSSIP_MEMORY, GOSSIP_PER_SECOND, GOSSIP_QUEUE, MAX_GOSSIP_BYTES,
    MAX_GOSSIP_SENDERS, MAX_GOSSIP_WAITING,
};
use crate::{Handle, NetError};

pub(crate) type Gossipsub = Behaviour<IdentityTransform, WhitelistSubscriptionFilter>;

/// What a wrong message costs: the second one within a few minutes is too many.
const INVALID_WEIGHT: f64 = -20.0;
/// What is left of that after each [`DECAY_EVERY`].
const INVALID_DECAY: f64 = 0.9;
const DECAY_EVERY: Duration = Duration::from_secs(10);
/// From here on nothing of a peer is heard.
const GRAYLIST_BELOW: f64 = -60.0;

/// A message that somebody passed on.
#[derive(Debug)]
pub struct Heard {
    /// Who passed it on; whoever made it is not known.
    pub from: PeerId,
    /// The message.
    pub data: Vec<u8>,
    id: MessageId,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It is passed on.
    Accept,
    /// It ends here, and nobody is blamed.
    Ignore,
    /// It ends here, and whoever passed it on loses score.
    Reject,
}

/// The application's end of the topic.
#[derive(Debug)]
pub struct Gossip {
    handle: Handle,
    heard: mpsc::Receiver<Heard>,
}

impl Gossip {
    pub(crate) fn new(handle: Handle, heard: mpsc::Receiver<Heard>) -> Self {
        Self { handle, heard }
    }

    /// The next message, which must be judged; `None` after the network has stopped.
    pub async fn next(&mut self) -> Option<Heard> {
        self.heard.recv().await
    }

    /// Says what becomes of a message.
    pub async fn judge(&self, heard: &Heard, judgement: Judgement) -> Result<(), NetError> {
        self.handle.judge(heard.from, heard.id.clone(), judgement).await
    }

    /// Sends a message to everybody who listens; `false` if nobody does at the moment.
    ///
    /// # Errors
    /// [`NetError::Limit`] for one that is too long.
    pub async fn publish(&self, data: Vec<u8>) -> Result<bool, NetError> {
        self.handle.publish(data).await
    }
}

pub(crate) fn behaviour() -> Result<Gossipsub, NetError> {
    let failed = |detail: String| NetError::Setup { detail };
    let only = WhitelistSubscriptionFilter(HashSet::from([topic().hash()]));
    let config = config().map_err(failed)?;
    let made =
        Gossipsub::new_with_subscription_filter(MessageAuthenticity::Anonymous, config, only);
    let mut gossip = made.map_err(|error| failed(error.to_owned()))?;
    let (params, thresholds) = scores();
    gossip.with_peer_score(params, thresholds).map_err(failed)?;
    Ok(gossip)
}

fn topic() -> IdentTopic {
    IdentTopic::new(EVIDENCE_TOPIC)
}

fn config() -> Result<Config, String> {
    ConfigBuilder::default()
        .validation_mode(ValidationMode::Anonymous)
        .validate_messages()
        .message_id_fn(|message| MessageId::new(&Sha256::digest(&message.data)))
        // A message with its envelope, and what may ride along.
        .max_transmit_size(MAX_GOSSIP_BYTES + 4096)
        .heartbeat_initial_delay(Duration::from_millis(500))
        .duplicate_cache_time(GOSSIP_MEMORY)
        .connection_handler_queue_len(GOSSIP_QUEUE)
        .build()
        .map_err(|error| error.to_string())
}

/// Messages are too rare to earn score by, and neighbours behind one address
/// are the gate's concern: only wrong messages and wrong behaviour count.
fn scores() -> (PeerScoreParams, PeerScoreThresholds) {
    let of_topic = TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 0.0,
        first_message_deliveries_weight: 0.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: INVALID_WEIGHT,
        invalid_message_deliveries_decay: INVALID_DECAY,
        ..TopicScoreParams::default()
    };
    let params = PeerScoreParams {
        topics: HashMap::from([(topic().hash(), of_topic)]),
        ip_colocation_factor_weight: 0.0,
        decay_interval: DECAY_EVERY,
        retain_score: GOSSIP_MEMORY,
        ..PeerScoreParams::default()
    };
    let thresholds = PeerScoreThresholds {
        gossip_threshold: GRAYLIST_BELOW / 4.0,
        publish_threshold: GRAYLIST_BELOW / 2.0,
        graylist_threshold: GRAYLIST_BELOW,
        ..PeerScoreThresholds::default()
    };
    (params, thresholds)
}

/// The swarm task's end of the topic.
#[derive(Debug, Default)]
pub(crate) struct Ear {
    sink: Option<mpsc::Sender<Heard>>,
    paces: HashMap<PeerId, (f64, Instant)>,
}

impl Ear {
    pub(crate) fn listen(
        &mut self,
        gossip: &mut Gossipsub,
    ) -> Result<mpsc::Receiver<Heard>, NetError> {
        if self.sink.as_ref().is_some_and(|sink| !sink.is_closed()) {
            return Err(NetError::Protocol {
                protocol: EVIDENCE_TOPIC.to_owned(),
                detail: "is already listened to by this node",
            });
        }
        gossip
            .subscribe(&topic())
            .map_err(|error| NetError::Setup { detail: error.to_string() })?;
        let (sink, heard) = mpsc::channel(MAX_GOSSIP_WAITING);
        self.sink = Some(sink);
        Ok(heard)
    }

    /// Hands a message to the application, or lets it end here.
    pub(crate) fn on_event(&mut self, gossip: &mut Gossipsub, event: Event) {
        let Event::Message { propagation_source, message_id, message } = event else { return };
        let from = from_libp2p(&propagation_source);
        let judgement = match from {
            Some(_) if message.data.len() > MAX_GOSSIP_BYTES => MessageAcceptance::Reject,
            Some(from) if self.admit(from, Instant::now()) => {
                let heard = Heard { from, data: message.data, id: message_id.clone() };
                let sent = self.sink.as_ref().is_some_and(|sink| sink.try_send(heard).is_ok());
                if sent {
                    return;
                }
                MessageAcceptance::Ignore
            }
            _ => MessageAcceptance::Ignore,
        };
        gossip.report_message_validation_result(&message_id, &propagation_source, judgement);
    }

    /// Whether a sender keeps to the pace.
    fn admit(&mut self, from: PeerId, now: Instant) -> bool {
        if self.paces.len() >= MAX_GOSSIP_SENDERS && !self.paces.contains_key(&from) {
            let rested = self.paces.iter().min_by_key(|(_, (_, at))| *at).map(|(peer, _)| *peer);
            if let Some(rested) = rested {
                self.paces.remove(&rested);
            }
        }
        let (left, at) = self.paces.entry(from).or_insert((GOSSIP_BURST, now));
        let since = now.saturating_duration_since(*at).as_secs_f64();
        *left = (*left + since * GOSSIP_PER_SECOND).min(GOSSIP_BURST);
        *at = now;
        let admitted = *left >= 1.0;
        *left -= if admitted { 1.0 } else { 0.0 };
        admitted
    }
}

pub(crate) fn judge(
    gossip: &mut Gossipsub,
    from: &libp2p::PeerId,
    id: &MessageId,
    judgement: Judgement,
) {
    let acceptance = match judgement {
        Judgement::Accept => MessageAcceptance::Accept,
        Judgement::Ignore => MessageAcceptance::Ignore,
        Judgement::Reject => MessageAcceptance::Reject,
    };
    // A message that waited too long is forgotten, and ends here.
    gossip.report_message_validation_result(id, from, acceptance);
}

pub(crate) fn publish(gossip: &mut Gossipsub, data: Vec<u8>) -> Result<bool, NetError> {
    use libp2p::gossipsub::PublishError;
    if data.len() > MAX_GOSSIP_BYTES {
        return Err(NetError::Limit { what: "bytes of one proof", limit: MAX_GOSSIP_BYTES });
    }
    match gossip.publish(topic(), data) {
        Ok(_) | Err(PublishError::Duplicate) => Ok(true),
        Err(PublishError::NoPeersSubscribedToTopic | PublishError::AllQueuesFull(_)) => Ok(false),
        Err(error) => Err(NetError::Setup { detail: error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_are_accepted() {
        assert!(behaviour().is_ok());
    }

    #[test]
    fn the_third_wrong_message_is_the_last_one_heard() {
        let score = |wrong: f64| wrong * wrong * INVALID_WEIGHT;
        assert!(score(1.0) > GRAYLIST_BELOW && score(2.0) < GRAYLIST_BELOW);
    }

    #[test]
    fn a_sender_is_held_to_its_pace_and_senders_are_bounded() {
        let peer = |number: usize| {
            let seed = Sha256::digest(number.to_le_bytes());
            peerproof_identity::Keypair::from_seed(&seed.into()).public().peer_id()
        };
        let (mut ear, start) = (Ear::default(), Instant::now());
        let admitted = (0..100).filter(|_| ear.admit(peer(0), start)).count();
        assert_eq!(admitted, GOSSIP_BURST as usize);
        assert!(ear.admit(peer(0), start + Duration::from_secs(60)));
        for number in 0..2 * MAX_GOSSIP_SENDERS {
            ear.admit(peer(number), start);
        }
        assert_eq!(ear.paces.len(), MAX_GOSSIP_SENDERS);
    }
}
