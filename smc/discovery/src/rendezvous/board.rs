// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A board for the members of one process; what the fabric's own must do, in the fewest words.
//!
//! Invariant: all readers of a key get its entries in one order, without gaps, from the first.

use std::collections::HashMap;

use super::{Entry, Key, Member};

/// The entries of all keys.
#[derive(Debug, Default)]
pub struct Board {
    keys: HashMap<Key, Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    entries: Vec<(Member, Entry)>,
    /// Who is announced and has not left; a member as often as it is.
    present: Vec<(Member, u64)>,
}

/// An entry on its way to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Who is to read it.
    pub to: Member,
    /// Where it stands.
    pub key: Key,
    /// Its number under that key.
    pub number: u64,
    /// Who posted it.
    pub from: Member,
    /// What it says.
    pub entry: Entry,
}

impl Board {
    /// Posts an entry, and says who is to read what. Entries of those who are not announced are dropped.
    pub fn post(&mut self, from: Member, key: Key, entry: Entry) -> Vec<Delivery> {
        let here = self.keys.entry(key).or_default();
        let id = (from, entry.id());
        let joins = matches!(entry, Entry::Announce { .. });
        if joins == here.present.contains(&id) {
            self.keys.retain(|_, entries| !entries.present.is_empty());
            return Vec::new();
        }
        if joins {
            here.present.push(id);
        }
        here.entries.push((from, entry));
        let mut readers: Vec<_> = here.present.iter().map(|(member, _)| *member).collect();
        readers.sort_unstable();
        readers.dedup();
        let all =
            here.entries.iter().zip(0..).map(|((from, entry), number)| (number, *from, *entry));
        let newest = here.entries.len().saturating_sub(1);
        let deliveries = readers
            .into_iter()
            .flat_map(|to| {
                let seen = if joins && to == from { 0 } else { newest };
                all.clone().skip(seen).map(move |(number, from, entry)| Delivery {
                    to,
                    key,
                    number,
                    from,
                    entry,
                })
            })
            .collect();
        if matches!(entry, Entry::Leave { .. }) {
            here.present.retain(|present| *present != id);
            if here.present.is_empty() {
                self.keys.remove(&key);
            }
        }
        deliveries
    }

    /// A member has died: it leaves everywhere.
    pub fn remove(&mut self, member: Member) -> Vec<Delivery> {
        let of = |entries: &Entries| {
            entries.present.iter().filter(|(of, _)| *of == member).map(|(_, id)| *id).collect()
        };
        let left: Vec<(Key, Vec<u64>)> =
            self.keys.iter().map(|(key, entries)| (*key, of(entries))).collect();
        let leaves = left
            .into_iter()
            .flat_map(|(key, ids)| ids.into_iter().map(move |id| (key, Entry::Leave { id })));
        let mut deliveries = Vec::new();
        for (key, entry) in leaves {
            deliveries.extend(
                self.post(member, key, entry).into_iter().filter(|delivery| delivery.to != member),
            );
        }
        deliveries
    }

    /// How many keys have entries.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether nobody is announced.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}
