//! What goes wrong.

use super::plan::Shape;
use super::{MS, Step, World, tell};

impl World {
    pub(super) fn next_fault(&mut self) {
        if let Some(mean) = self.plan.fault_pause {
            let pause = self.below(2 * mean);
            self.after(pause, Step::Fault);
        }
    }

    pub(super) fn fault(&mut self) {
        if self.calm {
            return;
        }
        self.next_fault();
        let partition = self.rng.u16(..self.plan.partitions);
        let kind = if self.plan.shape == Shape::Shaky { self.rng.u32(6..23) } else { self.rng.u32(..23) };
        match kind {
            0..3 => self.fail_over(partition),
            3 => self.wipe(partition),
            4 => self.restart(partition),
            5 => self.change_sides(partition),
            6 => self.first_replica(partition),
            7 | 8 => self.hang(partition),
            9..13 => {
                if let Some(link) = self.some_link() {
                    self.cut_link(link);
                }
            }
            13..16 => {
                if let Some(link) = self.some_link() {
                    tell!(self, "link {link} falls silent");
                    self.links[link].silent = true;
                }
            }
            16 | 17 => {
                if let Some(link) = self.some_link() {
                    self.unsubscribe_unasked(link);
                }
            }
            18..21 => {
                let (edge, shard) = (self.rng.usize(..self.edges.len()), self.rng.usize(..self.plan.shards));
                self.stall(edge, shard);
            }
            _ => {
                let edge = self.rng.usize(..self.edges.len());
                self.restart_edge(edge);
            }
        }
    }

    pub(super) fn last_fault(&mut self) {
        if let Some(link) = self.some_link() {
            tell!(self, "link {link} falls silent");
            self.links[link].silent = true;
        }
    }

    fn some_link(&mut self) -> Option<usize> {
        let open = self.open_links();
        self.rng.choice(open)
    }

    /// From here on everything works, and what was published must arrive.
    pub(super) fn calm_down(&mut self) {
        tell!(self, "the faults are over");
        self.calm = true;
        if self.plan.fault_pause.is_some() {
            // But for one: a subscription dies when everybody has come back and nobody asks for anything.
            self.after(1_300 * MS, Step::LastFault);
        }
        for partition in self.partitions.all() {
            for server in 0..self.primaries[usize::from(partition)].servers.len() {
                self.server_mut(partition, server).hung_until = 0;
                if self.server(partition, server).deposed && self.server(partition, server).alive {
                    self.server_dies(partition, server);
                }
            }
        }
    }
}
