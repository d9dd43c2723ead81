//! An embedding as the answer of a job: integers where tokens stand, their decimal digits as text.
//!
//! A component `v` of the vector, from -2^22 to 2^22 for -1 to 1, stands in the
//! answer as the number `2^23 + v`, which is as long as a token id may be. The
//! text of the answer is the components in decimal with a space between two.
//! So an embedding is hashed, streamed, logged, audited and shown as evidence
//! as any other answer is. Deliberately absent: how the vector is computed.

use std::fmt::Write as _;

/// A component is its integer divided by 2 to the power of this.
pub const COMPONENT_BITS: u32 = 22;
const OFFSET: i32 = 1 << 23;

/// What stands in the answer for a component.
///
/// ```
/// use peerproof_proof::embedding;
///
/// let token = embedding::token(-5);
/// assert_eq!((token, embedding::component(token)), ((1 << 23) - 5, -5));
/// ```
#[must_use]
pub fn token(component: i32) -> u32 {
    component.saturating_add(OFFSET).max(0) as u32
}

/// The component that a number in the answer stands for.
#[must_use]
pub fn component(token: u32) -> i32 {
    i32::try_from(token).unwrap_or(i32::MAX) - OFFSET
}

/// What the number at `index` of the answer adds to its text.
#[must_use]
pub fn piece(index: usize, token: u32) -> String {
    let space = if index > 0 { " " } else { "" };
    format!("{space}{}", component(token))
}

/// The text of an answer.
#[must_use]
pub fn text(tokens: &[u32]) -> String {
    let mut text = String::new();
    for (index, token) in tokens.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{}", piece(index, *token));
    }
    text
}

/// The components that a text names; `None` if it is no text of an embedding.
#[must_use]
pub fn components(text: &str) -> Option<Vec<i32>> {
    text.split(' ').map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_tokens_say_the_same() {
        let vector = [0, -1, 1 << 22, -(1 << 22), 77];
        let tokens = vector.map(token);
        assert!(tokens.iter().all(|token| *token <= peerproof_wire::limits::MAX_TOKEN_ID));
        assert_eq!(text(&tokens), "0 -1 4194304 -4194304 77");
        assert_eq!(components(&text(&tokens)), Some(vector.to_vec()));
        assert_eq!(tokens.map(component), vector);
        assert_eq!(components("1 x"), None);
        assert_eq!(components(""), None);
    }
}
