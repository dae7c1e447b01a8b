//! The objects of one kind in memory.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

type Objects<T> = BTreeMap<Box<str>, Arc<T>>;

/// The projected objects of one kind, by [`podshaper_core::object::key`].
#[derive(Debug)]
pub struct Store<T> {
    objects: RwLock<Objects<T>>,
    synced: AtomicBool,
    revision: watch::Sender<u64>,
}

impl<T> Default for Store<T> {
    fn default() -> Self {
        let revision = watch::Sender::new(0);
        Self { objects: RwLock::default(), synced: AtomicBool::new(false), revision }
    }
}

impl<T: PartialEq> Store<T> {
    /// Returns an object.
    pub fn get(&self, key: &str) -> Option<Arc<T>> {
        self.read(|objects| objects.get(key).cloned())
    }

    /// Returns all objects with their keys.
    pub fn all(&self) -> Vec<(Box<str>, Arc<T>)> {
        self.read(|objects| objects.iter().map(|(key, object)| (key.clone(), Arc::clone(object))).collect())
    }

    /// Returns the objects of one namespace.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<T>> {
        // `0` is the character after `/`.
        let first = format!("{namespace}/");
        let end = format!("{namespace}0");
        self.read(|objects| {
            let range = (Bound::Included(&*first), Bound::Excluded(&*end));
            objects.range::<str, _>(range).map(|(_, object)| Arc::clone(object)).collect()
        })
    }

    /// Returns the number of objects.
    pub fn len(&self) -> usize {
        self.read(BTreeMap::len)
    }

    /// Returns true if there are no objects.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns true after the first complete list.
    pub fn has_synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    /// Returns a receiver of changes. A change that the projection does not contain is none.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Stores `object` and replaces an earlier one of this key.
    pub fn put(&self, key: String, object: T) {
        self.write(|objects| {
            let is_unchanged = objects.get(&*key).is_some_and(|stored| **stored == object);
            if !is_unchanged {
                objects.insert(key.into(), Arc::new(object));
            }
            !is_unchanged
        });
    }

    /// Removes an object.
    pub fn remove(&self, key: &str) {
        self.write(|objects| objects.remove(key).is_some());
    }

    /// Replaces the whole content by `all`.
    pub fn replace(&self, all: Vec<(String, T)>) {
        self.write(|objects| {
            let mut before = std::mem::take(objects);
            let count = before.len();
            let mut changed = count != all.len();
            for (key, object) in all {
                let unchanged = before.remove(&*key).filter(|stored| **stored == object);
                changed |= unchanged.is_none();
                objects.insert(key.into(), unchanged.unwrap_or_else(|| Arc::new(object)));
            }
            let first = !self.synced.swap(true, Ordering::AcqRel);
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
    fn receiver_is_notified_of_changes_only() {
        let store = Store::default();
        let mut revision = store.changes();
        let mut is_notified = || {
            let changed = revision.has_changed().unwrap();
            revision.mark_unchanged();
            changed
        };
        store.replace(vec![]);
        assert!(is_notified() && store.has_synced(), "an empty list");
        store.put("a/x".into(), 1);
        assert!(is_notified());
        store.put("a/x".into(), 1);
        store.remove("a/y");
        store.replace(vec![("a/x".into(), 1)]);
        assert!(!is_notified());
        store.replace(vec![("a/y".into(), 1)]);
        assert!(is_notified() && store.get("a/x").is_none());
        store.remove("a/y");
        assert!(is_notified() && store.is_empty());
    }

    #[test]
    fn namespace_contains_its_own_objects_only() {
        let store = Store::default();
        for key in ["a-b/x", "a/x", "a/y", "a0/x", "aa/x", "node"] {
            store.put(key.to_owned(), key.to_owned());
        }
        let found: Vec<String> = store.in_namespace("a").iter().map(ToString::to_string).collect();
        assert_eq!(found, ["a/x", "a/y"]);
    }
}
