//! What is set for each namespace: the part of a channel's name before the first `:`.

use std::collections::BTreeMap;

use crate::Channel;

/// A value for every channel: its namespace's own, or else the one that holds elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByNamespace<T> {
    /// Where a namespace has none of its own.
    pub elsewhere: T,
    /// By the namespace's name; as many as are configured.
    pub own: BTreeMap<Box<str>, T>,
}

impl<T> ByNamespace<T> {
    /// The same everywhere.
    pub const fn everywhere(value: T) -> Self {
        Self { elsewhere: value, own: BTreeMap::new() }
    }

    /// The channel's value.
    pub fn of(&self, channel: &Channel) -> &T {
        self.own.get(channel.namespace()).unwrap_or(&self.elsewhere)
    }

    /// Every value that some channel may have.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.elsewhere).chain(self.own.values())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_without_a_value_of_its_own_has_the_one_that_holds_elsewhere() {
        let mut values = ByNamespace::everywhere(1);
        let of = |values: &ByNamespace<i32>, name| *values.of(&Channel::parse(name).expect("valid"));
        assert_eq!(of(&values, "prices:eur"), 1);
        values.own.insert("prices".into(), 2);
        for (name, value) in [("prices", 2), ("prices:eur", 2), ("prices:eur:usd", 2), ("prices2", 1), ("x:prices", 1)]
        {
            assert_eq!(of(&values, name), value, "{name}");
        }
        assert_eq!(values.all().sum::<i32>(), 3);
    }
}
