//! What a client has seen, as the text in the `id:` line: how far it is in each partition that it follows.
//!
//! Writing is apart from the value: where there are several partitions an id is made per connection and event, so
//! [`write_cursor`] takes what the connection holds and allocates nothing. Reading is strict: each cursor has one
//! spelling, and whatever else comes back is nonsense, which a gap answers. A cursor grants nothing.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use smallvec::SmallVec;

use crate::{Channel, Epoch, PARTITIONS_MAX, Partition, Partitions, Point, Position, digits};

/// Bytes of an id at most, its `@channel` included. The longest that is ever written has fewer.
pub const ID_BYTES_MAX: usize = 4096;

/// Bytes of the changes in a cursor at most, as they are encoded.
pub const CHANGES_BYTES_MAX: usize = 1024;

/// Bytes of a session mark at most.
pub const SESSION_BYTES_MAX: usize = 64;

/// Bytes that a channel keeps among the changes: none that mean something in a cursor.
const ENCODED_IN_CHANGES: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'_').remove(b'.').remove(b':').remove(b'/').remove(b'=');

/// How far a client is, in each partition that it names, and what it asked for besides its URL.
///
/// ```text
/// cursor  = [P ":"] first *("," other) [";" set] ["!" session]
/// first   = [partition "="] epoch "-" pos ["~" hold]
/// other   = partition "=" epoch ("+" / "-") difference
/// set     = 1*(("+" / "-") channel)
/// ```
/// `P:` and the first `partition=` stand only where there are several partitions. A difference counts from the first
/// position, in base 36; other numbers are decimal. `hold` is reserved, and skipped when it is read.
///
/// Invariant: at least one position; its partitions differ and exist; what it holds fits into an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub(crate) partitions: Partitions,
    entries: SmallVec<[(Partition, Point); 1]>,
    changes: Vec<(Change, Channel)>,
    session: Option<Box<str>>,
}

/// What a `PATCH` did to the channels that the URL names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// Written as `+`.
    Subscribe,
    /// Written as `-`.
    Unsubscribe,
}

/// The changes don't fit into a cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a cursor has room for {CHANGES_BYTES_MAX} bytes of changed channels, these are {0}")]
pub struct ChangesTooLong(pub usize);

/// Why a text is no cursor, or what can't become one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// Longer than [`ID_BYTES_MAX`].
    #[error("an id has at most {ID_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
    /// What stands before the `:`.
    #[error("the number of partitions is 2 to {PARTITIONS_MAX}, and left out where there is one")]
    Partitions,
    /// The first position.
    #[error("a cursor begins with epoch-position, after partition= where there are several partitions")]
    First,
    /// A further position.
    #[error("each further position is partition=epoch, + or -, and the difference to the first in base 36")]
    Other,
    /// A partition that does not exist.
    #[error("a partition is a number below {0}")]
    Partition(u16),
    /// A partition with two positions.
    #[error("partition {0} has one position, here it has two")]
    Twice(Partition),
    /// A position outside `0..=Position::MAX`.
    #[error("a position is at most {}", Position::MAX)]
    Position,
    /// The changes after the `;`.
    #[error("each change is + or - and a channel in its one percent-encoded spelling")]
    Changes,
    /// More than [`CHANGES_BYTES_MAX`] of them.
    #[error(transparent)]
    ChangesTooLong(#[from] ChangesTooLong),
    /// What stands after the `!`.
    #[error("a session mark is 1 to {SESSION_BYTES_MAX} ASCII letters, digits, _ and -")]
    Session,
}

impl Cursor {
    /// Puts a cursor together, as [`write_cursor`] would write it; the first of the entries leads.
    ///
    /// # Errors
    /// Where a partition or a position doesn't exist, a partition comes twice or none comes at all, or where changes or
    /// session don't fit.
    pub fn new(
        partitions: Partitions,
        entries: impl IntoIterator<Item = (Partition, Point)>,
        changes: Vec<(Change, Channel)>,
        session: Option<&str>,
    ) -> Result<Self, CursorError> {
        encode_changes(&changes)?;
        if !session.is_none_or(is_session) {
            return Err(CursorError::Session);
        }
        let mut cursor = Self { partitions, entries: SmallVec::new(), changes, session: session.map(Box::from) };
        for (partition, point) in entries {
            cursor.add(partition, point)?;
        }
        if cursor.entries.is_empty() {
            return Err(CursorError::First);
        }
        Ok(cursor)
    }

    /// Reads the id that a client sent back. Its `@` and what follows is skipped, unread.
    ///
    /// # Errors
    /// Says what a cursor would have where this text has something else.
    pub fn parse(id: &str) -> Result<Self, CursorError> {
        if id.len() > ID_BYTES_MAX {
            return Err(CursorError::TooLong(id.len()));
        }
        let cursor = id.split_once('@').map_or(id, |(cursor, _channel)| cursor);
        let (cursor, session) = split_off(cursor, '!');
        let (cursor, set) = split_off(cursor, ';');
        let (partitions, entries) = match cursor.split_once(':') {
            None => (Partitions::ONE, cursor),
            Some((count, entries)) => (parse_partitions(count)?, entries),
        };
        if !session.is_none_or(is_session) {
            return Err(CursorError::Session);
        }
        let (first, others) = split_off(entries, ',');
        let mut parsed = Self {
            partitions,
            entries: SmallVec::new(),
            changes: set.map_or(Ok(Vec::new()), parse_changes)?,
            session: session.map(Box::from),
        };
        let (partition, first) = parse_first(partitions, first)?;
        parsed.add(partition, first)?;
        for other in others.into_iter().flat_map(|others| others.split(',')) {
            let (partition, point) = parse_other(other, first.pos)?;
            parsed.add(partition, point)?;
        }
        Ok(parsed)
    }

    fn add(&mut self, partition: Partition, point: Point) -> Result<(), CursorError> {
        if partition >= self.partitions.count() {
            return Err(CursorError::Partition(self.partitions.count()));
        }
        if point.pos > Position::MAX {
            return Err(CursorError::Position);
        }
        if self.point(partition).is_some() {
            return Err(CursorError::Twice(partition));
        }
        self.entries.push((partition, point));
        Ok(())
    }

    /// The deployment's number of partitions when the cursor was written.
    pub fn partitions(&self) -> Partitions {
        self.partitions
    }

    /// How far the client is in a partition; `None` where it did not follow it.
    pub fn point(&self, partition: Partition) -> Option<Point> {
        self.entries.iter().find(|(named, _)| *named == partition).map(|(_, point)| *point)
    }

    /// All that it names, at least one; the partition of the event that carried the cursor comes first.
    pub fn entries(&self) -> &[(Partition, Point)] {
        &self.entries
    }

    /// What was changed against the URL's channels, in order: a later change of a channel overrides an earlier one.
    pub fn changes(&self) -> &[(Change, Channel)] {
        &self.changes
    }

    /// The mark of the session that a ticket opened.
    pub fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let changes = encode_changes(&self.changes).expect("a cursor's changes fit, or it would not have been made");
        let mut text = Vec::with_capacity(64 + changes.len());
        let others = self.entries[1..].iter().copied();
        write_cursor(&mut text, self.partitions, self.entries[0], others, &changes, self.session());
        f.write_str(std::str::from_utf8(&text).expect("a cursor is ASCII"))
    }
}

/// Appends a cursor's text. Nothing is checked: `changes` come from [`encode_changes`] (empty for none), the session
/// from a ticket. Among `others` the first's partition is skipped, so that all of a connection's may be given; with
/// one partition there are none.
pub fn write_cursor(
    out: &mut Vec<u8>,
    partitions: Partitions,
    (partition, first): (Partition, Point),
    others: impl IntoIterator<Item = (Partition, Point)>,
    changes: &str,
    session: Option<&str>,
) {
    if partitions != Partitions::ONE {
        digits::push_decimal(out, u64::from(partitions.count()));
        out.push(b':');
        digits::push_decimal(out, u64::from(partition));
        out.push(b'=');
    }
    write_point(out, first);
    for (other, point) in others {
        if other == partition {
            continue;
        }
        debug_assert!(other < partitions.count(), "partition {other} of {partitions:?}");
        out.push(b',');
        digits::push_decimal(out, u64::from(other));
        out.push(b'=');
        out.extend_from_slice(point.epoch.as_str().as_bytes());
        out.push(if point.pos < first.pos { b'-' } else { b'+' });
        digits::push::<36>(out, point.pos.0.abs_diff(first.pos.0));
    }
    if !changes.is_empty() {
        out.push(b';');
        out.extend_from_slice(changes.as_bytes());
    }
    if let Some(session) = session {
        out.push(b'!');
        out.extend_from_slice(session.as_bytes());
    }
}

/// Appends `epoch-position`, which is the whole cursor where there is one partition and nothing else to say.
pub fn write_point(out: &mut Vec<u8>, point: Point) {
    out.extend_from_slice(point.epoch.as_str().as_bytes());
    out.push(b'-');
    digits::push_decimal(out, point.pos.0);
}

/// Writes changes as a cursor carries them, without the `;` before them.
///
/// # Errors
/// Where they have more than [`CHANGES_BYTES_MAX`] bytes.
pub fn encode_changes(changes: &[(Change, Channel)]) -> Result<String, ChangesTooLong> {
    let mut text = String::new();
    for (change, channel) in changes {
        text.push(match change {
            Change::Subscribe => '+',
            Change::Unsubscribe => '-',
        });
        text.extend(utf8_percent_encode(channel.as_str(), ENCODED_IN_CHANGES));
    }
    if text.len() > CHANGES_BYTES_MAX { Err(ChangesTooLong(text.len())) } else { Ok(text) }
}

fn split_off(text: &str, mark: char) -> (&str, Option<&str>) {
    text.split_once(mark).map_or((text, None), |(before, after)| (before, Some(after)))
}

fn is_session(text: &str) -> bool {
    (1..=SESSION_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn parse_partitions(text: &str) -> Result<Partitions, CursorError> {
    let count = digits::parse::<10>(text.as_bytes()).and_then(|count| u16::try_from(count).ok());
    count.and_then(Partitions::new).filter(|count| *count != Partitions::ONE).ok_or(CursorError::Partitions)
}

fn parse_partition(text: &str) -> Option<Partition> {
    digits::parse::<10>(text.as_bytes())?.try_into().ok()
}

fn parse_first(partitions: Partitions, text: &str) -> Result<(Partition, Point), CursorError> {
    let (partition, point) = if partitions == Partitions::ONE {
        (0, text)
    } else {
        let (partition, point) = text.split_once('=').ok_or(CursorError::First)?;
        (parse_partition(partition).ok_or(CursorError::First)?, point)
    };
    let (epoch, pos) = point.split_once('-').ok_or(CursorError::First)?;
    let (pos, hold) = split_off(pos, '~');
    if hold.is_some_and(|hold| digits::parse::<10>(hold.as_bytes()).is_none()) {
        return Err(CursorError::First);
    }
    let epoch = Epoch::parse(epoch).ok_or(CursorError::First)?;
    let pos = digits::parse::<10>(pos.as_bytes()).ok_or(CursorError::First)?;
    Ok((partition, Point { epoch, pos: Position(pos) }))
}

fn parse_other(text: &str, first: Position) -> Result<(Partition, Point), CursorError> {
    let (partition, point) = text.split_once('=').ok_or(CursorError::Other)?;
    let sign = point.find(['+', '-']).ok_or(CursorError::Other)?;
    let (epoch, signed) = point.split_at(sign);
    let partition = parse_partition(partition).ok_or(CursorError::Other)?;
    let epoch = Epoch::parse(epoch).ok_or(CursorError::Other)?;
    let difference = digits::parse::<36>(&signed.as_bytes()[1..]).ok_or(CursorError::Other)?;
    let pos = match (signed.starts_with('-'), difference) {
        (true, 0) => return Err(CursorError::Other), // It is written as +0.
        (true, _) => first.0.checked_sub(difference),
        (false, _) => first.0.checked_add(difference),
    };
    Ok((partition, Point { epoch, pos: Position(pos.ok_or(CursorError::Position)?) }))
}

/// Reads changes as [`encode_changes`] writes them.
///
/// # Errors
/// They are none, or not in that spelling.
pub fn decode_changes(set: &str) -> Result<Vec<(Change, Channel)>, CursorError> {
    if set.is_empty() {
        return Ok(Vec::new());
    }
    parse_changes(set)
}

fn parse_changes(set: &str) -> Result<Vec<(Change, Channel)>, CursorError> {
    if set.len() > CHANGES_BYTES_MAX {
        return Err(ChangesTooLong(set.len()).into());
    }
    let mut changes = Vec::new();
    let mut rest = set;
    loop {
        let change = match rest.as_bytes().first() {
            Some(b'+') => Change::Subscribe,
            Some(b'-') => Change::Unsubscribe,
            _ => return Err(CursorError::Changes),
        };
        let end = rest[1..].find(['+', '-']).map_or(rest.len(), |end| end + 1);
        let name = percent_decode_str(&rest[1..end]).decode_utf8().map_err(|_| CursorError::Changes)?;
        changes.push((change, Channel::parse(&name).map_err(|_| CursorError::Changes)?));
        rest = &rest[end..];
        if rest.is_empty() {
            break;
        }
    }
    // Encoding is the one spelling: what is longer or shorter, or in lower case, differs.
    if encode_changes(&changes)? == set { Ok(changes) } else { Err(CursorError::Changes) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    fn point(epoch: &str, pos: u64) -> Point {
        Point { epoch: Epoch::parse(epoch).expect(epoch), pos: Position(pos) }
    }

    fn channel(name: &str) -> Channel {
        Channel::parse(name).expect(name)
    }

    #[test]
    fn with_one_partition_a_cursor_is_an_epoch_and_a_position() {
        let cursor = Cursor::parse("k3f9x2-1795229238222222@server:7").expect("valid");
        assert_eq!(cursor.partitions(), Partitions::ONE);
        assert_eq!(cursor.point(0), Some(point("k3f9x2", 1_795_229_238_222_222)));
        assert_eq!(cursor.point(1), None);
        assert_eq!((cursor.changes(), cursor.session()), (&[][..], None));
        assert_eq!(cursor.to_string(), "k3f9x2-1795229238222222");
    }

    #[test]
    fn with_several_partitions_the_first_position_leads_and_the_others_differ_from_it() {
        let cursor = Cursor::parse("16:3=k3f9x2-1000,0=k3f9x2+a,15=abcdef-rs,7=k3f9x2+0@a").expect("valid");
        assert_eq!(cursor.partitions().count(), 16);
        assert_eq!(cursor.point(3), Some(point("k3f9x2", 1000)));
        assert_eq!(cursor.point(0), Some(point("k3f9x2", 1010)));
        assert_eq!(cursor.point(15), Some(point("abcdef", 0)));
        assert_eq!(cursor.point(7), Some(point("k3f9x2", 1000)));
        assert_eq!(cursor.point(1), None);
        assert_eq!(cursor.to_string(), "16:3=k3f9x2-1000,0=k3f9x2+a,15=abcdef-rs,7=k3f9x2+0");
    }

    #[test]
    fn a_cursor_carries_what_was_patched_and_its_session() {
        let text = "k3f9x2-5;+a%2Bb-c%2Dd+user:x%2540y!S_e-1";
        let cursor = Cursor::parse(&format!("{text}@user:42")).expect("valid");
        let expected = [
            (Change::Subscribe, channel("a+b")),
            (Change::Unsubscribe, channel("c-d")),
            (Change::Subscribe, channel("user:x%40y")),
        ];
        assert_eq!(cursor.changes(), expected);
        assert_eq!(cursor.session(), Some("S_e-1"));
        assert_eq!(cursor.to_string(), text);
    }

    #[test]
    fn a_hold_is_reserved_and_skipped() {
        assert_eq!(Cursor::parse("k3f9x2-5~17"), Cursor::parse("k3f9x2-5"));
        assert_eq!(Cursor::parse("8:1=k3f9x2-5~0,2=k3f9x2+1"), Cursor::parse("8:1=k3f9x2-5,2=k3f9x2+1"));
        assert_eq!(Cursor::parse("k3f9x2-5~"), Err(CursorError::First));
        assert_eq!(Cursor::parse("k3f9x2-5~x"), Err(CursorError::First));
    }

    #[test]
    fn parsing_is_lenient_in_nothing() {
        use CursorError::{Changes, First, Other, Partitions as Count, Position as Range, Session};
        for (text, error) in [
            ("", First),
            ("@server:7", First),
            ("k3f9x2", First),
            ("k3f9x2-", First),
            ("k3f9x2-05", First),
            ("k3f9x2-+5", First),
            ("k3f9x2- 5", First),
            ("k3f9x2-5 ", First),
            ("k3f9x2-5\n", First),
            ("k3f9-5", First),
            ("k3f9x2k3f9x2k-5", First),
            ("k3f9ü2-5", First),
            ("0=k3f9x2-5", First),
            ("k3f9x2-9007199254740992", Range),
            ("k3f9x2-99999999999999999999", First),
            ("8:k3f9x2-5", First),
            ("8:01=k3f9x2-5", First),
            ("8:8=k3f9x2-5", CursorError::Partition(8)),
            ("1:k3f9x2-5", Count),
            ("1:0=k3f9x2-5", Count),
            ("65:0=k3f9x2-5", Count),
            ("08:0=k3f9x2-5", Count),
            (":0=k3f9x2-5", Count),
            ("k3f9x2-5,", Other),
            ("8:0=k3f9x2-5,", Other),
            ("8:0=k3f9x2-5,1=k3f9x2", Other),
            ("8:0=k3f9x2-5,1=k3f9x2+", Other),
            ("8:0=k3f9x2-5,1=k3f9x2+A", Other),
            ("8:0=k3f9x2-5,1=k3f9x2+01", Other),
            ("8:0=k3f9x2-5,1=k3f9x2-0", Other),
            ("8:0=k3f9x2-5,1=k3f9x2-6", Range),
            ("8:0=k3f9x2-5,1=k3f9x2+2gosa7pa2gv", Range),
            ("8:0=k3f9x2-5,1=k3f9x2+3w5e11264sgsg", Other),
            ("8:0=k3f9x2-5,1=k3f9x2+1,1=k3f9x2+1", CursorError::Twice(1)),
            ("8:0=k3f9x2-5,0=k3f9x2+1", CursorError::Twice(0)),
            ("k3f9x2-5,0=k3f9x2+1", CursorError::Twice(0)),
            ("k3f9x2-5,1=k3f9x2+1", CursorError::Partition(1)),
            ("k3f9x2-5;", Changes),
            ("k3f9x2-5;a", Changes),
            ("k3f9x2-5;+", Changes),
            ("k3f9x2-5;+a+", Changes),
            ("k3f9x2-5;+a b", Changes),
            ("k3f9x2-5;+a%2bb", Changes),
            ("k3f9x2-5;+%61", Changes),
            ("k3f9x2-5;+%ff", Changes),
            ("k3f9x2-5;+user:", Changes),
            ("k3f9x2-5;+a~b", Changes),
            ("k3f9x2-5!", Session),
            ("k3f9x2-5!a!b", Session),
            ("k3f9x2-5!a;+a", Session),
            ("k3f9x2-5!ä", Session),
        ] {
            assert_eq!(Cursor::parse(text), Err(error), "{text:?}");
        }
        assert_eq!(Cursor::parse(&format!("k3f9x2-5!{}", "x".repeat(65))), Err(Session));
        assert_eq!(Cursor::parse(&format!("k3f9x2-5@{}", "x".repeat(4096))), Err(CursorError::TooLong(4105)));
        let many = format!("k3f9x2-5;{}", "+abc".repeat(257));
        assert_eq!(Cursor::parse(&many), Err(CursorError::ChangesTooLong(ChangesTooLong(1028))));
    }

    #[test]
    fn the_longest_cursor_fits_into_an_id() {
        let partitions = Partitions::new(64).expect("valid");
        let epoch = "zzzzzzzzzzzz";
        let far = |partition| (partition, point(epoch, if partition == 0 { Position::MAX.0 } else { 0 }));
        let changes = vec![(Change::Subscribe, channel(&"~".repeat(113))); 3];
        let cursor = Cursor::new(partitions, partitions.all().map(far), changes, Some(&"s".repeat(64))).expect("fits");
        let id = format!("{cursor}@{}", "c".repeat(200));
        assert!(id.len() < ID_BYTES_MAX, "{}", id.len());
        assert_eq!(Cursor::parse(&id), Ok(cursor));
    }

    #[test]
    fn what_does_not_fit_is_not_made() {
        let at = (0, point("k3f9x2", 5));
        let one = Partitions::ONE;
        assert_eq!(Cursor::new(one, [], vec![], None), Err(CursorError::First));
        assert_eq!(Cursor::new(one, [at, at], vec![], None), Err(CursorError::Twice(0)));
        assert_eq!(Cursor::new(one, [(1, at.1)], vec![], None), Err(CursorError::Partition(1)));
        assert_eq!(Cursor::new(one, [(0, point("k3f9x2", 1 << 53))], vec![], None), Err(CursorError::Position));
        assert_eq!(Cursor::new(one, [at], vec![], Some("a b")), Err(CursorError::Session));
        let changes = vec![(Change::Unsubscribe, channel(&"x".repeat(200))); 6];
        assert_eq!(encode_changes(&changes), Err(ChangesTooLong(1206)));
        assert_eq!(Cursor::new(one, [at], changes, None), Err(ChangesTooLong(1206).into()));
    }

    #[test]
    fn all_of_a_connections_positions_may_be_given_as_others() {
        let all = [(0, point("k3f9x2", 5)), (1, point("k3f9x2", 7))];
        let mut out = b"id: ".to_vec();
        write_cursor(&mut out, Partitions::new(2).expect("valid"), all[1], all, "", Some("s"));
        assert_eq!(out, b"id: 2:1=k3f9x2-7,0=k3f9x2-2!s");
    }

    fn points() -> impl Strategy<Value = Point> {
        ("[0-9A-Za-z]{6,12}", prop_oneof![0..=Position::MAX.0, Just(0), Just(Position::MAX.0)])
            .prop_map(|(epoch, pos)| point(&epoch, pos))
    }

    fn changes() -> impl Strategy<Value = Vec<(Change, Channel)>> {
        let change = prop_oneof![Just(Change::Subscribe), Just(Change::Unsubscribe)];
        let channel = "[$]?[a-zA-Z0-9_.:/~%+=-]{1,30}".prop_filter_map("no channel", |name| Channel::parse(&name).ok());
        vec((change, channel), 0..8)
    }

    fn cursors() -> impl Strategy<Value = Cursor> {
        let entries = prop_oneof![Just(1), 2..=PARTITIONS_MAX].prop_flat_map(|count| {
            let all = Partitions::new(count).expect("in range").all().collect::<Vec<_>>();
            let named = proptest::sample::subsequence(all, 1..=usize::from(count)).prop_shuffle();
            (Just(count), named, vec(points(), usize::from(count)))
        });
        (entries, changes(), option::of("[0-9A-Za-z_-]{1,64}")).prop_map(
            |((count, named, points), changes, session)| {
                let partitions = Partitions::new(count).expect("in range");
                Cursor::new(partitions, named.into_iter().zip(points), changes, session.as_deref()).expect("it fits")
            },
        )
    }

    proptest! {
        #[test]
        fn a_cursor_is_read_as_it_was_written(cursor in cursors(), channel in option::of("[a-z:@!;]{0,9}")) {
            let mut id = cursor.to_string();
            prop_assert!(id.bytes().all(|b| b.is_ascii_graphic() && b != b'@'));
            if let Some(channel) = channel {
                id = format!("{id}@{channel}");
            }
            prop_assert_eq!(Cursor::parse(&id), Ok(cursor));
        }

        #[test]
        fn any_text_is_a_cursor_or_an_error(text: String) {
            _ = Cursor::parse(&text);
        }

        #[test]
        fn what_is_taken_for_a_cursor_has_one_spelling(
            first in "(8:)?(1=)?k3f9x2-[0-9]{1,17}",
            rest in "(,[0-9]=abcdef[+-][0-9a-z]{1,12}){0,3}(;([+-][a-z%2BD]{1,4}){1,2})?(![a-z]{1,3})?",
        ) {
            let text = first + &rest;
            if let Ok(cursor) = Cursor::parse(&text) {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }

        #[test]
        fn a_damaged_cursor_is_read_as_what_it_says_or_not_at_all(
            cursor in cursors(), place: prop::sample::Index, byte in 0x20..0x7f_u8,
        ) {
            let mut bytes = cursor.to_string().into_bytes();
            let place = place.index(bytes.len());
            bytes[place] = byte;
            let text = String::from_utf8(bytes).expect("ASCII");
            if let Ok(cursor) = Cursor::parse(&text) {
                prop_assert_eq!(Cursor::parse(&cursor.to_string()), Ok(cursor));
            }
        }
    }
}
