//! A reusable set of receivers.

use std::rc::Rc;

use crate::ConnKey;
use crate::frame::{Delivery, Frame};

/// A set of connections that get the same messages, for example the members of a chat room: see
/// [`Cx::broadcast`](crate::Cx::broadcast).
///
/// The set is the handler's: it removes a connection in
/// [`Handler::on_close`](crate::Handler::on_close). A key that has become stale gets nothing.
///
/// ```
/// use h_realtime_engine::{ConnKey, ConnSet};
///
/// let mut room = ConnSet::default();
/// let alice = ConnKey::new(0, 1);
/// assert!(room.insert(alice));
/// assert!(!room.insert(alice));
/// assert_eq!(room.len(), 1);
/// assert!(room.remove(alice));
/// assert!(room.is_empty());
/// ```
#[derive(Clone, Debug, Default)]
pub struct ConnSet {
    /// Sorted, as deliveries are.
    keys: Vec<ConnKey>,
}

impl ConnSet {
    /// Adds a connection. Returns whether it was not in the set.
    pub fn insert(&mut self, key: ConnKey) -> bool {
        match self.keys.binary_search(&key) {
            Ok(_) => false,
            Err(at) => {
                self.keys.insert(at, key);
                true
            }
        }
    }

    /// Removes a connection. Returns whether it was in the set.
    pub fn remove(&mut self, key: ConnKey) -> bool {
        match self.keys.binary_search(&key) {
            Ok(at) => {
                self.keys.remove(at);
                true
            }
            Err(_) => false,
        }
    }

    /// Returns whether the connection is in the set.
    pub fn contains(&self, key: ConnKey) -> bool {
        self.keys.binary_search(&key).is_ok()
    }

    /// Returns the number of connections.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Returns whether the set has no connections.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns the connections, by slot.
    pub fn iter(&self) -> impl Iterator<Item = ConnKey> {
        self.keys.iter().copied()
    }

    /// Returns a delivery of one message to all connections.
    pub(crate) fn delivery(&self, frame: Rc<Frame>, since: Option<u64>) -> Delivery {
        Delivery {
            frames: vec![frame],
            to: self.keys.iter().map(|&key| (key, 0)).collect(),
            since,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delivery_names_each_member_once_in_slot_order() {
        let mut set = ConnSet::default();
        for slot in [7, 1, 7, 3] {
            set.insert(ConnKey::new(slot, 1));
        }
        set.remove(ConnKey::new(1, 1));
        // The connection that has taken a slot is another one.
        assert!(!set.remove(ConnKey::new(3, 2)));
        let delivery = set.delivery(Frame::text("a"), None);
        let slots: Vec<_> = delivery.to.iter().map(|(key, _)| key.slot()).collect();
        assert_eq!(slots, [3, 7]);
    }

    #[test]
    fn members_are_inserted_and_not_removed() {
        let mut set = ConnSet::default();
        assert!(set.is_empty());
        let [one, two] = [1, 2].map(|slot| ConnKey::new(slot, 1));
        assert!(set.insert(two) && set.insert(one) && !set.insert(two));
        assert!(set.contains(one) && !set.contains(ConnKey::new(1, 2)));
        assert_eq!(set.len(), 2);
        assert!(set.remove(one) && !set.remove(one));
        assert_eq!((set.len(), set.is_empty()), (1, false));
        assert_eq!(set.iter().collect::<Vec<_>>(), [two]);
    }
}
