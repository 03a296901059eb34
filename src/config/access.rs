//! The way through the tables and lists of the tree: leaves out what is known to be wrong, and notes what turns out to be.

use std::{
    collections::{BTreeMap, btree_map},
    iter::Enumerate,
    slice,
};

use serde::de::{self, value::StrDeserializer};

use super::{
    fault::Fault,
    reader::Reader,
    tree::{Node, Place, Value, join},
};

/// The entries of a table.
pub(super) struct Fields<'a, 'n, 'r> {
    rest: btree_map::Iter<'a, String, Node>,
    current: Option<(&'a String, &'a Node)>,
    table: &'r Reader<'a, 'n>,
}

impl<'a, 'n, 'r> Fields<'a, 'n, 'r> {
    /// The `entries` of the table that `table` reads.
    pub(super) fn new(entries: &'a BTreeMap<String, Node>, table: &'r Reader<'a, 'n>) -> Self {
        Self { rest: entries.iter(), current: None, table }
    }
}

impl<'a> de::MapAccess<'a> for Fields<'a, '_, '_> {
    type Error = Fault;

    fn next_key_seed<K: de::DeserializeSeed<'a>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        let left_out = |name: &str| {
            let notes = self.table.notes.borrow();
            notes.left_out.contains(&join(&self.table.key, name))
        };
        self.current = self.rest.find(|(name, _)| !left_out(name));
        match self.current {
            Some((name, _)) => seed.deserialize(StrDeserializer::<Fault>::new(name)).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<V: de::DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some((name, node)) = self.current.take() else {
            return Err(de::Error::custom("a value is asked for before its key"));
        };
        let key = join(&self.table.key, name);
        let value = seed.deserialize(self.table.child(node, key.clone()));
        value.map_err(|fault| {
            let mut notes = self.table.notes.borrow_mut();
            if !fault.noted && notes.left_out.insert(key.clone()) {
                notes.problems.push(fault.problem(&key));
            }
            Fault::noted()
        })
    }
}

/// The elements of a list.
pub(super) struct Elements<'a, 'n, 'r> {
    rest: Enumerate<slice::Iter<'a, Node>>,
    list: &'r Reader<'a, 'n>,
}

impl<'a, 'n, 'r> Elements<'a, 'n, 'r> {
    /// The `elements` of the list that `list` reads.
    pub(super) fn new(elements: &'a [Node], list: &'r Reader<'a, 'n>) -> Self {
        Self { rest: elements.iter().enumerate(), list }
    }
}

impl<'a> de::SeqAccess<'a> for Elements<'a, '_, '_> {
    type Error = Fault;

    fn next_element_seed<T: de::DeserializeSeed<'a>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        for (index, node) in self.rest.by_ref() {
            let key = format!("{}[{index}]", self.list.key);
            let (emptied, left_out) = {
                let notes = self.list.notes.borrow();
                let left_out = notes.left_out.contains(&key);
                (notes.emptied.contains(&key), left_out)
            };
            if left_out {
                continue;
            }
            let node = if emptied { &EMPTY } else { node };
            let value = seed.deserialize(self.list.child(node, key.clone()));
            return value.map(Some).map_err(|fault| self.blame(fault, key));
        }
        Ok(None)
    }
}

impl Elements<'_, '_, '_> {
    fn blame(&self, fault: Fault, key: String) -> Fault {
        if fault.noted {
            return fault;
        }
        let mut notes = self.list.notes.borrow_mut();
        if notes.emptied.insert(key.clone()) {
            notes.problems.push(fault.problem(&key));
        } else {
            notes.left_out.insert(key);
        }
        Fault::noted()
    }
}

static EMPTY: Node =
    Node { place: Place::File { key: 0..0, value: 0..0 }, value: Value::Table(BTreeMap::new()) };
