//! Remembers values by path, a bounded number of them.
//!
//! What has to go is what was not asked for for longest; to find it takes a look at all, which a request to a store is
//! long beside.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use object_store::path::Path;

pub(super) struct Cache<T> {
    most: usize,
    places: Mutex<Places<T>>,
}

struct Places<T> {
    /// How often it was asked for anything.
    now: u64,
    by_path: HashMap<Path, (u64, T)>,
}

impl<T: Clone> Cache<T> {
    pub(super) fn new(most: usize) -> Self {
        Self { most, places: Mutex::new(Places { now: 0, by_path: HashMap::new() }) }
    }

    pub(super) fn get(&self, path: &Path) -> Option<T> {
        let mut places = self.places();
        places.now += 1;
        let now = places.now;
        let (used, value) = places.by_path.get_mut(path)?;
        *used = now;
        Some(value.clone())
    }

    pub(super) fn put(&self, path: &Path, value: T) {
        let mut places = self.places();
        places.now += 1;
        let now = places.now;
        if self.most > 0 {
            places.by_path.insert(path.clone(), (now, value));
        }
        if places.by_path.len() > self.most {
            let oldest = places.by_path.iter().min_by_key(|(_, (used, _))| *used).map(|(path, _)| path.clone());
            oldest.and_then(|path| places.by_path.remove(&path));
        }
    }

    pub(super) fn remove(&self, path: &Path) {
        self.places().by_path.remove(path);
    }

    /// Nothing that is done under this lock panics.
    fn places(&self) -> MutexGuard<'_, Places<T>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_asked_for_for_longest_goes_first() {
        let cache = Cache::new(2);
        let [a, b, c] = ["a", "b", "c"].map(Path::from);
        cache.put(&a, 1);
        cache.put(&b, 2);
        assert_eq!(cache.get(&a), Some(1));
        cache.put(&c, 3);
        assert_eq!([&a, &b, &c].map(|path| cache.get(path)), [Some(1), None, Some(3)]);
        cache.put(&a, 4);
        assert_eq!([&a, &b, &c].map(|path| cache.get(path)), [Some(4), None, Some(3)]);
        cache.remove(&a);
        assert_eq!(cache.get(&a), None);
    }

    #[test]
    fn a_cache_of_nothing_remembers_nothing() {
        let cache = Cache::new(0);
        cache.put(&Path::from("a"), 1);
        assert_eq!(cache.get(&Path::from("a")), None);
    }
}
