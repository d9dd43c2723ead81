//! The join puzzle: what a registration costs when a registrar has a queue.
//!
//! Nothing in calm. Under load a registrar's [`Doorman`] serves who paid most
//! first and says what is being paid; a client that was not served doubles what
//! it pays up to 1,000, then adds half, up to 10,000 ([`raised`]). The doorman's
//! word is the median of what it served, within the same cap, and falls by a
//! third every ten seconds without a queue: whoever pays a lot for a moment does
//! not raise what others are told (a difficulty pump).
//!
//! [`Puzzle`] is the interface; [`Birthday`] the default behind it, an Equihash
//! of small size (Biryukov & Khovratovich, NDSS 2016) over BLAKE3: eight of
//! 65,536 numbers of 60 bits whose XOR is zero, found by Wagner's tree in about
//! 2 MiB, which fits a processor's cache; checked with eight hashes. A solution
//! counts with chance [`LUCK`]/effort. Equi-X, which generates a program for
//! each try, is harder to build machines for and has a licence that does not
//! suit a default; it fits behind the same interface.
//!
//! The order at a registrar is size, rate, puzzle, then ticket and signature.
//! A puzzle is never counted as the defence; it makes a flood of keys cost
//! something where addresses are cheap.
//!
//! Absent on purpose: threads and clocks; the solver does as many tries as it is
//! told and gives itself back.

mod doorman;
#[cfg(test)]
mod tests;

pub use doorman::{Doorman, PERIOD_MS, QUEUE, Queued};

/// The highest effort there is.
pub const MAX_EFFORT: u32 = 10_000;
/// Up to here a client doubles.
const DOUBLES_TO: u32 = 1_000;
/// A solution counts with chance `LUCK` / effort: small steps, so that bad luck
/// at the highest effort stays within 30 seconds of one processor.
pub const LUCK: u64 = 4;
/// Numbers of one try.
const ITEMS: usize = 1 << 16;
/// Bits that vanish in each of the first two rounds.
const ROUND_BITS: u32 = 15;
const ROUND_MASK: u64 = (1 << ROUND_BITS) - 1;
/// Bits of a number.
const MASK: u64 = (1 << 60) - 1;
/// Numbers made by one hash.
const PER_HASH: usize = 8;
/// Pairs that are followed in a round; the few beyond are left out.
const MAX_PAIRS: usize = ITEMS + ITEMS / 8;
/// Bytes of a solution.
pub const SOLUTION_BYTES: usize = 4 + 8 + 16;

/// What a client pays next if it was not served for this.
///
/// ```
/// use peerproof_discovery::puzzle::raised;
///
/// assert_eq!([raised(0), raised(1), raised(512), raised(1_000)], [1, 2, 1_000, 1_500]);
/// assert_eq!(raised(9_000), 10_000);
/// ```
#[must_use]
pub const fn raised(effort: u32) -> u32 {
    let next = match effort {
        0 => 1,
        1..DOUBLES_TO => {
            let doubled = effort * 2;
            if doubled > DOUBLES_TO { DOUBLES_TO } else { doubled }
        }
        _ => effort.saturating_add(effort / 2),
    };
    if next > MAX_EFFORT { MAX_EFFORT } else { next }
}

/// What a solution is for: the registrar's seed of the hour, and the request, so
/// that it is of use nowhere else and for nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge([u8; 32]);

impl Challenge {
    /// For a registrar's seed, who asks, and the hash of what it asks.
    #[must_use]
    pub fn new(seed: &[u8; 32], who: &[u8], what: &[u8; 32]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("peerproof discovery puzzle v1");
        hasher.update(seed).update(what).update(who);
        Self(*hasher.finalize().as_bytes())
    }
}

/// Work that was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Solution {
    /// What it is worth.
    pub effort: u32,
    nonce: u64,
    indices: [u16; 8],
}

impl Solution {
    /// As it travels.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; SOLUTION_BYTES] {
        let mut bytes = [0; SOLUTION_BYTES];
        bytes[..4].copy_from_slice(&self.effort.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.nonce.to_be_bytes());
        for (place, index) in bytes[12..].chunks_exact_mut(2).zip(self.indices) {
            place.copy_from_slice(&index.to_be_bytes());
        }
        bytes
    }

    /// What came. Whether it is right says [`Puzzle::verify`].
    ///
    /// # Errors
    /// [`PuzzleError::Size`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PuzzleError> {
        let size = PuzzleError::Size { expected: SOLUTION_BYTES, got: bytes.len() };
        let (effort, rest) = bytes.split_first_chunk().ok_or(size.clone())?;
        let (nonce, rest) = rest.split_first_chunk().ok_or(size.clone())?;
        let rest: &[u8; 16] = rest.try_into().map_err(|_| size)?;
        let mut indices = [0; 8];
        for (index, chunk) in indices.iter_mut().zip(rest.chunks_exact(2)) {
            *index = u16::from_be_bytes([chunk[0], chunk[1]]);
        }
        let (effort, nonce) = (u32::from_be_bytes(*effort), u64::from_be_bytes(*nonce));
        Ok(Self { effort, nonce, indices })
    }
}

/// Why a solution is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PuzzleError {
    /// Not the size of a solution.
    #[error("a solution has {expected} bytes, got {got}")]
    Size {
        /// How many it has.
        expected: usize,
        /// How many came.
        got: usize,
    },
    /// More effort than there is.
    #[error("at most an effort of {limit} counts, got {got}")]
    Effort {
        /// The highest.
        limit: u32,
        /// What it says.
        got: u32,
    },
    /// Not in the one order, or a number twice.
    #[error("the solution is not in its one order")]
    Order,
    /// The numbers do not cancel.
    #[error("the solution's numbers do not cancel in round {round}")]
    Sum {
        /// Where they don't.
        round: u8,
    },
    /// Right, and worth less than it says.
    #[error("the solution is not worth an effort of {effort}")]
    Worth {
        /// What it says.
        effort: u32,
    },
}

/// A way to show that work was done.
pub trait Puzzle {
    /// Looks for a solution of an effort in so many tries from a nonce on.
    ///
    /// # Errors
    /// The nonce to go on from.
    fn solve(
        &self,
        challenge: &Challenge,
        effort: u32,
        nonce: u64,
        tries: u32,
    ) -> Result<Solution, u64>;

    /// Checks one, in much less time than it takes to find.
    ///
    /// # Errors
    /// [`PuzzleError`].
    fn verify(&self, challenge: &Challenge, solution: &Solution) -> Result<(), PuzzleError>;
}

/// The default puzzle; see the module.
///
/// ```
/// use peerproof_discovery::puzzle::{Birthday, Challenge, Puzzle};
///
/// let challenge = Challenge::new(&[1; 32], b"who", &[2; 32]);
/// let solution = Birthday.solve(&challenge, 1, 0, 8).expect("two a try");
/// assert_eq!(Birthday.verify(&challenge, &solution), Ok(()));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Birthday;

/// The hash that a try's numbers come from.
fn keyed(challenge: &Challenge, nonce: u64) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new_keyed(&challenge.0);
    hasher.update(&nonce.to_be_bytes());
    hasher
}

/// Eight numbers of a try.
fn numbers(keyed: &blake3::Hasher, group: u16) -> [u64; PER_HASH] {
    let mut hasher = keyed.clone();
    hasher.update(&group.to_be_bytes());
    let mut bytes = [0; PER_HASH * 8];
    hasher.finalize_xof().fill(&mut bytes);
    let mut numbers = [0; PER_HASH];
    for (number, chunk) in numbers.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *number = u64::from_le_bytes(*chunk) & MASK;
    }
    numbers
}

fn number(keyed: &blake3::Hasher, index: u16) -> u64 {
    numbers(keyed, index / PER_HASH as u16)[usize::from(index) % PER_HASH]
}

/// Whether a right solution is worth an effort.
fn is_worth(challenge: &Challenge, solution: &Solution) -> bool {
    let mut hasher = blake3::Hasher::new_keyed(&challenge.0);
    hasher.update(b"worth").update(&solution.to_bytes()[4..]);
    let mut bytes = [0; 4];
    hasher.finalize_xof().fill(&mut bytes);
    let drawn = u64::from(u32::from_le_bytes(bytes));
    drawn * u64::from(solution.effort) < LUCK << 32
}

/// Two of the last round, and what is left of their numbers.
#[derive(Clone, Copy)]
struct Pair {
    left: u32,
    right: u32,
    rest: u64,
}

/// Pairs whose lowest bits agree, with those bits gone. `rests` are numbers.
fn pairs(rests: &[u64]) -> Vec<Pair> {
    let buckets = 1_usize << ROUND_BITS;
    let bucket = |rest: u64| (rest & ROUND_MASK) as usize;
    let mut ends = vec![0_u32; buckets + 1];
    rests.iter().for_each(|rest| ends[bucket(*rest) + 1] += 1);
    for at in 0..buckets {
        ends[at + 1] += ends[at];
    }
    let starts = ends.clone();
    let mut sorted = vec![0_u32; rests.len()];
    for (place, rest) in rests.iter().enumerate() {
        let next = &mut ends[bucket(*rest)];
        sorted[*next as usize] = place as u32;
        *next += 1;
    }
    let mut found = Vec::with_capacity(MAX_PAIRS);
    for bounds in starts.windows(2) {
        let members = &sorted[bounds[0] as usize..bounds[1] as usize];
        for (at, left) in members.iter().enumerate() {
            for right in &members[at + 1..] {
                if found.len() == MAX_PAIRS {
                    return found;
                }
                let rest = (rests[*left as usize] ^ rests[*right as usize]) >> ROUND_BITS;
                found.push(Pair { left: *left, right: *right, rest });
            }
        }
    }
    found
}

/// All solutions of one try, in their one order.
fn solutions(challenge: &Challenge, nonce: u64) -> Vec<[u16; 8]> {
    let keyed = keyed(challenge, nonce);
    let groups = 0..(ITEMS / PER_HASH) as u16;
    let items: Vec<u64> = groups.flat_map(|group| numbers(&keyed, group)).collect();
    let twos = pairs(&items);
    let fours = pairs(&twos.iter().map(|pair| pair.rest).collect::<Vec<_>>());
    let mut last: Vec<(u64, u32)> =
        fours.iter().enumerate().map(|(place, pair)| (pair.rest, place as u32)).collect();
    last.sort_unstable();
    let of_two = |place: u32| {
        let pair = twos[place as usize];
        [pair.left as u16, pair.right as u16]
    };
    let of_four = |place: u32| {
        let pair = fours[place as usize];
        let ([a, b], [c, d]) = (of_two(pair.left), of_two(pair.right));
        [a, b, c, d]
    };
    let mut found = Vec::new();
    for same in last.chunk_by(|a, b| a.0 == b.0) {
        for (at, (_, left)) in same.iter().enumerate() {
            for (_, right) in &same[at + 1..] {
                let (left, right) = (of_four(*left), of_four(*right));
                let mut indices = [0; 8];
                indices[..4].copy_from_slice(&left);
                indices[4..].copy_from_slice(&right);
                put_in_order(&mut indices);
                if is_in_order(&indices) {
                    found.push(indices);
                }
            }
        }
    }
    found
}

/// In each pair, four and eight the smaller first index comes first.
fn put_in_order(indices: &mut [u16; 8]) {
    for width in [1, 2, 4] {
        for chunk in indices.chunks_exact_mut(2 * width) {
            if chunk[0] > chunk[width] {
                let (left, right) = chunk.split_at_mut(width);
                left.swap_with_slice(right);
            }
        }
    }
}

fn is_in_order(indices: &[u16; 8]) -> bool {
    let ordered = [1, 2, 4]
        .iter()
        .all(|width| indices.chunks_exact(2 * width).all(|chunk| chunk[0] < chunk[*width]));
    let mut sorted = *indices;
    sorted.sort_unstable();
    ordered && sorted.windows(2).all(|two| two[0] != two[1])
}

impl Puzzle for Birthday {
    fn solve(
        &self,
        challenge: &Challenge,
        effort: u32,
        nonce: u64,
        tries: u32,
    ) -> Result<Solution, u64> {
        for nonce in (0..u64::from(tries)).map(|n| nonce.wrapping_add(n)) {
            for indices in solutions(challenge, nonce) {
                let solution = Solution { effort, nonce, indices };
                if is_worth(challenge, &solution) {
                    return Ok(solution);
                }
            }
        }
        Err(nonce.wrapping_add(u64::from(tries)))
    }

    fn verify(&self, challenge: &Challenge, solution: &Solution) -> Result<(), PuzzleError> {
        if solution.effort > MAX_EFFORT {
            return Err(PuzzleError::Effort { limit: MAX_EFFORT, got: solution.effort });
        }
        if !is_in_order(&solution.indices) {
            return Err(PuzzleError::Order);
        }
        if !is_worth(challenge, solution) {
            return Err(PuzzleError::Worth { effort: solution.effort });
        }
        let keyed = keyed(challenge, solution.nonce);
        let mut rests: Vec<u64> =
            solution.indices.iter().map(|index| number(&keyed, *index)).collect();
        for (round, mask) in [(0, ROUND_MASK), (1, ROUND_MASK), (2, MASK)] {
            rests = rests.chunks_exact(2).map(|two| two[0] ^ two[1]).collect();
            if rests.iter().any(|rest| rest & mask != 0) {
                return Err(PuzzleError::Sum { round });
            }
            rests.iter_mut().for_each(|rest| *rest >>= ROUND_BITS);
        }
        Ok(())
    }
}
