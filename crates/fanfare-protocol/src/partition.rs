//! Which partition a channel belongs to. It never changes: positions and cursors depend on it.

use crate::Channel;

/// Partitions of a deployment at most.
pub const PARTITIONS_MAX: u16 = 64;

/// Number of partitions of a deployment: 1 to 64, fixed for its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partitions(u16);

/// One slice of all channels, with an order of its own: 0 up to the number of partitions.
pub type Partition = u16;

impl Partitions {
    /// A single partition: one order over all channels, and ids that all subscribers share.
    pub const ONE: Self = Self(1);

    /// Takes a number of partitions, if it is one that a deployment may have.
    pub fn new(count: u16) -> Option<Self> {
        (1..=PARTITIONS_MAX).contains(&count).then_some(Self(count))
    }

    /// How many there are.
    pub fn count(self) -> u16 {
        self.0
    }

    /// All of them.
    pub fn all(self) -> impl ExactSizeIterator<Item = Partition> + Clone {
        0..self.0
    }

    /// The partition of a channel: FNV-1a over its name, finished as in MurmurHash3, scaled to the number of
    /// partitions. The test vectors below are for ever.
    pub fn of(self, channel: &Channel) -> Partition {
        let fnv = channel
            .as_str()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let mut hash = fnv;
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^= hash >> 33;
        let scaled = (u128::from(hash) * u128::from(self.0)) >> 64;
        u16::try_from(scaled).expect("a fraction of a u16")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed apart from this code. Whoever changes one of them loses every deployment's history.
    #[test]
    fn a_channels_partition_never_changes() {
        let long = "x".repeat(200);
        let vectors = [
            ("broadcast", [0, 0, 0, 1]),
            ("server:7", [0, 5, 10, 40]),
            ("server:8", [0, 1, 3, 14]),
            ("server:10", [0, 0, 1, 7]),
            ("stock-prices", [0, 1, 2, 8]),
            ("campaigns", [0, 1, 3, 14]),
            ("user:42", [0, 4, 9, 38]),
            ("user:alice%40example.com", [0, 7, 15, 61]),
            ("a", [0, 4, 8, 32]),
            ("$call:00112233445566778899aabbccddeeff", [0, 1, 2, 10]),
            ("metrics:cpu", [0, 0, 1, 5]),
            ("org:acme/teams/1", [0, 5, 10, 42]),
            ("prices:EUR=USD", [0, 7, 15, 61]),
            (&*long, [0, 0, 0, 0]),
        ];
        for (name, expected) in vectors {
            let channel = Channel::parse(name).expect(name);
            let actual = [1, 8, 16, 64].map(|count| Partitions::new(count).expect("valid").of(&channel));
            assert_eq!(actual, expected, "{name}");
        }
    }

    #[test]
    fn channels_spread_evenly() {
        for count in [2, 8, 16, 64] {
            let partitions = Partitions::new(count).expect("valid");
            for prefix in ["server:", "user:", "a/rather/long/common/beginning/"] {
                let mut sizes = vec![0_u32; usize::from(count)];
                for number in 0..10_000 {
                    let channel = Channel::parse(&format!("{prefix}{number}")).expect("valid");
                    sizes[usize::from(partitions.of(&channel))] += 1;
                }
                let mean = 10_000 / u32::from(count);
                let even = mean * 7 / 10..=mean * 13 / 10;
                assert!(sizes.iter().all(|size| even.contains(size)), "{prefix}: {sizes:?}");
            }
        }
    }

    #[test]
    fn a_deployment_has_1_to_64_partitions() {
        assert_eq!(Partitions::new(0), None);
        assert_eq!(Partitions::new(1), Some(Partitions::ONE));
        assert_eq!(Partitions::new(64).map(|partitions| partitions.all().len()), Some(64));
        assert_eq!(Partitions::new(65), None);
    }
}
