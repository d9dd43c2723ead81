//! Text from peers, made short enough to keep and safe to print.

/// At most `max_bytes` of `text`, cut between characters, control characters replaced.
pub(crate) fn clip(text: &str, max_bytes: usize) -> String {
    let mut clipped = String::new();
    for character in text.chars() {
        let character = if character.is_control() { '\u{fffd}' } else { character };
        if clipped.len() + character.len_utf8() > max_bytes {
            break;
        }
        clipped.push(character);
    }
    clipped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_between_characters_and_hides_escapes() {
        assert_eq!(clip("abc", 3), "abc");
        assert_eq!(clip("aé", 2), "a");
        assert_eq!(clip("\u{1b}[2J", 100), "\u{fffd}[2J");
    }
}
