//! Consistency checks of users and logins, for tests and simulations only.

use crate::net::ConnKey;

use super::Principals;

impl Principals {
    /// Walks every list. Returns the logged-in connections, or an error.
    pub(crate) fn verify(&self) -> Result<Vec<ConnKey>, String> {
        self.table.verify()?;
        let mut keys = Vec::new();
        for login in self.table.members() {
            let group = self.table.group_of(login);
            if self
                .login(login.key)
                .map(|found| self.table.group_of(found))
                != Some(group)
            {
                return Err(format!(
                    "the login of {:?} is not found by its key",
                    login.key
                ));
            }
            keys.push(login.key);
            let user = self.table.group(group);
            let user = user.ok_or_else(|| format!("{:?} has no user", login.key))?;
            if self.find(&user.userid) != Some(group) {
                return Err(format!("{} is not found by userid", user.userid));
            }
            if !user.memberships.is_sorted() {
                return Err(format!("the memberships of {} are not sorted", user.userid));
            }
        }
        self.verify_deadlines()?;
        Ok(keys)
    }
}
