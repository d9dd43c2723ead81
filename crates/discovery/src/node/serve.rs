//! Answering others.

use std::net::IpAddr;

use peerproof_identity::{Domain, PeerId};

use super::{Discovery, Effect, probed};
use crate::Millis;
use crate::id::{Distance, Key};
use crate::limits::{BUCKET_PEERS, KEEP_FACTOR, TOKEN_TURN_MS};
use crate::message::{Kind, Message, Value};
use crate::rates::Act;
use crate::record::{Record, RecordError};

impl Discovery {
    pub(super) fn serve(
        &mut self,
        request: u64,
        from: &PeerId,
        ip: IpAddr,
        message: &Message,
        now: Millis,
        now_s: u64,
    ) -> Effect {
        let writes = matches!(message.kind, Kind::PutValue | Kind::AddProvider);
        let act = if writes { Act::Put } else { Act::Lookup };
        if self.rates.admit(act, *from, ip, now).is_err() {
            return Effect::Ignore(request);
        }
        let answer = Message::new(message.kind, &message.name);
        if message.kind == Kind::Ping {
            return Effect::Answer(request, self.pong(from, message, answer));
        }
        if now < self.stable_from {
            return Effect::Answer(request, Message { refused: true, ..answer });
        }
        let place = message.place();
        let answer = match message.kind {
            Kind::AddProvider => {
                let own = message.providers.iter().find(|contact| contact.peer == *from);
                if let Some(own) = own.filter(|_| self.keeps(&place)) {
                    let (name, chance) = (&message.name, &mut self.chance);
                    self.providers.add(name, own.clone(), ip, now, chance);
                }
                return Effect::Ignore(request);
            }
            Kind::PutValue => self.put(from, ip, message, answer, now, now_s),
            Kind::GetValue => {
                let record = self.records.find(&message.name, now_s);
                let value = record.map(|record| Value {
                    name: message.name.clone(),
                    bytes: record.as_bytes().to_vec(),
                });
                Message { value, ..self.closer(from, &place, answer) }
            }
            Kind::GetProviders => {
                let providers = self.providers.find(&message.name, now);
                Message { providers, ..self.closer(from, &place, answer) }
            }
            Kind::FindNode | Kind::Ping => self.closer(from, &place, answer),
        };
        let token = Some(self.token(ip, now.0 / TOKEN_TURN_MS));
        Effect::Answer(request, Message { token, ..answer })
    }

    fn pong(&self, from: &PeerId, message: &Message, answer: Message) -> Message {
        let sign = |nonce| *self.key.sign(Domain::Probe, &probed(nonce, from)).as_bytes();
        Message { signature: message.nonce.as_ref().map(sign), ..answer }
    }

    fn closer(&self, from: &PeerId, place: &Key, answer: Message) -> Message {
        let closest = self.table.closest(place, BUCKET_PEERS + 1);
        let others = closest.iter().filter(|who| who.contact().peer != *from);
        let closer = others.take(BUCKET_PEERS).map(|who| who.contact().clone()).collect();
        Message { closer, ..answer }
    }

    fn put(
        &mut self,
        from: &PeerId,
        ip: IpAddr,
        message: &Message,
        answer: Message,
        now: Millis,
        now_s: u64,
    ) -> Message {
        let refused = Message { refused: true, ..answer.clone() };
        let Some(value) = &message.value else { return refused };
        let token = message.token.filter(|token| self.knows_token(token, ip, now));
        if token.is_none() && !self.config.stock_writes {
            return refused;
        }
        let Ok(record) = self.check(from, message, value, token.as_ref(), now_s) else {
            return refused;
        };
        if self.records.put(record, ip, now_s).is_err() {
            return refused;
        }
        Message { value: Some(value.clone()), ..answer }
    }

    fn check(
        &self,
        from: &PeerId,
        message: &Message,
        value: &Value,
        token: Option<&[u8; 16]>,
        now_s: u64,
    ) -> Result<Record, RecordError> {
        let record = Record::decode(&value.bytes)?;
        if record.name_bytes() != &value.name[..] || value.name != message.name {
            return Err(RecordError::Name);
        }
        record.check_time(now_s)?;
        if !self.keeps(&Key::of(&message.name)) {
            return Err(RecordError::Name);
        }
        match (token, &message.signature) {
            (Some(token), Some(grant)) => record.verify_grant(&self.peer, token, grant)?,
            (None, None) if self.config.stock_writes && from.public_key() == record.publisher() => {
            }
            _ => return Err(RecordError::Grant),
        }
        Ok(record)
    }

    /// Whether a place is near enough to keep things of it.
    pub(super) fn keeps(&self, place: &Key) -> bool {
        let region = self.density.region().top().saturating_mul(KEEP_FACTOR);
        self.table.own().distance(place) <= Distance::from_top(region)
    }

    /// The token of an address in a turn.
    fn token(&self, ip: IpAddr, turn: u64) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(&self.token_seed);
        hasher.update(&turn.to_le_bytes());
        match ip.to_canonical() {
            IpAddr::V4(v4) => hasher.update(&v4.octets()),
            IpAddr::V6(v6) => hasher.update(&v6.octets()),
        };
        let mut token = [0; 16];
        token.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        token
    }

    fn knows_token(&self, token: &[u8; 16], ip: IpAddr, now: Millis) -> bool {
        let turn = now.0 / TOKEN_TURN_MS;
        [turn, turn.wrapping_sub(1)].iter().any(|turn| self.token(ip, *turn) == *token)
    }
}
