// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Text that others wrote, for a terminal.
//!
//! Invariant: what comes out moves no cursor, changes no colour and turns no writing direction.

/// The text with `?` for each character that a terminal would obey instead of showing it.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || directs(c) { '?' } else { c }).collect()
}

/// Marks of writing direction, and other characters that are not seen.
fn directs(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobodys_text_can_draw_on_the_terminal() {
        assert_eq!(printable("a\u{1b}[2J\n\u{9b}1mb\u{7f}"), "a?[2J??1mb?");
        assert_eq!(printable("gpj.\u{202e}exe"), "gpj.?exe");
        assert_eq!(printable("ä 漢 \"x\" \\n"), "ä 漢 \"x\" \\n");
    }
}
