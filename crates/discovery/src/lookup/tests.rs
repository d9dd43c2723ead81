//! Lookups among peers that answer partly, wrongly, late or never.

use super::*;
use crate::limits::MAX_LIFETIME_S;
use crate::message::Address;
use crate::record::Draft;

const NOW_S: u64 = 1_800_000_000;

fn keypair(number: u16) -> Keypair {
    let mut seed = [4; 32];
    seed[..2].copy_from_slice(&number.to_le_bytes());
    Keypair::from_seed(&seed)
}

fn peer(number: u16) -> Arc<Located> {
    let [high, low] = number.to_be_bytes();
    let addresses = vec![Address::quic([20, high, low, 1].into(), 1)];
    Located::new(Contact { peer: keypair(number).public().peer_id(), addresses })
}

fn record(sequence: u64) -> Record {
    let expires_s = NOW_S + MAX_LIFETIME_S;
    let draft = Draft { label: b"", sequence, created_s: NOW_S, expires_s };
    draft.sign(&keypair(9_999), b"content").expect("a record")
}

/// A network that everybody knows whole.
struct World {
    peers: Vec<Arc<Located>>,
    table: Table,
    chance: Chance,
}

impl World {
    fn new(count: u16) -> Self {
        let mut table = Table::new(Key::of(b"own"));
        let peers: Vec<_> = (0..count).map(peer).collect();
        for who in &peers {
            table.enter(Arc::clone(who), Millis(0));
        }
        Self { peers, table, chance: Chance::new([5; 32]) }
    }

    fn near(&self, place: &Key) -> Vec<Arc<Located>> {
        let mut all = self.peers.clone();
        all.sort_by_key(|who| who.key().distance(place));
        all.truncate(20);
        all
    }

    fn region(&self) -> Distance {
        Distance::from_top(u128::MAX / self.peers.len() as u128 * REGION_PEERS)
    }

    /// Runs a lookup; `answer` says what a peer answers, if it does.
    fn run(
        &mut self,
        goal: Goal,
        answer: &mut dyn FnMut(&Self, &Ask) -> Option<Message>,
    ) -> Outcome {
        let now = Millis(0);
        let region = self.region();
        let mut lookup = Lookup::new(goal, &self.table, region, &mut self.chance, now);
        let mut queue = std::collections::VecDeque::new();
        queue.extend(lookup.poll(&self.table, &mut self.chance, now));
        while let Some(ask) = queue.pop_front() {
            match answer(self, &ask).filter(|_| ask.answered) {
                None => lookup.failed(ask.to.key()),
                Some(message) => {
                    let closer: Vec<_> = message
                        .closer
                        .iter()
                        .filter(|contact| contact.peer != ask.to.contact().peer)
                        .cloned()
                        .map(Located::new)
                        .collect();
                    lookup.answered(ask.to.key(), &message, &closer, &mut self.chance, NOW_S);
                }
            }
            queue.extend(lookup.poll(&self.table, &mut self.chance, now));
            if lookup.is_over(now) {
                break;
            }
        }
        lookup.finish()
    }

    fn honest(&self, ask: &Ask) -> Message {
        let place = ask.message.place();
        let closer = self.near(&place).iter().map(|who| who.contact().clone()).collect();
        Message { closer, ..Message::new(ask.message.kind, &ask.message.name) }
    }
}

fn carries(message: Message, record: &Record) -> Message {
    let name = record.name_bytes().to_vec();
    Message { value: Some(Value { name, bytes: record.as_bytes().to_vec() }), ..message }
}

fn get() -> Goal {
    Goal::Get(record(1).name_bytes().to_vec())
}

fn place() -> Key {
    Key::of(record(1).name_bytes())
}

#[test]
fn a_writer_reaches_the_region_and_shows_the_name_to_nobody_else() {
    let mut world = World::new(600);
    let region = world.region();
    let inside: BTreeSet<Key> = world
        .peers
        .iter()
        .map(|who| *who.key())
        .filter(|key| key.distance(&place()) <= region)
        .collect();
    let goal = Goal::Put(Box::new(record(1)), Arc::new(keypair(9_999)));
    let mut written = BTreeSet::new();
    let outcome = world.run(goal, &mut |world, ask| {
        let within = inside.contains(ask.to.key());
        assert!(within || ask.message.name.is_empty(), "the name is for the region");
        if ask.message.kind != Kind::PutValue {
            return Some(Message { token: Some([1; 16]), ..world.honest(ask) });
        }
        let (token, grant) = (ask.message.token?, ask.message.signature?);
        record(1).verify_grant(&ask.to.contact().peer, &token, &grant).expect("permitted");
        written.insert(*ask.to.key());
        Some(carries(world.honest(ask), &record(1)))
    });
    assert_eq!(written, inside);
    assert_eq!(outcome.kept, inside.len());
    assert!(!outcome.crowded && (10..40).contains(&inside.len()), "{}", inside.len());
}

#[test]
fn a_token_that_turned_is_asked_for_once_more() {
    let mut world = World::new(40);
    let goal = Goal::Put(Box::new(record(1)), Arc::new(keypair(9_999)));
    let mut writes = 0;
    let outcome = world.run(goal, &mut |world, ask| {
        let token = Some(if ask.message.kind == Kind::PutValue { [2; 16] } else { [1; 16] });
        writes += usize::from(ask.message.kind == Kind::PutValue);
        let refused = ask.message.kind == Kind::PutValue && ask.message.token != Some([2; 16]);
        Some(Message { token, refused, ..world.honest(ask) })
    });
    assert_eq!(writes, 2 * outcome.kept);
    assert!(outcome.kept > 10);
}

#[test]
fn the_newest_of_what_is_told_wins() {
    let mut world = World::new(600);
    let mut number = 0;
    let outcome = world.run(get(), &mut |world, ask| {
        let answer = world.honest(ask);
        if ask.message.kind != Kind::GetValue {
            return Some(answer);
        }
        number += 1;
        // Most replay an old one; one holds what never was.
        Some(match number % 4 {
            0 => carries(answer, &record(7)),
            1 => carries(answer, &record(3)),
            2 => answer,
            _ => {
                let mut forged = carries(answer, &record(7));
                if let Some(value) = &mut forged.value {
                    value.bytes[40] ^= 1;
                }
                forged
            }
        })
    });
    assert_eq!(outcome.record.map(|record| record.sequence()), Some(7));
    assert!(outcome.invalid > 0 && outcome.stale > 0);
}

#[test]
fn a_record_of_another_name_or_time_is_no_answer() {
    let mut world = World::new(200);
    let tomorrow = NOW_S + 86_400;
    let times = Draft { label: b"", sequence: 9, created_s: tomorrow, expires_s: tomorrow + 60 };
    let future = times.sign(&keypair(9_999), b"").expect("a record");
    let other = times.sign(&keypair(1), b"").expect("a record");
    for wrong in [future, other] {
        let outcome = world.run(get(), &mut |world, ask| Some(carries(world.honest(ask), &wrong)));
        assert_eq!(outcome.record, None);
        assert!(outcome.invalid > 0);
    }
}

#[test]
fn silence_partial_answers_and_lies_leave_a_reader_its_record() {
    let mut world = World::new(600);
    let honest = |who: &Located| who.key().as_bytes()[31].is_multiple_of(3);
    let outcome = world.run(get(), &mut |world, ask| {
        if honest(&ask.to) {
            let answer = world.honest(ask);
            let holds = ask.message.kind == Kind::GetValue;
            return Some(if holds { carries(answer, &record(1)) } else { answer });
        }
        match ask.to.key().as_bytes()[30] % 3 {
            0 => None,
            1 => Some(Message::new(ask.message.kind, &[])),
            _ => {
                // The same peer over and over.
                let mut answer = world.honest(ask);
                let first = answer.closer[0].clone();
                answer.closer = vec![first; 20];
                Some(answer)
            }
        }
    });
    assert_eq!(outcome.record, Some(record(1)));
    assert!(outcome.failed > 0 && outcome.contradictions > 0);
}

#[test]
fn a_crowd_raises_the_alarm_and_widens_the_region() {
    let mut world = World::new(400);
    // Two hundred invented names within the region.
    let region = world.region();
    let names = (1_000..).map(peer).filter(|who| who.key().distance(&place()) <= region);
    let crowd: Vec<Contact> = names.take(100).map(|who| who.contact().clone()).collect();
    let mut turn = 0_usize;
    let outcome = world.run(get(), &mut |world, ask| {
        let known = world.peers.iter().any(|who| who.key() == ask.to.key());
        if !known {
            return None;
        }
        let mut answer = world.honest(ask);
        turn += 1;
        if turn.is_multiple_of(2) {
            answer.closer = crowd.iter().skip(turn % 80).take(20).cloned().collect();
        }
        Some(answer)
    });
    assert!(outcome.crowded, "{}", outcome.named);
    assert!(outcome.named > CROWD_FACTOR * 20);
    assert!(outcome.calls as usize <= MAX_SWEPT + 4 * PATHS * 16, "{}", outcome.calls);
    let calm = world.run(get(), &mut |world, ask| Some(world.honest(ask)));
    assert!(!calm.crowded);
}

#[test]
fn each_path_is_reported_apart() {
    let mut world = World::new(300);
    let goal = Goal::Locate(Key::of(b"somewhere"));
    let outcome = world.run(goal, &mut |world, ask| Some(world.honest(ask)));
    assert_eq!(outcome.paths.len(), PATHS);
    let all: Vec<Key> =
        outcome.paths.iter().flat_map(|path| path.answered.iter().map(|who| *who.key())).collect();
    let distinct: BTreeSet<&Key> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
    let closest = world.near(&Key::of(b"somewhere"));
    assert!(closest.iter().take(4).all(|who| all.contains(who.key())));
}
