//! The kinds of statement a key may sign, and the bytes that keep them apart.
//!
//! What a signature covers is `tag ‖ 0x00 ‖ length ‖ message`, the length of
//! the message as eight little-endian bytes. No tag is a prefix of another
//! before its zero byte, so no two kinds share a signed byte string. A signed
//! note (transparency log checkpoint) is text without a zero byte, hence
//! disjoint from all of these.

/// A kind of signed statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Domain {
    /// A router asks for an answer.
    Offer,
    /// A provider says what it did.
    Receipt,
    /// An auditor says what a recomputation found.
    Verdict,
    /// A node says what it serves.
    Announcement,
    /// A key says something under a name of its own.
    Record,
    /// A publisher permits one node to keep one record.
    Grant,
    /// A node shows that it holds its key at this moment.
    Probe,
    /// A provider says what happened within a cell.
    Trace,
}

impl Domain {
    /// Every domain, in the order of declaration.
    pub const ALL: [Self; 8] = [
        Self::Offer,
        Self::Receipt,
        Self::Verdict,
        Self::Announcement,
        Self::Record,
        Self::Grant,
        Self::Probe,
        Self::Trace,
    ];

    /// The text that opens every byte string signed in this domain.
    ///
    /// ```
    /// assert_eq!(peerproof_identity::Domain::Offer.tag(), "peerproof offer v1");
    /// ```
    pub const fn tag(self) -> &'static str {
        match self {
            Self::Offer => "peerproof offer v1",
            Self::Receipt => "peerproof receipt v1",
            Self::Verdict => "peerproof verdict v1",
            Self::Announcement => "peerproof announcement v1",
            Self::Record => "peerproof record v1",
            Self::Grant => "peerproof grant v1",
            Self::Probe => "peerproof probe v1",
            Self::Trace => "peerproof trace v1",
        }
    }

    /// The exact bytes a signature in this domain covers.
    pub fn signed_bytes(self, message: &[u8]) -> Vec<u8> {
        let tag = self.tag().as_bytes();
        let mut bytes = Vec::with_capacity(tag.len() + 9 + message.len());
        bytes.extend_from_slice(tag);
        bytes.push(0);
        bytes.extend_from_slice(&(message.len() as u64).to_le_bytes());
        bytes.extend_from_slice(message);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_bytes_are_tag_zero_length_message() {
        assert_eq!(
            Domain::Receipt.signed_bytes(b"abc"),
            b"peerproof receipt v1\0\x03\0\0\0\0\0\0\0abc"
        );
    }

    #[test]
    fn tags_are_distinct_text_without_zero_bytes() {
        for (index, one) in Domain::ALL.iter().enumerate() {
            assert!(one.tag().bytes().all(|byte| (0x20..0x7f).contains(&byte)));
            for other in &Domain::ALL[index + 1..] {
                assert_ne!(one.tag(), other.tag());
            }
        }
    }
}
