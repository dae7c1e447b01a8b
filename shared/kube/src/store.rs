//! What is kept of the objects of one kind.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

type Objects<T> = BTreeMap<Box<str>, Arc<T>>;

/// The objects of one kind by [`super::key`]. Written by [`super::follow`], read by anybody.
#[derive(Debug)]
pub struct Store<T> {
    objects: RwLock<Objects<T>>,
    filled: AtomicBool,
    revision: watch::Sender<u64>,
}

impl<T> Default for Store<T> {
    fn default() -> Self {
        let revision = watch::Sender::new(0);
        Self { objects: RwLock::default(), filled: AtomicBool::new(false), revision }
    }
}

impl<T: PartialEq> Store<T> {
    /// The object, if it is known.
    pub fn get(&self, key: &str) -> Option<Arc<T>> {
        self.read(|objects| objects.get(key).cloned())
    }

    /// All objects with their keys.
    pub fn all(&self) -> Vec<(Box<str>, Arc<T>)> {
        self.read(|objects| objects.iter().map(|(key, object)| (key.clone(), Arc::clone(object))).collect())
    }

    /// The objects of one namespace.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<T>> {
        // `0` is what follows `/`.
        let (first, end) = (format!("{namespace}/"), format!("{namespace}0"));
        self.read(|objects| {
            let range = (Bound::Included(&*first), Bound::Excluded(&*end));
            objects.range::<str, _>(range).map(|(_, object)| Arc::clone(object)).collect()
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.read(BTreeMap::len)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether all objects that there are have been seen once.
    pub fn filled(&self) -> bool {
        self.filled.load(Ordering::Acquire)
    }

    /// Wakes at every change of what is kept; other changes of the objects don't count.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Keeps `object` in place of what was known by this key.
    pub fn put(&self, key: String, object: T) {
        self.write(|objects| {
            let same = objects.get(&*key).is_some_and(|known| **known == object);
            if !same {
                objects.insert(key.into(), Arc::new(object));
            }
            !same
        });
    }

    /// Forgets the object.
    pub fn remove(&self, key: &str) {
        self.write(|objects| objects.remove(key).is_some());
    }

    /// Keeps `all` and nothing else.
    pub fn replace(&self, all: Vec<(String, T)>) {
        self.write(|objects| {
            let mut before = std::mem::take(objects);
            let count = before.len();
            let mut changed = count != all.len();
            for (key, object) in all {
                let known = before.remove(&*key).filter(|known| **known == object);
                changed |= known.is_none();
                objects.insert(key.into(), known.unwrap_or_else(|| Arc::new(object)));
            }
            let first = !self.filled.swap(true, Ordering::AcqRel);
            changed || first
        });
    }

    fn read<R>(&self, read: impl FnOnce(&Objects<T>) -> R) -> R {
        read(&self.objects.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, write: impl FnOnce(&mut Objects<T>) -> bool) {
        let changed = write(&mut self.objects.write().unwrap_or_else(PoisonError::into_inner));
        if changed {
            self.revision.send_modify(|revision| *revision += 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_wake() {
        let store = Store::default();
        let mut revision = store.changes();
        let mut woke = || {
            let changed = revision.has_changed().unwrap();
            revision.mark_unchanged();
            changed
        };
        store.replace(vec![]);
        assert!(woke() && store.filled(), "filled with nothing");
        store.put("a/x".into(), 1);
        assert!(woke());
        store.put("a/x".into(), 1);
        store.remove("a/y");
        store.replace(vec![("a/x".into(), 1)]);
        assert!(!woke());
        store.replace(vec![("a/y".into(), 1)]);
        assert!(woke() && store.get("a/x").is_none());
        store.remove("a/y");
        assert!(woke() && store.is_empty());
    }

    #[test]
    fn a_namespace_is_told_from_its_neighbours() {
        let store = Store::default();
        for key in ["a-b/x", "a/x", "a/y", "a0/x", "aa/x", "node"] {
            store.put(key.to_owned(), key.to_owned());
        }
        let found: Vec<String> = store.in_namespace("a").iter().map(ToString::to_string).collect();
        assert_eq!(found, ["a/x", "a/y"]);
    }
}
