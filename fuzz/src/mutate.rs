//! Seeds made slightly wrong: lengths, counts and offsets that lie, pieces that
//! are missing, doubled, swapped or from elsewhere, words where none belong.

use super::random::Random;

/// Numbers at which arithmetic breaks.
const NUMBERS: [u64; 24] = [
    0,
    1,
    2,
    3,
    7,
    8,
    31,
    32,
    255,
    256,
    4_096,
    65_535,
    1 << 20,
    1 << 24,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    1 << 40,
    (1 << 62) + 1,
    (1 << 63) - 1,
    1 << 63,
    u64::MAX - 31,
    u64::MAX,
];
/// Longer inputs find nothing that shorter ones don't.
const MAX_BYTES: usize = 1 << 20;

pub(crate) struct Mutator {
    pub(crate) seeds: Vec<Vec<u8>>,
    pub(crate) words: &'static [&'static [u8]],
}

impl Mutator {
    pub(crate) fn make(&self, random: &mut Random) -> Vec<u8> {
        let mut bytes = self.seeds[random.below(self.seeds.len())].clone();
        for _ in 0..random.small(6) + 1 {
            self.edit(&mut bytes, random);
            bytes.truncate(MAX_BYTES);
        }
        bytes
    }

    /// A place, more often near the beginning: that is where headers are.
    fn place(bytes: &[u8], random: &mut Random) -> usize {
        match random.below(4) {
            0 => random.below(bytes.len()),
            1 => random.below(bytes.len().min(64)),
            _ => random.below(bytes.len().min(2_048)),
        }
    }

    fn edit(&self, bytes: &mut Vec<u8>, random: &mut Random) {
        if bytes.is_empty() {
            bytes.extend((0..random.small(64) + 1).map(|_| random.next() as u8));
            return;
        }
        let at = Self::place(bytes, random);
        let len = random.small((bytes.len() - at).min(256)) + 1;
        let end = (at + len).min(bytes.len());
        match random.below(11) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 | 3 => self.number(bytes, at, random),
            4 => bytes.truncate(at),
            5 => drop(bytes.drain(at..end)),
            6 => {
                let piece = bytes[at..end].to_vec();
                for _ in 0..random.small(8) + 1 {
                    bytes.splice(at..at, piece.iter().copied());
                }
            }
            7 => {
                let other = &self.seeds[random.below(self.seeds.len())];
                let from = random.below(other.len());
                let to = (from + random.small(512) + 1).min(other.len());
                bytes.splice(at..end, other[from..to].iter().copied());
            }
            8 => {
                let to = random.below(bytes.len() - (end - at) + 1);
                let piece: Vec<u8> = bytes.drain(at..end).collect();
                bytes.splice(to..to, piece);
            }
            _ if self.words.is_empty() => bytes[at] = bytes[at].wrapping_add(1),
            9 => {
                let word = self.words[random.below(self.words.len())];
                bytes.splice(at..at, word.iter().copied());
            }
            _ => {
                let word = self.words[random.below(self.words.len())];
                bytes.splice(at..end, word.iter().copied());
            }
        }
    }

    /// A number of 2, 4 or 8 bytes where one may be, or one near what is there.
    fn number(&self, bytes: &mut [u8], at: usize, random: &mut Random) {
        let width = [2, 4, 4, 8, 8, 8][random.below(6)];
        let Some(place) = bytes.get_mut(at..at + width) else { return };
        let mut old = [0; 8];
        old[..width].copy_from_slice(place);
        let number = match random.below(3) {
            0 => u64::from_le_bytes(old).wrapping_add(random.next() % 9).wrapping_sub(4),
            _ => NUMBERS[random.below(NUMBERS.len())],
        };
        place.copy_from_slice(&number.to_le_bytes()[..width]);
    }
}
