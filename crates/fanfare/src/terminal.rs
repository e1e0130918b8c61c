//! How the tools look in a terminal: a few styles, and text from elsewhere made harmless.

use std::fmt::Write as _;
use std::io::Write as _;

use anstyle::{AnsiColor, Style};
use anyhow::Context as _;

pub(crate) const BOLD: Style = Style::new().bold();
pub(crate) const DIM: Style = Style::new().dimmed();
pub(crate) const RED: Style = AnsiColor::Red.on_default().bold();
pub(crate) const GREEN: Style = AnsiColor::Green.on_default();
pub(crate) const YELLOW: Style = AnsiColor::Yellow.on_default();
pub(crate) const CYAN: Style = AnsiColor::Cyan.on_default();
pub(crate) const MAGENTA: Style = AnsiColor::Magenta.on_default();

/// Says on standard error why the command failed.
pub(crate) fn error(error: &anyhow::Error) {
    anstream::eprintln!("{RED}error:{RED:#} {error:#}");
}

/// Whoever read our standard output has closed it: a normal ending.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("nobody reads the output any more")]
pub(crate) struct ReaderGone;

/// Prints to standard output, with styles where it is a terminal.
///
/// # Errors
/// [`ReaderGone`], or it can't be written.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = anstream::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        written => written.context("the output can't be written"),
    }
}

/// Says something about the command itself on standard error.
pub(crate) fn note(style: Style, text: &str) {
    anstream::eprintln!("{style}{text}{style:#}");
}

/// Foreign text on one line: a newline or an escape sequence is shown, not obeyed.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => line.push('⏎'),
            '\t' => line.push(' '),
            harmful if harmful.is_control() || is_bidi_control(harmful) => {
                _ = write!(line, "{}", harmful.escape_unicode());
            }
            harmless => line.push(harmless),
        }
    }
    line
}

/// Characters that make a terminal show a line in another order than it is written.
fn is_bidi_control(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_stays_on_its_line_and_moves_no_cursor() {
        assert_eq!(one_line("a\nb\tc"), "a⏎b c");
        assert_eq!(one_line("\u{1b}[2Jü\u{202e}"), r"\u{1b}[2Jü\u{202e}");
    }
}
