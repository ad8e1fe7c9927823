//! Consistency checks of the tables of users and logins, for tests and simulations only.

use crate::net::ConnKey;
use crate::realtime::slab::NONE;

use super::Principals;

impl Principals {
    /// Walks every list. Returns the logged-in connections, or an error.
    pub fn verify(&self) -> Result<Vec<ConnKey>, String> {
        let (mut keys, mut users) = (Vec::new(), 0);
        for (slot, user) in (0..).zip(self.users.slots()) {
            // A vacant slot holds a user without a userid.
            if user.userid.is_empty() {
                continue;
            }
            if self.find(&user.userid) != Some(slot) {
                return Err(format!("{} is not found by name", user.userid));
            }
            if !user.memberships.is_sorted() {
                return Err(format!("{}'s memberships are in disorder", user.userid));
            }
            users += 1;
            self.verify_logins(slot, user.head, &mut keys)?;
        }
        let live = self.live_logins().count();
        let counts = (users, self.table.len(), keys.len(), live);
        let (logins, all) = (self.logins.len(), self.users.len());
        if counts != (all, all, logins, logins) {
            return Err(format!("{counts:?} for {all} users and {logins} logins"));
        }
        self.verify_deadlines()?;
        Ok(keys)
    }

    /// Checks a user's list, which has at least one login.
    fn verify_logins(&self, user: u32, head: u32, keys: &mut Vec<ConnKey>) -> Result<(), String> {
        let (mut before, mut at) = (NONE, head);
        loop {
            let login = self.logins.get(at).filter(|login| login.user == user);
            let login = login.ok_or_else(|| format!("login {at} is not of user {user}"))?;
            if login.prev != before || self.by_conn.get(login.key) != at {
                return Err(format!("login {at} of {:?} hangs wrongly", login.key));
            }
            keys.push(login.key);
            if keys.len() > self.logins.len() {
                return Err(format!("the list of user {user} has no end"));
            }
            (before, at) = (at, login.next);
            if at == NONE {
                return Ok(());
            }
        }
    }
}
