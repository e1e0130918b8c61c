//! Structured parts of the configuration file, beside the flat settings: what no variable could hold.
//!
//! A part reads what stands under its key at the top of the file; [`Given`] is a value there that can say where it
//! is. Its tables have [`Field`]s, as the file has settings: what is accepted, refused and documented is made from
//! them. A mistake in one field doesn't hide the others.

use std::ops::Range;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeString, DeValue, ValueDeserializer};

use super::mistakes::Mistakes;
use super::sources::most_similar;
use super::values::Wrong;
use super::{Config, namespaces, routes};

/// Every part, in the order in which they are printed.
pub(super) static PARTS: [Part; 3] = [namespaces::PART, routes::PART, routes::CALLS];

/// A part of the file.
pub(super) struct Part {
    /// Its key, at the top.
    pub(super) key: &'static str,
    /// How its tables begin in a file.
    pub(super) header: &'static str,
    /// What it does, in a sentence or two.
    pub(super) meaning: &'static str,
    /// What stands in its tables, in the order in which it is printed.
    pub(super) docs: fn() -> Vec<&'static Doc>,
    /// Takes what stands under the key.
    pub(super) read: fn(&mut Config, &Given<'_>, &mut Mistakes),
    /// The tables that were taken: each with its header, and what is set in it.
    pub(super) show: fn(&Config) -> Vec<(String, Shown)>,
}

/// Keys that are set, each with its value as it would be written.
pub(super) type Shown = Vec<(&'static str, String)>;

/// What is said of a field.
pub(super) struct Doc {
    /// Its key in the table.
    pub(super) key: &'static str,
    /// What it does, in a sentence or two.
    pub(super) meaning: &'static str,
    /// What a value looks like, as it follows "expected".
    pub(super) expected: &'static str,
    /// A value as it stands in a file, for who wants one to start from.
    pub(super) example: &'static str,
    /// What holds where it isn't set.
    pub(super) default: &'static str,
}

/// One key of a table that becomes a `T`.
pub(super) struct Field<T: 'static> {
    pub(super) doc: Doc,
    /// Takes a value.
    pub(super) set: fn(&mut T, &Given<'_>) -> Result<(), Wrong>,
    /// The value, as it would be written. None: it isn't set.
    pub(super) get: fn(&T) -> Option<String>,
}

/// Reads a table's fields, and collects what is wrong with each.
pub(super) fn read_fields<T>(fields: &[Field<T>], into: &mut T, table: &Given<'_>, mistakes: &mut Mistakes) {
    for given in table.entries(mistakes) {
        let Some(field) = fields.iter().find(|field| field.doc.key == given.name()) else {
            let meant = most_similar(given.name(), "", fields.iter().map(|field| field.doc.key));
            mistakes.unknown(given.line(), &given.key, meant);
            continue;
        };
        match (field.set)(into, &given) {
            Ok(()) => {}
            Err(Wrong::Value) => {
                mistakes.add(given.place(), format!("is {}, expected {}", given.shown(), field.doc.expected));
            }
            Err(Wrong::Parts(parts)) => {
                parts.into_iter().for_each(|part| mistakes.add(format!("{}:", given.place()), part));
            }
        }
    }
}

/// What is set of a table's fields.
pub(super) fn show_fields<T>(fields: &[Field<T>], of: &T) -> Shown {
    fields.iter().filter_map(|field| Some((field.doc.key, (field.get)(of)?))).collect()
}

/// A value in a file, and where it stands.
pub(super) struct Given<'a> {
    file: &'a File<'a>,
    name: &'a str,
    /// The name with its tables: `namespaces.prices.replay`.
    key: String,
    offset: usize,
    value: &'a DeValue<'a>,
}

impl<'a> Given<'a> {
    /// A value at the top of a file.
    pub(super) fn new(file: &'a File<'a>, name: &'a str, offset: usize, value: &'a DeValue<'a>) -> Self {
        Self { file, name, key: name.to_owned(), offset, value }
    }

    /// The last part of its key.
    pub(super) fn name(&self) -> &'a str {
        self.name
    }

    /// File and line, as they begin a mistake's place where the key follows in the sentence.
    pub(super) fn line(&self) -> String {
        self.file.place(self.offset, "")
    }

    /// File, line and key.
    pub(super) fn place(&self) -> String {
        self.file.place(self.offset, &self.key)
    }

    /// The entries of a table, in the file's order. Anything else is a mistake, and has none.
    pub(super) fn entries(&self, mistakes: &mut Mistakes) -> Vec<Given<'a>> {
        let DeValue::Table(table) = self.value else {
            mistakes.add(self.place(), format!("is {}, expected a table: [{}]", kind(self.value), self.key));
            return Vec::new();
        };
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        let entry = |(name, value): (&'a Spanned<DeString<'a>>, &'a Spanned<DeValue<'a>>)| {
            let key = format!("{}.{}", self.key, name.get_ref());
            Given { file: self.file, name: name.get_ref(), key, offset: name.span().start, value: value.get_ref() }
        };
        entries.into_iter().map(entry).collect()
    }

    /// The tables of a list, in the file's order, each with its number. Anything else is a mistake, and has none.
    pub(super) fn tables(&self, mistakes: &mut Mistakes) -> Vec<Given<'a>> {
        let DeValue::Array(list) = self.value else {
            mistakes.add(self.place(), format!("is {}, expected tables: [[{}]]", kind(self.value), self.key));
            return Vec::new();
        };
        let table = |(index, value): (usize, &'a Spanned<DeValue<'a>>)| {
            let key = format!("{}[{index}]", self.key);
            Given { file: self.file, name: self.name, key, offset: value.span().start, value: value.get_ref() }
        };
        list.iter().enumerate().map(table).collect()
    }

    /// File, line and key of an entry of a table; where it isn't there, the table's line.
    pub(super) fn place_of(&self, name: &str) -> String {
        let of_entry = match self.value {
            DeValue::Table(table) => table.keys().find(|key| key.get_ref() == name),
            _ => None,
        };
        self.file.place(of_entry.map_or(self.offset, |key| key.span().start), &format!("{}.{name}", self.key))
    }

    /// A single value, as the text that a variable would hold.
    pub(super) fn text(&self) -> Option<String> {
        scalar(self.value)
    }

    /// A value of any shape, by its type's own `Deserialize`.
    ///
    /// # Errors
    /// What is wrong with it, as it follows its key.
    pub(super) fn read<D: DeserializeOwned>(&self) -> Result<D, Wrong> {
        let value = Spanned::new(Range::default(), self.value.clone());
        D::deserialize(ValueDeserializer::from(value))
            .map_err(|error| Wrong::Parts(vec![error.message().trim().to_owned()]))
    }

    /// The value, as a mistake repeats it.
    fn shown(&self) -> String {
        self.text().map_or_else(|| kind(self.value).to_owned(), |text| format!("{text:.100?}"))
    }
}

/// A configuration file, to say where in it something is.
pub(super) struct File<'a> {
    pub(super) path: &'a Path,
    text: &'a str,
}

impl<'a> File<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str) -> Self {
        Self { path, text }
    }

    /// The line of an offset, counted from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        1 + self.text.as_bytes()[..offset.min(self.text.len())].iter().filter(|byte| **byte == b'\n').count()
    }

    /// File, line and key, where there is one.
    pub(super) fn place(&self, offset: usize, key: &str) -> String {
        let colon = if key.is_empty() { "" } else { ": " };
        format!("{}:{}{colon}{key}", self.path.display(), self.line(offset))
    }
}

/// A single value as the text that a variable would hold.
pub(super) fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => {
            let number = i128::from_str_radix(number.as_str(), number.radix()).ok()?;
            Some(number.to_string())
        }
        DeValue::Boolean(truth) => Some(truth.to_string()),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// What a value is, in words.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
