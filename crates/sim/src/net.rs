//! Streams between nodes, and what a bad network does to them.
//!
//! A stream keeps its order and loses nothing, as over TCP or QUIC; what is
//! lost is the stream: both ends then learn, each after a while, that it is
//! reset. Streams overtake each other, since every frame has a delay of its
//! own. Between two sides of a partition nothing passes, and nobody is told
//! before a time-out.

use std::collections::{BTreeMap, BTreeSet};

use peerproof_identity::PeerId;

use crate::random::Random;

/// How long both ends believe in a connection over which nothing passes.
const NOTICE_MS: u64 = 6_000;

/// What a network does to what passes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// Shortest delay of a frame.
    pub least_ms: u64,
    /// Longest delay of a frame.
    pub most_ms: u64,
    /// Chance in a thousand that a frame takes its stream down.
    pub loss_permille: u64,
}

impl Weather {
    /// Nothing is lost and everything is near.
    pub const CALM: Self = Self { least_ms: 1, most_ms: 4, loss_permille: 0 };
}

/// The conversation of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Job,
    Audit,
}

/// Names a stream; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StreamNo(pub(crate) u64);

/// One of the two ends of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Opener,
    Acceptor,
}

impl End {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Opener => Self::Acceptor,
            Self::Acceptor => Self::Opener,
        }
    }
}

/// What comes out of a stream.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    /// Somebody opens it; for the acceptor.
    Opened,
    /// It is open; for the opener.
    Ready,
    /// It cannot be opened; for the opener.
    Refused,
    Frame(Vec<u8>),
    /// The other end is done.
    Finished,
    /// It is gone.
    Reset,
}

impl Piece {
    pub(crate) const fn kind(&self) -> u64 {
        match self {
            Self::Opened => 0,
            Self::Ready => 1,
            Self::Refused => 2,
            Self::Frame(_) => 3,
            Self::Finished => 4,
            Self::Reset => 5,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) protocol: Protocol,
    pub(crate) opener: usize,
    pub(crate) acceptor: usize,
    /// The key that the opener proved to have.
    pub(crate) peer: PeerId,
    /// When the last piece arrives at each end.
    last: [u64; 2],
    /// Ends that want nothing more of it.
    left: [bool; 2],
    broken: bool,
}

impl Stream {
    pub(crate) const fn node(&self, end: End) -> usize {
        match end {
            End::Opener => self.opener,
            End::Acceptor => self.acceptor,
        }
    }

    const fn slot(end: End) -> usize {
        match end {
            End::Opener => 0,
            End::Acceptor => 1,
        }
    }
}

/// All streams, and what is in their way.
#[derive(Debug)]
pub(crate) struct Net {
    streams: BTreeMap<StreamNo, Stream>,
    next: u64,
    weather: Weather,
    /// Nodes that only hear each other.
    island: BTreeSet<usize>,
    random: Random,
    pub(crate) resets: u64,
}

/// A piece and when it comes.
pub(crate) type Arrival = (u64, StreamNo, End, Piece);

impl Net {
    pub(crate) fn new(weather: Weather, random: Random) -> Self {
        let (streams, island) = (BTreeMap::new(), BTreeSet::new());
        Self { streams, next: 0, weather, island, random, resets: 0 }
    }

    /// Cuts these nodes off from all others; nobody heals it.
    pub(crate) fn set_island(&mut self, nodes: BTreeSet<usize>) {
        self.island = nodes;
    }

    pub(crate) fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    pub(crate) fn reaches(&self, one: usize, other: usize) -> bool {
        self.island.contains(&one) == self.island.contains(&other)
    }

    pub(crate) fn delay(&mut self) -> u64 {
        self.random.between(self.weather.least_ms, self.weather.most_ms)
    }

    pub(crate) fn is_lost(&mut self) -> bool {
        self.random.lucky(self.weather.loss_permille)
    }

    pub(crate) fn get(&self, stream: StreamNo) -> Option<&Stream> {
        self.streams.get(&stream)
    }

    /// Whether `end` still wants what comes.
    pub(crate) fn listens(&self, stream: StreamNo, end: End) -> bool {
        self.streams.get(&stream).is_some_and(|stream| !stream.left[Stream::slot(end)])
    }

    /// Opens a stream; the first arrival is its opening, at the acceptor.
    pub(crate) fn open(
        &mut self,
        now: u64,
        protocol: Protocol,
        opener: usize,
        peer: PeerId,
        acceptor: usize,
    ) -> (StreamNo, Arrival) {
        let number = StreamNo(self.next);
        self.next += 1;
        let stream = Stream {
            protocol,
            opener,
            acceptor,
            peer,
            last: [now; 2],
            left: [false; 2],
            broken: false,
        };
        self.streams.insert(number, stream);
        let arrival = if self.reaches(opener, acceptor) {
            self.arrival(now, number, End::Acceptor, Piece::Opened)
        } else {
            (now + NOTICE_MS, number, End::Opener, Piece::Refused)
        };
        (number, arrival)
    }

    fn arrival(&mut self, now: u64, stream: StreamNo, to: End, piece: Piece) -> Arrival {
        let delay = self.delay();
        let mut at = now + delay;
        if let Some(known) = self.streams.get_mut(&stream) {
            let last = &mut known.last[Stream::slot(to)];
            at = at.max(*last + 1);
            *last = at;
        }
        (at, stream, to, piece)
    }

    /// Sends a piece to the other end than `from`.
    pub(crate) fn send(
        &mut self,
        now: u64,
        stream: StreamNo,
        from: End,
        piece: Piece,
    ) -> Vec<Arrival> {
        let Some(known) = self.streams.get(&stream) else { return Vec::new() };
        if known.broken {
            return Vec::new();
        }
        let (opener, acceptor) = (known.opener, known.acceptor);
        if !self.reaches(opener, acceptor) {
            return self.take_down(now + NOTICE_MS, stream);
        }
        if self.is_lost() {
            return self.take_down(now, stream);
        }
        vec![self.arrival(now, stream, from.other(), piece)]
    }

    /// Nothing passes any more; both ends hear of it.
    pub(crate) fn take_down(&mut self, now: u64, stream: StreamNo) -> Vec<Arrival> {
        let Some(known) = self.streams.get_mut(&stream) else { return Vec::new() };
        known.broken = true;
        self.resets += 1;
        [End::Opener, End::Acceptor]
            .into_iter()
            .map(|end| self.arrival(now, stream, end, Piece::Reset))
            .collect()
    }

    /// This end wants nothing more; the other end is told unless it left too.
    pub(crate) fn leave(&mut self, now: u64, stream: StreamNo, end: End) -> Vec<Arrival> {
        if !self.listens(stream, end) {
            return Vec::new();
        }
        let arrivals = if self.listens(stream, end.other()) {
            self.send(now, stream, end, Piece::Finished)
        } else {
            Vec::new()
        };
        self.drop_end(stream, end);
        arrivals
    }

    /// This end is gone without a word.
    pub(crate) fn drop_end(&mut self, stream: StreamNo, end: End) {
        if let Some(known) = self.streams.get_mut(&stream) {
            known.left[Stream::slot(end)] = true;
            if known.left == [true; 2] {
                self.streams.remove(&stream);
            }
        }
    }

    /// A node is down: its ends are dropped, the others hear of it.
    pub(crate) fn drop_node(&mut self, now: u64, node: usize) -> Vec<Arrival> {
        let ends = [End::Opener, End::Acceptor];
        let held: Vec<(StreamNo, End)> = self
            .streams
            .iter()
            .flat_map(|(number, stream)| ends.map(|end| (*number, end, stream.node(end))))
            .filter(|(_, _, holder)| *holder == node)
            .map(|(number, end, _)| (number, end))
            .collect();
        let mut arrivals = Vec::new();
        for (number, end) in held {
            if self.listens(number, end) {
                if self.listens(number, end.other()) {
                    let reset = self.arrival(now, number, end.other(), Piece::Reset);
                    arrivals.push(reset);
                }
                self.drop_end(number, end);
            }
        }
        arrivals
    }
}
