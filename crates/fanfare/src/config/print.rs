//! `fanfare config`: the table of settings for people, for the documentation, and as a file to start from.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::parts::{Doc, PARTS};
use super::settings::{Kind, SETTINGS, Setting};
use super::sources::{self, Source};
use super::{Config, Inputs, Role};
use crate::args::{ConfigOptions, Format};
use crate::terminal::{self, BOLD, DIM, GREEN};

/// Prints them all.
pub(crate) fn print(options: &ConfigOptions) -> anyhow::Result<ExitCode> {
    let text = match options.format {
        Format::Text => {
            let (config, sources) =
                sources::read(Config::default_for(Role::Service), &Inputs::with_file(options.config.clone()))?;
            text(&config, &sources)
        }
        Format::Markdown => markdown(),
        Format::Toml => toml(),
    };
    terminal::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn text(config: &Config, sources: &[Source]) -> String {
    let width = |cells: &mut dyn Iterator<Item = String>| cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
    let variables = width(&mut SETTINGS.iter().map(|setting| setting.variable.to_owned()));
    let keys = width(&mut SETTINGS.iter().map(|setting| in_table(setting.key)));
    let mut out = String::new();
    for (setting, source) in SETTINGS.iter().zip(sources) {
        let Setting { variable, .. } = setting;
        let key = in_table(setting.key);
        let value = (setting.get)(config);
        let (style, origin) = match source {
            Source::Default => (DIM, default(setting, "default")),
            Source::File(path) => (GREEN, format!("{}; default {}", path.display(), default(setting, ""))),
            Source::Variable => (GREEN, format!("environment; default {}", default(setting, ""))),
            Source::Flag(flag) => (GREEN, format!("{flag}; default {}", default(setting, ""))),
        };
        _ = writeln!(
            out,
            "{BOLD}{variable:variables$}{BOLD:#}  {key:keys$}  {style}{value}{style:#}  {DIM}({origin}){DIM:#}"
        );
        _ = writeln!(out, "    {}", meaning(setting));
    }
    for part in &PARTS {
        _ = writeln!(out, "{BOLD}{}{BOLD:#}  {DIM}(only in the file){DIM:#}\n    {}", part.header, part.meaning);
        for doc in (part.docs)() {
            _ = writeln!(out, "    {}: {} {DIM}(default {}){DIM:#}", doc.key, doc.meaning, doc.default);
        }
        for (header, fields) in (part.show)(config) {
            let fields: Vec<_> = fields.iter().map(|(key, value)| format!("{key} {value}")).collect();
            _ = writeln!(out, "  {header}  {GREEN}{}{GREEN:#}", fields.join(", "));
        }
    }
    out
}

/// The default, unless `same` says that it is the value anyway; and that of `dev`, where it is another.
fn default(setting: &Setting, same: &str) -> String {
    let [service, dev] = [Role::Service, Role::Dev].map(|role| (setting.get)(&Config::default_for(role)));
    let first = if same.is_empty() { &service } else { same };
    if service == dev { first.to_owned() } else { format!("{first}; in dev {dev}") }
}

fn markdown() -> String {
    let mut out = String::from("| variable | TOML | default | meaning |\n|---|---|---|---|\n");
    for setting in &SETTINGS {
        let [service, dev] = [Role::Service, Role::Dev].map(|role| (setting.get)(&Config::default_for(role)));
        let default = if service == dev { format!("`{service}`") } else { format!("`{service}`; in `dev` `{dev}`") };
        _ = writeln!(
            out,
            "| `{}` | `{}` | {default} | {} Expected: {}. |",
            setting.variable,
            in_table(setting.key),
            in_cell(&meaning(setting)),
            in_cell(setting.expected)
        );
    }
    for part in &PARTS {
        _ = writeln!(out, "\n`{}`, only in the file: {}\n", part.header, part.meaning);
        out.push_str("| key | default | meaning |\n|---|---|---|\n");
        for doc in (part.docs)() {
            let (meaning, expected) = (in_cell(doc.meaning), in_cell(doc.expected));
            _ = writeln!(out, "| `{}` | {} | {meaning} Expected: {expected}. |", doc.key, in_cell(doc.default));
        }
    }
    out
}

/// With the other way to give a secret.
fn meaning(setting: &Setting) -> String {
    let Setting { variable, meaning, .. } = setting;
    match setting.kind {
        Kind::Value | Kind::Text => (*meaning).to_owned(),
        Kind::Secret => format!("{meaning} Or {variable}_FILE: a file that holds it."),
    }
}

/// In Markdown, `|` ends a cell.
fn in_cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// A key as it stands in a file: `[edge] listen`.
fn in_table(key: &str) -> String {
    match key.split_once('.') {
        Some((table, name)) => format!("[{table}] {name}"),
        None => key.to_owned(),
    }
}

/// Keys at the top come first: after a table's header they would be the table's.
fn toml() -> String {
    let mut out = String::from("# Fanfare's configuration. Environment variables go over it, flags over both.\n");
    let mut settings: Vec<_> = SETTINGS.iter().collect();
    settings.sort_by_key(|setting| setting.key.split_once('.').map(|(table, _)| table));
    let mut current = None;
    for setting in settings {
        let (table, name) = match setting.key.split_once('.') {
            Some((table, name)) => (Some(table), name),
            None => (None, setting.key),
        };
        if table != current {
            _ = writeln!(out, "\n[{}]", table.expect("keys without a table come first"));
            current = table;
        }
        let value = (setting.get)(&Config::default_for(Role::Service));
        let number = value.bytes().all(|byte| byte.is_ascii_digit());
        let value = if number { value } else { format!("{value:?}") };
        let dev = default(setting, " ");
        let dev = dev.trim_start_matches([' ', ';']);
        let dev = if dev.is_empty() { String::new() } else { format!("  # {dev}") };
        _ = write!(out, "\n# {}\n# Expected: {}.\n# {name} = {value}{dev}\n", meaning(setting), setting.expected);
    }
    for part in &PARTS {
        _ = write!(out, "\n# {}\n# {}\n", part.meaning, part.header);
        for doc in (part.docs)() {
            let Doc { key, meaning, expected, example, default } = doc;
            _ = write!(out, "\n# {meaning}\n# Expected: {expected}. Default: {default}.\n# {key} = {example}\n");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_file_holds_the_defaults() {
        let switched_on: String = toml()
            .lines()
            .map(|line| {
                let set = |line: &&str| line.starts_with('[') || line.split(' ').nth(1) == Some("=");
                let setting = line.strip_prefix("# ").filter(set);
                format!("{}\n", setting.unwrap_or(line))
            })
            .collect();
        let path = std::env::temp_dir().join(format!("fanfare-defaults-{}.toml", std::process::id()));
        std::fs::write(&path, &switched_on).expect("a file");
        let inputs = Inputs { file: Some(path.clone()), ..Inputs::default() };
        let read = sources::read(Config::default_for(Role::Dev), &inputs);
        std::fs::remove_file(&path).expect("it was there");
        let (config, sources) = read.unwrap_or_else(|mistakes| panic!("{mistakes}\n{switched_on}"));
        for (setting, source) in SETTINGS.iter().zip(sources) {
            assert_eq!((setting.get)(&config), (setting.get)(&Config::default_for(Role::Service)));
            assert_eq!(source, Source::File(path.clone()), "{}", setting.key);
        }
    }
}
