//! What /proc says of a process's users, groups and capabilities.

use super::error::RunError;
use super::identity::Identity;
use std::path::PathBuf;

/// The text of /proc/PID/status.
pub(super) struct Status(String);

impl Status {
    /// That of a process.
    pub fn of(pid: libc::pid_t) -> Result<Self, RunError> {
        let path = PathBuf::from(format!("/proc/{pid}/status"));
        std::fs::read_to_string(&path).map(Self).map_err(|source| RunError::File { path, call: "read", source })
    }

    /// The words behind a name.
    fn words(&self, name: &str) -> impl Iterator<Item = &str> {
        let line = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().split_ascii_whitespace()
    }

    /// Whether it is this user's and nothing more.
    pub fn verify(&self, identity: &Identity) -> Result<(), RunError> {
        let ids = [("Uid", identity.uid().as_raw()), ("Gid", identity.gid().as_raw())];
        for (name, wanted) in ids {
            self.expect(name, 4, &wanted.to_string())?;
        }
        for name in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            self.expect(name, 1, NO_CAPABILITY)?;
        }
        self.expect("NoNewPrivs", 1, "1")
    }

    fn expect(&self, name: &str, count: usize, wanted: &str) -> Result<(), RunError> {
        if self.words(name).count() == count && self.words(name).all(|word| word == wanted) {
            return Ok(());
        }
        let found: Vec<_> = self.words(name).collect();
        Err(RunError::Kept(format!("{name} is '{}', not {wanted}", found.join(" "))))
    }
}

const NO_CAPABILITY: &str = "0000000000000000";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_too_much_is_found() {
        let status = |uid, prm| {
            Status(format!(
                "Name:\tx\nUid:\t{uid}\nGid:\t7\t7\t7\t7\nCapInh:\t{NO_CAPABILITY}\nCapPrm:\t{prm}\nCapEff:\t{NO_CAPABILITY}\n\
                 CapAmb:\t{NO_CAPABILITY}\nNoNewPrivs:\t1\n"
            ))
        };
        let identity = Identity::plain(5, 7);
        status("5\t5\t5\t5", NO_CAPABILITY).verify(&identity).expect("as it should be");
        for wrong in [
            status("5\t5\t0\t5", NO_CAPABILITY),
            status("5\t5\t5", NO_CAPABILITY),
            status("5\t5\t5\t5", "0000000000000002"),
        ] {
            assert!(matches!(wrong.verify(&identity), Err(RunError::Kept(_))));
        }
        assert!(Status(String::new()).verify(&identity).is_err());
    }
}
