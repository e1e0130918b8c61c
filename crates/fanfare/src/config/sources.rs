//! Reads the inputs, one over the other, and collects what is wrong with each.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::mistakes::Mistakes;
use super::parts::{File, Given, PARTS, kind, scalar};
use super::settings::{Kind, LISTS, SETTINGS, Setting};
use super::values::Wrong;
use super::{Config, Inputs};

/// Variables of the tools and the tests, which are no settings of a service.
const OTHER_VARIABLES: [&str; 5] = ["FANFARE_URL", "FANFARE_KEY", "FANFARE_TOKEN", "FANFARE_SEED", "FANFARE_SEEDS"];

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Default,
    File(PathBuf),
    Variable,
    Flag(&'static str),
}

/// Reads the inputs over `config`, and says for each of [`SETTINGS`] where it comes from.
pub(super) fn read(config: Config, inputs: &Inputs) -> Result<(Config, Vec<Source>), Mistakes> {
    let mut reader = Reader { config, sources: vec![Source::Default; SETTINGS.len()], mistakes: Mistakes::default() };
    if let Some(path) = &inputs.file {
        reader.read_file(path);
    }
    reader.read_environment(&inputs.environment);
    for (flag, key, value) in &inputs.flags {
        let index = SETTINGS.iter().position(|setting| setting.key == *key).expect("a flag sets a setting");
        reader.set(index, Source::Flag(flag), flag, value);
    }
    if reader.mistakes.is_empty() { Ok((reader.config, reader.sources)) } else { Err(reader.mistakes) }
}

struct Reader {
    config: Config,
    sources: Vec<Source>,
    mistakes: Mistakes,
}

impl Reader {
    fn set(&mut self, index: usize, source: Source, place: &str, value: &str) {
        let setting = &SETTINGS[index];
        match (setting.set)(&mut self.config, value) {
            Ok(()) => self.sources[index] = source,
            Err(Wrong::Value) if setting.kind == Kind::Secret => self.refuse(place, "something else", setting),
            Err(Wrong::Value) => self.refuse(place, &format!("{value:.100?}"), setting),
            Err(Wrong::Parts(parts)) => {
                parts.into_iter().for_each(|part| self.mistakes.add(format!("{place}:"), part));
            }
        }
    }

    /// Takes a secret from a file: without the newline that editors end it with.
    fn set_from_file(&mut self, index: usize, source: Source, place: &str, path: &str) {
        match std::fs::read_to_string(path) {
            Ok(text) => self.set(index, source, place, text.trim_end_matches(['\r', '\n'])),
            Err(error) => self.mistakes.add(place, format!("is {path:?}, which can't be read: {error}")),
        }
    }

    fn refuse(&mut self, place: &str, value: &str, setting: &Setting) {
        self.mistakes.add(place, format!("is {value}, expected {}", setting.expected));
    }

    fn read_environment(&mut self, environment: &[(OsString, OsString)]) {
        let mut ours: Vec<_> = environment.iter().filter_map(|(name, value)| our_name(name).zip(Some(value))).collect();
        ours.sort(); // The environment's order is arbitrary, the report's is not.
        for (name, value) in ours {
            match (SETTINGS.iter().position(|setting| setting.variable == name), value.to_str()) {
                (Some(index), Some(value)) => self.set(index, Source::Variable, name, value),
                (Some(index), None) => self.refuse(name, "not UTF-8", &SETTINGS[index]),
                (None, Some(path)) if let Some(index) = file_of(name, "_FILE", |setting| setting.variable) => {
                    let bare = SETTINGS[index].variable;
                    match environment.iter().any(|(other, _)| other == bare) {
                        true => self.mistakes.add(name, format!("is set and {bare} too, expected one of them")),
                        false => self.set_from_file(index, Source::Variable, name, path),
                    }
                }
                (None, _) => self.mistakes.unknown(name, name, similar_variable(name)),
            }
        }
    }

    fn read_file(&mut self, path: &Path) {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return self.mistakes.add(path.display().to_string(), format!("can't be read: {error}")),
        };
        let file = File::new(path, &text);
        let (table, errors) = DeTable::parse_recoverable(&text);
        for error in errors {
            let line = error.span().map_or(1, |span| file.line(span.start));
            self.mistakes.add(format!("{}:{line}", path.display()), format!("is not TOML: {}", error.message().trim()));
        }
        self.read_table(&file, "", table.get_ref());
    }

    fn read_table(&mut self, file: &File<'_>, prefix: &str, table: &DeTable<'_>) {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (name, value) in entries {
            let key = format!("{prefix}{}", name.get_ref());
            let place = file.place(name.span().start, &key);
            let inner = format!("{key}.");
            let index = SETTINGS.iter().position(|setting| setting.key == key);
            let is_table = SETTINGS.iter().any(|setting| setting.key.starts_with(&inner));
            match (value.get_ref(), index) {
                (DeValue::Table(table), None) if is_table => self.read_table(file, &inner, table),
                (given, None) if let Some(part) = PARTS.iter().find(|part| part.key == key) => {
                    let given = Given::new(file, name.get_ref(), name.span().start, given);
                    (part.read)(&mut self.config, &given, &mut self.mistakes);
                }
                (DeValue::Array(list), Some(index)) if LISTS.contains(&SETTINGS[index].key) => {
                    match list.iter().map(|item| item_of_list(item.get_ref())).collect::<Option<Vec<_>>>() {
                        Some(items) => {
                            self.set(index, Source::File(file.path.to_owned()), &place, &items.join(","));
                        }
                        None => self.mistakes.add(place, "has an item that is no text, or has a comma in it"),
                    }
                }
                (value, Some(index)) => match scalar(value) {
                    Some(text) => self.set(index, Source::File(file.path.to_owned()), &place, &text),
                    None => self.refuse(&place, kind(value), &SETTINGS[index]),
                },
                (DeValue::String(path), None) if let Some(index) = file_of(&key, "_file", |setting| setting.key) => {
                    let bare = SETTINGS[index].key.rsplit('.').next().unwrap_or_default();
                    match table.keys().any(|other| other.get_ref() == bare) {
                        true => self.mistakes.add(place, format!("is set and {bare} too, expected one of them")),
                        false => self.set_from_file(index, Source::File(file.path.to_owned()), &place, path),
                    }
                }
                (value, None) if is_table => {
                    self.mistakes.add(place, format!("is {}, expected a table: [{key}]", kind(value)));
                }
                (_, None) => self.mistakes.unknown(file.place(name.span().start, ""), &key, similar_key(&key)),
            }
        }
    }
}

/// The secret that a name with an ending asks to be read from a file.
fn file_of(name: &str, ending: &str, own: fn(&Setting) -> &'static str) -> Option<usize> {
    let bare = name.strip_suffix(ending)?;
    SETTINGS.iter().position(|setting| setting.kind == Kind::Secret && own(setting) == bare)
}

/// An item of a list, as it stands between commas. None at all is no list: `""` is refused as it is elsewhere.
fn item_of_list(value: &DeValue<'_>) -> Option<String> {
    scalar(value).filter(|item| !item.contains(','))
}

/// A variable's name, if it is for us: it begins with `FANFARE_`, and is neither the tools' nor one of those that
/// Kubernetes sets for Services called `fanfare…`.
fn our_name(name: &OsStr) -> Option<&str> {
    let name = name.to_str().filter(|name| name.starts_with("FANFARE_"))?;
    let of_kubernetes = name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || name.contains("_PORT_");
    (!of_kubernetes && !OTHER_VARIABLES.contains(&name)).then_some(name)
}

fn similar_variable(name: &str) -> Option<String> {
    let bare = name.trim_start_matches("FANFARE_");
    // `FANFARE_LISTEN` for `FANFARE_EDGE_LISTEN`: the table is forgotten easily.
    let of_a_table = SETTINGS.iter().find(|setting| setting.variable.ends_with(&format!("_{bare}")));
    let candidates = SETTINGS.iter().map(|setting| setting.variable).chain(OTHER_VARIABLES);
    of_a_table.map(|setting| setting.variable.to_owned()).or_else(|| most_similar(name, "FANFARE_", candidates))
}

fn similar_key(key: &str) -> Option<String> {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().replace('-', "_");
    let elsewhere = SETTINGS.iter().find(|setting| last(setting.key) == last(key));
    let meant = elsewhere.map(|setting| setting.key.to_owned());
    let known = SETTINGS.iter().map(|setting| setting.key).chain(PARTS.iter().map(|part| part.key));
    let meant = meant.or_else(|| most_similar(key, "", known))?;
    Some(match meant.split_once('.') {
        Some((table, name)) => format!("{name} in [{table}]"),
        None if key.contains('.') => format!("{meant}, at the top of the file"),
        None => meant,
    })
}

/// The candidate that takes the fewest edits, if they are few: one for every three letters.
pub(super) fn most_similar<'a>(name: &str, prefix: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    let bare = name.trim_start_matches(prefix);
    let edits = |candidate: &str| strsim::damerau_levenshtein(bare, candidate.trim_start_matches(prefix));
    let (edits, candidate) = candidates.map(|candidate| (edits(candidate), candidate)).min()?;
    (edits <= bare.len() / 3).then(|| candidate.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::Role;
    use super::*;

    fn from_environment(variables: &[(&str, &str)]) -> Result<(Config, Vec<Source>), String> {
        let environment = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let inputs = Inputs { environment, ..Inputs::default() };
        read(Config::default_for(Role::Service), &inputs).map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn flags_go_over_variables() {
        let environment = [("FANFARE_EDGE_LISTEN", "127.0.0.1:1"), ("FANFARE_ADMIN_LISTEN", "127.0.0.1:2")];
        let environment = environment.map(|(name, value)| (name.into(), value.into())).to_vec();
        let inputs = Inputs { environment, ..Inputs::default() };
        let inputs = inputs.flag("--listen", "edge.listen", Some("127.0.0.1:3".to_owned()));
        let inputs = inputs.flag("--admin-listen", "admin.listen", None);
        let (config, _) = read(Config::default_for(Role::Service), &inputs).expect("no mistakes");
        assert_eq!((config.listen.port(), config.admin_listen.port()), (3, 2));
    }

    #[test]
    fn what_kubernetes_and_the_tools_set_is_left_alone() {
        let (config, _) = from_environment(&[
            ("FANFARE_EDGE_PORT", "tcp://10.0.0.1:80"),
            ("FANFARE_EDGE_SERVICE_HOST", "10.0.0.1"),
            ("FANFARE_EDGE_SERVICE_PORT", "80"),
            ("FANFARE_EDGE_SERVICE_PORT_HTTP", "80"),
            ("FANFARE_EDGE_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("FANFARE_SERVICE_HOST", "10.0.0.1"),
            ("FANFARE_PORT", "tcp://10.0.0.1:80"),
            ("FANFARE_URL", "http://localhost"),
            ("FANFARE_SEEDS", "10"),
            ("PATH", "/bin"),
            ("FANFARE_MAX_CHANNELS", "7"),
        ])
        .expect("no mistakes");
        assert_eq!(config.edge.channels_max, 7);
    }

    #[test]
    fn a_mistyped_name_is_met_with_the_one_that_was_meant() {
        for (wrong, meant) in [
            ("FANFARE_HISTROY_SIZE", "FANFARE_HISTORY_SIZE"),
            ("FANFARE_HEARTBEAT_INTERVALL", "FANFARE_HEARTBEAT_INTERVAL"),
            ("FANFARE_LISTEN", "FANFARE_EDGE_LISTEN"),
            ("FANFARE_PARTITIONS", "FANFARE_REDIS_PARTITIONS"),
        ] {
            let report = from_environment(&[(wrong, "1")]).expect_err("unknown");
            assert!(report.contains(&format!("did you mean {meant}?")), "{report}");
        }
        let report = from_environment(&[("FANFARE_XYZZY", "1")]).expect_err("unknown");
        assert!(report.contains("`fanfare config` lists them all"), "{report}");
    }
}
