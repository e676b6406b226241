//! Text of servers and models, made fit to be shown: the same escapes as in Python (`_shown.py`).

use std::fmt::{self, Display, Formatter, Write as _};

/// Shows characters that would move a terminal's cursor, or turn the text around, as escapes.
pub fn escape_controls(text: &mut String) {
    if text.contains(is_odd) {
        let mut shown = String::with_capacity(text.len() + 16);
        for letter in text.chars() {
            // Nothing can go wrong in writing to a string.
            let _ = if is_odd(letter) { escape(letter, &mut shown) } else { shown.write_char(letter) };
        }
        *text = shown;
    }
}

/// A text between quotation marks, on one line.
pub struct Quoted<'a>(pub &'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        out.write_char('"')?;
        for letter in self.0.chars() {
            match letter {
                '\n' => out.write_str("\\n")?,
                '\t' => out.write_str("\\t")?,
                '"' => out.write_str("\\\"")?,
                odd if is_odd(odd) => escape(odd, out)?,
                other => out.write_char(other)?,
            }
        }
        out.write_char('"')
    }
}

fn is_odd(letter: char) -> bool {
    (letter.is_control() && !matches!(letter, '\n' | '\t'))
        || matches!(letter, '\u{61c}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{e0000}'..='\u{e007f}')
}

fn escape(letter: char, out: &mut dyn fmt::Write) -> fmt::Result {
    match u32::from(letter) {
        0x0d => out.write_str("\\r"),
        code @ ..=0xff => write!(out, "\\x{code:02x}"),
        code @ ..=0xffff => write!(out, "\\u{code:04x}"),
        code => write!(out, "\\U{code:08x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_are_written_as_python_writes_them() {
        let odd = "a\u{1b}[2J\r\u{9b}\u{61c}\u{2028}\u{e0001}\n\t\"\\";
        let mut text = odd.to_owned();
        escape_controls(&mut text);
        assert_eq!(text, "a\\x1b[2J\\r\\x9b\\u061c\\u2028\\U000e0001\n\t\"\\");
        assert_eq!(Quoted(odd).to_string(), "\"a\\x1b[2J\\r\\x9b\\u061c\\u2028\\U000e0001\\n\\t\\\"\\\"");
        assert_eq!(Quoted("\u{65e5} \\x1b").to_string(), "\"\u{65e5} \\x1b\"");
    }
}
