//! Who owns a file, in names where the system's tables have them.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;

/// `root:plib`, with numbers for ids that have no name.
pub(crate) fn of(metadata: &Metadata) -> String {
    format!("{}:{}", name("/etc/passwd", metadata.uid()), name("/etc/group", metadata.gid()))
}

/// The permission bits as `0660`.
pub(crate) fn mode(metadata: &Metadata) -> String {
    format!("{:04o}", metadata.mode() & 0o7777)
}

/// The name of a user.
pub(crate) fn user(uid: u32) -> String {
    name("/etc/passwd", uid)
}

fn name(table: &str, id: u32) -> String {
    let text = fs::read_to_string(table).unwrap_or_default();
    find(&text, id).map_or_else(|| id.to_string(), str::to_owned)
}

/// The name in a table of `name:password:id:...` lines.
fn find(table: &str, id: u32) -> Option<&str> {
    let mut lines = table.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| {
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_by_id() {
        let table = "root:x:0:0:root:/root:/bin/sh\nbroken\ndaemon:x:1:1::/:/bin/false\n";
        assert_eq!(find(table, 0), Some("root"));
        assert_eq!(find(table, 1), Some("daemon"));
        assert_eq!(find(table, 2), None);
    }
}
