//! Machines among each other: joining, keeping, finding, and refusing.

use std::collections::{BTreeSet, VecDeque};

use super::*;
use crate::id::Distance;
use crate::limits::{LOOKUP_TIMEOUT_MS, MAX_LIFETIME_S, TOKEN_TURN_MS};
use crate::message::{Address, Value};
use crate::record::Draft;

const NOW_S: u64 = 1_800_000_000;

/// Nodes whose messages arrive at once, in order.
struct World {
    nodes: BTreeMap<PeerId, Discovery>,
    ips: BTreeMap<PeerId, IpAddr>,
    dead: BTreeSet<PeerId>,
    now: Millis,
    queue: VecDeque<(PeerId, Effect)>,
    done: Vec<(u64, Outcome)>,
    /// Calls over connections that the caller had to dial.
    fresh: usize,
}

fn keypair(number: u8) -> Arc<Keypair> {
    Arc::new(Keypair::from_seed(&[number; 32]))
}

fn peer(number: u8) -> PeerId {
    keypair(number).public().peer_id()
}

fn ip(number: u8) -> IpAddr {
    IpAddr::from([20, 0, number, 1])
}

fn contact(number: u8) -> Contact {
    Contact { peer: peer(number), addresses: vec![Address::quic(ip(number), 4001)] }
}

fn config() -> Config {
    Config { stable_ms: 0, ..Config::default() }
}

fn record(publisher: u8, sequence: u64) -> Record {
    let draft = Draft { label: b"", sequence, created_s: NOW_S, expires_s: NOW_S + 3_600 };
    draft.sign(&keypair(publisher), b"here I am").expect("a record")
}

impl World {
    fn new(count: u8) -> Self {
        let now = Millis(1_000_000);
        let node =
            |number| (peer(number), Discovery::new(keypair(number), config(), [number; 32], now));
        let mut world = Self {
            nodes: (1..=count).map(node).collect(),
            ips: (1..=count).map(|number| (peer(number), ip(number))).collect(),
            dead: BTreeSet::new(),
            now,
            queue: VecDeque::new(),
            done: Vec::new(),
            fresh: 0,
        };
        // Everybody has heard of the first; the rest follows from lookups.
        for number in 2..=count {
            world.tell(number, Event::Heard(contact(1)));
            world.tell(1, Event::Heard(contact(number)));
        }
        for _ in 0..6 {
            world.now = world.now.after(60_000);
            (1..=count).for_each(|number| world.tell(number, Event::Tick));
        }
        world
    }

    fn node(&mut self, number: u8) -> &mut Discovery {
        self.nodes.get_mut(&peer(number)).expect("a node")
    }

    fn tell(&mut self, number: u8, event: Event) {
        self.tell_peer(peer(number), event);
        while let Some((from, effect)) = self.queue.pop_front() {
            self.carry(from, effect);
        }
    }

    fn tell_peer(&mut self, to: PeerId, event: Event) {
        let now = self.now;
        let effects = self.nodes.get_mut(&to).expect("a node").handle(event, now, NOW_S);
        self.queue.extend(effects.into_iter().map(|effect| (to, effect)));
    }

    fn carry(&mut self, from: PeerId, effect: Effect) {
        match effect {
            Effect::Call { call, to, message, fresh, .. } => {
                self.fresh += usize::from(fresh);
                let event = match self.ask(from, &to.contact().peer, &message) {
                    Some(answer) => Event::Answered(call, answer),
                    None => Event::Failed(call),
                };
                self.tell_peer(from, event);
            }
            Effect::Tell(to, message) => {
                self.ask(from, &to.contact().peer, &message);
            }
            Effect::Done(name, outcome) => self.done.push((name, *outcome)),
            Effect::First(..) | Effect::Answer(..) | Effect::Ignore(_) => {}
        }
    }

    /// Through the bytes of the wire, as between processes.
    fn ask(&mut self, from: PeerId, to: &PeerId, message: &Message) -> Option<Message> {
        if self.dead.contains(to) {
            return None;
        }
        let message = Message::decode(&message.encode()).expect("own bytes");
        let asked = Event::Asked { request: 0, from, ip: self.ips[&from], message };
        let (now, node) = (self.now, self.nodes.get_mut(to)?);
        match node.handle(asked, now, NOW_S).pop()? {
            Effect::Answer(_, answer) => Message::decode(&answer.encode()).ok(),
            _ => None,
        }
    }

    fn find(&mut self, number: u8, goal: Goal) -> Outcome {
        self.now = self.now.after(10_000);
        self.tell(number, Event::Find(7, goal));
        self.done.pop().expect("over at once where nothing takes time").1
    }

    fn put(&mut self, number: u8, record: Record, key: u8) -> Outcome {
        self.find(number, Goal::Put(Box::new(record), keypair(key)))
    }

    fn get(&mut self, number: u8, record: &Record) -> Outcome {
        self.find(number, Goal::Get(record.name_bytes().to_vec()))
    }
}

#[test]
fn nodes_meet_and_enter_only_whom_they_dialled() {
    let mut world = World::new(16);
    for number in 1..=16 {
        let known = world.node(number).table().len();
        assert!(known >= 12, "{number} knows {known}");
        assert_eq!(world.node(number).density().wanting(), 0);
    }
    assert!(world.fresh >= 16 * 12, "each entry took a dial of one's own: {}", world.fresh);
}

#[test]
fn a_record_is_kept_found_and_replaced_by_a_newer_one() {
    let mut world = World::new(16);
    let put = world.put(3, record(99, 1), 99);
    assert!(put.kept >= 12, "{put:?}");
    let got = world.get(14, &record(99, 1));
    assert_eq!(got.record, Some(record(99, 1)));
    assert!(world.put(4, record(99, 2), 99).kept >= 12);
    assert_eq!(world.get(15, &record(99, 1)).record, Some(record(99, 2)));
    assert_eq!(world.put(5, record(99, 1), 99).kept, 0, "an old one is not taken back");
    assert_eq!(world.get(15, &record(98, 1)).record, None);
}

#[test]
fn the_dead_cost_time_and_nothing_else() {
    let mut world = World::new(16);
    world.put(3, record(99, 1), 99);
    world.dead = (5..12).map(peer).collect();
    let got = world.get(14, &record(99, 1));
    assert_eq!(got.record, Some(record(99, 1)));
    assert!(got.failed > 0);
    world.dead = (1..=16).filter(|number| *number != 14).map(peer).collect();
    let got = world.get(14, &record(77, 1));
    assert_eq!((got.record, got.answered), (None, 0));
}

#[test]
fn providers_are_found_and_speak_for_themselves_only() {
    let mut world = World::new(10);
    world.find(3, Goal::Provide(b"a model".to_vec(), contact(3)));
    world.find(4, Goal::Provide(b"a model".to_vec(), contact(5)));
    let found = world.find(9, Goal::Providers(b"a model".to_vec()));
    assert_eq!(found.providers, [contact(3)], "nobody is named by another");
}

fn asked(world: &mut World, from: u8, at: IpAddr, message: Message) -> Effect {
    let asked = Event::Asked { request: 5, from: peer(from), ip: at, message };
    let now = world.now;
    world.node(1).handle(asked, now, NOW_S).pop().expect("an effect")
}

fn token_of(world: &mut World, from: u8, at: IpAddr) -> [u8; 16] {
    match asked(world, from, at, Message::new(Kind::FindNode, b"x")) {
        Effect::Answer(5, answer) => answer.token.expect("a token"),
        other => panic!("{other:?}"),
    }
}

fn write(record: &Record, token: [u8; 16], signature: [u8; 64]) -> Message {
    let name = record.name_bytes();
    Message {
        value: Some(Value { name: name.to_vec(), bytes: record.as_bytes().to_vec() }),
        token: Some(token),
        signature: Some(signature),
        ..Message::new(Kind::PutValue, name)
    }
}

fn is_kept(effect: &Effect) -> bool {
    matches!(effect, Effect::Answer(5, answer) if !answer.refused && answer.value.is_some())
}

#[test]
fn a_write_needs_everything_to_fit() {
    let mut world = World::new(2);
    let (record, token) = (record(50, 1), token_of(&mut world, 2, ip(2)));
    let grant = |token| record.grant(&keypair(50), &peer(1), token);
    let good = write(&record, token, grant(&token));

    let elsewhere = asked(&mut world, 2, ip(9), good.clone());
    assert!(!is_kept(&elsewhere), "the token is another address's");
    let replayed = write(&record, token, record.grant(&keypair(50), &peer(2), &token));
    assert!(!is_kept(&asked(&mut world, 2, ip(2), replayed)), "permitted for another holder");
    let guessed = write(&record, [1; 16], grant(&[1; 16]));
    assert!(!is_kept(&asked(&mut world, 2, ip(2), guessed)), "no token of this node");
    let mut renamed = good.clone();
    renamed.name[0] ^= 1;
    assert!(!is_kept(&asked(&mut world, 2, ip(2), renamed)), "another name");
    let mut bare = good.clone();
    (bare.token, bare.signature) = (None, None);
    assert!(!is_kept(&asked(&mut world, 2, ip(2), bare)), "no token at all");
    assert!(world.node(1).records().is_empty());
    assert!(is_kept(&asked(&mut world, 2, ip(2), good.clone())));

    world.now = world.now.after(TOKEN_TURN_MS);
    assert!(is_kept(&asked(&mut world, 2, ip(2), good.clone())), "the turn before");
    world.now = world.now.after(TOKEN_TURN_MS);
    assert!(!is_kept(&asked(&mut world, 2, ip(2), good)), "turned twice");
}

#[test]
fn forged_times_are_refused() {
    let mut world = World::new(2);
    let token = token_of(&mut world, 2, ip(2));
    let times = [
        (NOW_S - 7_200, NOW_S - 1, "over"),
        (NOW_S + 86_400, NOW_S + 90_000, "of tomorrow"),
        (NOW_S - MAX_LIFETIME_S, NOW_S, "over this second"),
    ];
    for (created_s, expires_s, what) in times {
        let draft = Draft { label: b"", sequence: 1, created_s, expires_s };
        let record = draft.sign(&keypair(50), b"").expect("a record");
        let grant = record.grant(&keypair(50), &peer(1), &token);
        let kept = asked(&mut world, 2, ip(2), write(&record, token, grant));
        assert!(!is_kept(&kept), "{what}");
    }
}

#[test]
fn stock_nodes_write_under_their_own_key_where_that_is_allowed() {
    let mut world = World::new(2);
    let bare = |publisher| Message {
        token: None,
        signature: None,
        ..write(&record(publisher, 1), [0; 16], [0; 64])
    };
    assert!(!is_kept(&asked(&mut world, 60, ip(60), bare(60))));
    world.node(1).config.stock_writes = true;
    assert!(!is_kept(&asked(&mut world, 61, ip(60), bare(60))), "another's record");
    assert!(is_kept(&asked(&mut world, 60, ip(60), bare(60))));
}

#[test]
fn a_young_node_answers_probes_only() {
    let mut world = World::new(2);
    world.node(1).config.stable_ms = 60_000;
    let now = world.now;
    world.node(1).handle(Event::Disturbed, now, NOW_S);
    let find = Message::new(Kind::FindNode, b"x");
    let answer = asked(&mut world, 2, ip(2), find.clone());
    assert!(matches!(answer, Effect::Answer(5, Message { refused: true, .. })), "{answer:?}");
    let ping = Message { nonce: Some([3; 32]), ..Message::new(Kind::Ping, &[]) };
    let answer = asked(&mut world, 2, ip(2), ping);
    assert!(matches!(answer, Effect::Answer(5, Message { signature: Some(_), .. })));
    world.now = world.now.after(60_000);
    let answer = asked(&mut world, 2, ip(2), find);
    assert!(matches!(answer, Effect::Answer(5, Message { refused: false, .. })));
}

#[test]
fn who_asks_too_often_is_left_waiting() {
    let mut world = World::new(2);
    world.now = world.now.after(60_000);
    let find = || Message::new(Kind::FindNode, b"x");
    let answers = (0..200)
        .filter(|_| matches!(asked(&mut world, 2, ip(2), find()), Effect::Answer(..)))
        .count();
    assert_eq!(answers, crate::rates::Act::Lookup.pace().burst as usize);
}

#[test]
fn an_answer_to_a_probe_is_for_one_asker_and_nonce() {
    let now = Millis(0);
    let mut node = Discovery::new(keypair(1), config(), [1; 32], now);
    let sign = |by: u8, nonce: &[u8; 32], asker: u8| Message {
        signature: Some(*keypair(by).sign(Domain::Probe, &probed(nonce, &peer(asker))).as_bytes()),
        ..Message::new(Kind::Ping, &[])
    };
    let mut probe = |answer: &dyn Fn(&[u8; 32]) -> Message| {
        let effects = node.handle(Event::Heard(contact(2)), now, NOW_S);
        let [Effect::Call { call, message, fresh: true, .. }] = &effects[..] else {
            panic!("{effects:?}")
        };
        let answer = answer(&message.nonce.expect("a nonce"));
        node.handle(Event::Answered(*call, answer), now, NOW_S);
        node.table().len()
    };
    assert_eq!(probe(&|_| Message::new(Kind::Ping, &[])), 0, "unsigned");
    assert_eq!(probe(&|_| sign(2, &[0; 32], 1)), 0, "another nonce");
    assert_eq!(probe(&|nonce| sign(2, nonce, 3)), 0, "signed for another asker");
    assert_eq!(probe(&|nonce| sign(3, nonce, 1)), 0, "signed by another");
    assert_eq!(probe(&|nonce| sign(2, nonce, 1)), 1);
}

#[test]
fn what_is_under_way_is_finite() {
    let mut node = Discovery::new(keypair(1), config(), [1; 32], Millis(0));
    let probes = (2..=200)
        .filter(|number| !node.handle(Event::Heard(contact(*number)), Millis(0), NOW_S).is_empty());
    assert_eq!(probes.count(), MAX_PROBES);
    let mut world = World::new(3);
    world.dead = (2..=3).map(peer).collect();
    let now = world.now;
    let mut open = 0;
    for name in 0..MAX_LOOKUPS as u64 + 50 {
        let goal = Goal::Locate(Key::of(&name.to_le_bytes()));
        let effects = world.node(1).handle(Event::Find(name, goal), now, NOW_S);
        open += usize::from(!effects.iter().any(|effect| matches!(effect, Effect::Done(..))));
    }
    assert_eq!(open, MAX_LOOKUPS);
    // A driver that never answers leaves nothing behind for ever.
    let late = now.after(LOOKUP_TIMEOUT_MS);
    let done = world.node(1).handle(Event::Tick, late, NOW_S);
    assert_eq!(done.iter().filter(|e| matches!(e, Effect::Done(..))).count(), MAX_LOOKUPS);
}

#[test]
fn a_place_far_away_is_not_kept() {
    let mut world = World::new(2);
    (0..64).for_each(|_| world.node(1).density_mut().add(1_000_000));
    assert!(world.node(1).density().region() < Distance::reach(14));
    let token = token_of(&mut world, 2, ip(2));
    let record = record(50, 1);
    let grant = record.grant(&keypair(50), &peer(1), &token);
    assert!(!is_kept(&asked(&mut world, 2, ip(2), write(&record, token, grant))));
}
