//! What is kept for others: records under their names, and who provides a name.
//!
//! Both are finite. Where room runs out, the neighbourhood (/24 or /48) that wrote most
//! gives way: a flood from one place pushes out only itself, and from many places at
//! most its share. A list of providers that is full does not ignore newcomers.
//!
//! Absent: whether a write is allowed at all (`node`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::Chance;
use crate::Millis;
use crate::limits::{
    MAX_PROVIDER_NAMES, MAX_PROVIDERS_PER_NAME, MAX_PROVIDERS_PER_SUBNET, PROVIDER_TTL_MS,
};
use crate::message::Contact;
use crate::record::{Name, Record};
use crate::subnet::Subnet;

/// Why a record is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A newer one is.
    #[error("store: sequence {kept} is kept, got {got}")]
    Old {
        /// Sequence of the one that is kept.
        kept: u64,
        /// Sequence of the one that came.
        got: u64,
    },
    /// There is no room, and nobody wrote more than this writer's neighbourhood.
    #[error("store: full with {limit} records, of which {held} are of the writer's subnet")]
    Full {
        /// Records kept.
        limit: usize,
        /// Those written from the same /24 or /48.
        held: usize,
    },
}

#[derive(Debug)]
struct Kept {
    record: Record,
    writer: Subnet,
}

/// Records, each the newest of its name.
#[derive(Debug)]
pub struct Records {
    kept: BTreeMap<Name, Kept>,
    by_writer: BTreeMap<Subnet, usize>,
    limit: usize,
}

impl Records {
    /// Room for so many.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { kept: BTreeMap::new(), by_writer: BTreeMap::new(), limit }
    }

    /// Records kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The record of a name, if it is not over.
    #[must_use]
    pub fn find(&self, name: &[u8], now_s: u64) -> Option<&Record> {
        let kept = self.kept.get(&Name(name.try_into().ok()?))?;
        kept.record.check_time(now_s).is_ok().then_some(&kept.record)
    }

    /// Keeps a record that was checked, written from an address.
    pub fn put(&mut self, record: Record, from: IpAddr, now_s: u64) -> Result<(), StoreError> {
        let writer = Subnet::of(from);
        if let Some(held) = self.kept.get_mut(&record.name()) {
            if held.record.is_newer_than(&record) {
                let (kept, got) = (held.record.sequence(), record.sequence());
                return Err(StoreError::Old { kept, got });
            }
            // Whoever wrote a name first pays for its place until it ends.
            held.record = record;
            return Ok(());
        }
        if self.kept.len() >= self.limit {
            self.make_room(writer, now_s)?;
        }
        *self.by_writer.entry(writer).or_default() += 1;
        self.kept.insert(record.name(), Kept { record, writer });
        Ok(())
    }

    /// Drops what is over.
    pub fn expire(&mut self, now_s: u64) {
        let over = self.kept.iter().filter(|(_, kept)| kept.record.expires_s() <= now_s);
        let over: Vec<Name> = over.map(|(name, _)| *name).collect();
        over.iter().for_each(|name| self.remove(name));
    }

    fn make_room(&mut self, writer: Subnet, now_s: u64) -> Result<(), StoreError> {
        self.expire(now_s);
        if self.kept.len() < self.limit {
            return Ok(());
        }
        let held = self.by_writer.get(&writer).copied().unwrap_or(0);
        let heaviest = self.by_writer.iter().max_by_key(|(_, count)| **count);
        let full = StoreError::Full { limit: self.limit, held };
        let (subnet, count) = heaviest.map(|(subnet, count)| (*subnet, *count)).ok_or(full)?;
        if held + 1 >= count {
            return Err(full);
        }
        let of_it = self.kept.iter().filter(|(_, kept)| kept.writer == subnet);
        let first = of_it.min_by_key(|(_, kept)| kept.record.expires_s()).map(|(name, _)| *name);
        self.remove(&first.ok_or(full)?);
        Ok(())
    }

    fn remove(&mut self, name: &Name) {
        let Some(gone) = self.kept.remove(name) else { return };
        if let Some(count) = self.by_writer.get_mut(&gone.writer) {
            *count -= 1;
            if *count == 0 {
                self.by_writer.remove(&gone.writer);
            }
        }
    }
}

#[derive(Debug)]
struct Provider {
    contact: Contact,
    from: Subnet,
    until: Millis,
}

/// Who provides which name.
#[derive(Debug, Default)]
pub struct Providers {
    by_name: BTreeMap<Vec<u8>, Vec<Provider>>,
}

impl Providers {
    /// Names kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The providers of a name.
    #[must_use]
    pub fn find(&self, name: &[u8], now: Millis) -> Vec<Contact> {
        let all = self.by_name.get(name).into_iter().flatten();
        all.filter(|provider| provider.until > now).map(|p| p.contact.clone()).collect()
    }

    /// Keeps that a peer, seen at an address, provides a name. A full list lets a
    /// newcomer replace one of the neighbourhood that has most, or one by lot.
    pub fn add(
        &mut self,
        name: &[u8],
        contact: Contact,
        from: IpAddr,
        now: Millis,
        chance: &mut Chance,
    ) {
        if !self.by_name.contains_key(name) && self.by_name.len() >= MAX_PROVIDER_NAMES {
            self.expire(now);
            if self.by_name.len() >= MAX_PROVIDER_NAMES {
                return;
            }
        }
        let list = self.by_name.entry(name.to_vec()).or_default();
        let provider =
            Provider { contact, from: Subnet::of(from), until: now.after(PROVIDER_TTL_MS) };
        list.retain(|old| old.until > now && old.contact.peer != provider.contact.peer);
        let same = list.iter().position(|old| old.from == provider.from);
        let count = list.iter().filter(|old| old.from == provider.from).count();
        if let Some(same) = same.filter(|_| count >= MAX_PROVIDERS_PER_SUBNET) {
            list[same] = provider;
        } else if list.len() < MAX_PROVIDERS_PER_NAME {
            list.push(provider);
        } else {
            let at = chance.below(list.len());
            list[at] = provider;
        }
    }

    /// Drops what is over.
    pub fn expire(&mut self, now: Millis) {
        self.by_name.retain(|_, list| {
            list.retain(|provider| provider.until > now);
            !list.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Address;
    use crate::record::Draft;
    use peerproof_identity::Keypair;

    const NOW: u64 = 1_800_000_000;

    fn record(label: u16, sequence: u64) -> Record {
        let label = label.to_le_bytes();
        let draft =
            Draft { label: &label, sequence, created_s: NOW, expires_s: NOW + 60 + sequence };
        draft.sign(&Keypair::from_seed(&[3; 32]), b"").expect("a record")
    }

    fn from(subnet: u8) -> IpAddr {
        IpAddr::from([20, 0, subnet, 1])
    }

    #[test]
    fn the_newest_stays_and_what_is_over_goes() {
        let mut records = Records::new(10);
        records.put(record(1, 2), from(1), NOW).expect("room");
        assert_eq!(
            records.put(record(1, 1), from(1), NOW),
            Err(StoreError::Old { kept: 2, got: 1 })
        );
        records.put(record(1, 3), from(2), NOW).expect("newer");
        let name = record(1, 1).name();
        assert_eq!(records.find(&name.0, NOW).map(Record::sequence), Some(3));
        assert_eq!(records.find(&name.0, NOW + 63), None);
        assert_eq!(records.find(b"no name", NOW), None);
        records.expire(NOW + 63);
        assert!(records.is_empty() && records.by_writer.is_empty());
    }

    #[test]
    fn a_flood_pushes_out_only_itself() {
        let mut records = Records::new(20);
        for label in 0..5 {
            records.put(record(label, 1), from(label as u8), NOW).expect("room");
        }
        for label in 100..200 {
            let _ = records.put(record(label, 1), from(99), NOW);
        }
        assert_eq!(records.len(), 20);
        let honest = |records: &Records| {
            (0..5).filter(|label| records.find(&record(*label, 1).name().0, NOW).is_some()).count()
        };
        assert_eq!(honest(&records), 5);
        records.put(record(300, 1), from(7), NOW).expect("a newcomer of another place");
        let full = records.put(record(301, 1), from(99), NOW);
        assert!(matches!(full, Err(StoreError::Full { limit: 20, .. })), "{full:?}");
        assert_eq!((records.len(), honest(&records)), (20, 5));
    }

    #[test]
    fn a_list_of_providers_does_not_lock_newcomers_out() {
        let mut providers = Providers::default();
        let mut chance = Chance::new([1; 32]);
        let mut add = |number: u8, subnet: u8| {
            let peer = Keypair::from_seed(&[number; 32]).public().peer_id();
            let addresses = vec![Address::quic(from(subnet), 1)];
            let contact = Contact { peer, addresses };
            providers.add(b"model", contact.clone(), from(subnet), Millis(0), &mut chance);
            let found = providers.find(b"model", Millis(1));
            assert!(found.len() <= MAX_PROVIDERS_PER_NAME);
            assert!(found.contains(&contact), "the newcomer is in");
            found.iter().filter(|found| found.ip() == Some(from(subnet))).count()
        };
        assert!((0..30).all(|number| add(number, 1) <= MAX_PROVIDERS_PER_SUBNET));
        assert!((30..90).all(|number| add(number, number) == 1));
        assert!(providers.find(b"model", Millis(PROVIDER_TTL_MS)).is_empty());
        providers.expire(Millis(PROVIDER_TTL_MS));
        assert!(providers.is_empty());
    }

    #[test]
    fn names_are_finite() {
        let mut providers = Providers::default();
        let peer = Keypair::from_seed(&[1; 32]).public().peer_id();
        let contact = Contact { peer, addresses: vec![Address::quic(from(1), 1)] };
        let mut chance = Chance::new([1; 32]);
        for number in 0..MAX_PROVIDER_NAMES as u32 + 5 {
            let name = number.to_le_bytes();
            providers.add(&name, contact.clone(), from(1), Millis(0), &mut chance);
        }
        assert_eq!(providers.len(), MAX_PROVIDER_NAMES);
    }
}
