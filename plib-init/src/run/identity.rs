//! Whom the program runs as, and how this process becomes that, for good, before the program is executed.
//!
//! One capability goes along, ambient, until the program is in the hands of the tracer: CAP_DAC_OVERRIDE, with which the heaps are
//! opened there. It is at the same time what keeps the user's other processes away meanwhile: the kernel lets nobody at a process
//! that has more than he (`ptrace_may_access`). It is not effective when the program is executed, so it opens no program to the user.

use super::caller::{Caller, NO_CAPABILITIES};
use super::error::RunError;
use nix::unistd::{Gid, ResGid, ResUid, Uid, User, getgroups, getresgid, getresuid, setgroups, setresgid, setresuid};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities,
    set_no_new_privs,
};
use std::ffi::{CString, OsStr};

/// What goes along.
const ALONG: CapabilitySet = CapabilitySet::DAC_OVERRIDE;
/// More capabilities than any kernel has.
const CAPABILITIES: u32 = 64;

/// A user with his groups.
#[derive(Debug, PartialEq, Eq)]
pub struct Identity {
    uid: Uid,
    gid: Gid,
    /// Supplementary groups; None to leave them as they are.
    groups: Option<Vec<Gid>>,
}

impl Identity {
    /// The user who started us, with the groups that he came with.
    pub fn of_caller(caller: &Caller) -> Self {
        Self { uid: caller.uid(), gid: caller.gid(), groups: None }
    }

    #[cfg(test)]
    pub(super) fn plain(uid: u32, gid: u32) -> Self {
        Self { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), groups: None }
    }

    /// A user by name or number, with the groups that the system's tables give him.
    pub fn of_user(name: &OsStr) -> Result<Self, RunError> {
        let text = name.to_string_lossy();
        let found = match text.parse() {
            Ok(number) => User::from_uid(Uid::from_raw(number)),
            Err(_) => User::from_name(&text),
        };
        let unknown = || RunError::refused(format!("--user {text}"), "is nobody here", "give a user of /etc/passwd");
        let user = found.map_err(RunError::system("getpwnam"))?.ok_or_else(unknown)?;
        let c_name = CString::new(user.name.as_bytes()).map_err(|_| unknown())?;
        let groups = nix::unistd::getgrouplist(&c_name, user.gid).map_err(RunError::system("getgrouplist"))?;
        let identity = Self { uid: user.uid, gid: user.gid, groups: Some(groups) };
        if identity.uid.is_root() {
            let why = "would run the program as root, who can open the heap himself";
            return Err(RunError::refused(format!("--user {text}"), why, "start the program without `plib run`"));
        }
        Ok(identity)
    }

    /// The user.
    pub fn uid(&self) -> Uid {
        self.uid
    }

    /// The user's group.
    pub fn gid(&self) -> Gid {
        self.gid
    }

    /// Becomes this user, without any privilege but [`ALONG`]. There is no way back.
    pub(super) fn assume(&self) -> Result<(), RunError> {
        set_keep_capabilities(true).map_err(RunError::system("prctl(PR_SET_KEEPCAPS)"))?;
        if let Some(groups) = &self.groups {
            setgroups(groups).map_err(RunError::system("setgroups"))?;
        }
        setresgid(self.gid, self.gid, self.gid).map_err(RunError::system("setresgid"))?;
        setresuid(self.uid, self.uid, self.uid).map_err(RunError::system("setresuid"))?;
        drop_capabilities()?;
        set_no_new_privs(true).map_err(RunError::system("prctl(PR_SET_NO_NEW_PRIVS)"))?;
        set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(RunError::system("prctl(PR_SET_DUMPABLE)"))?;
        self.verify()
    }

    /// Whether this process is that user, and nothing else.
    fn verify(&self) -> Result<(), RunError> {
        let ResUid { real, effective, saved } = getresuid().map_err(RunError::system("getresuid"))?;
        if [real, effective, saved] != [self.uid; 3] {
            return Err(RunError::Kept(format!("users {real}, {effective}, {saved}")));
        }
        let ResGid { real, effective, saved } = getresgid().map_err(RunError::system("getresgid"))?;
        if [real, effective, saved] != [self.gid; 3] {
            return Err(RunError::Kept(format!("groups {real}, {effective}, {saved}")));
        }
        if let Some(wanted) = &self.groups {
            let found = getgroups().map_err(RunError::system("getgroups"))?;
            if let Some(other) = found.iter().find(|group| !wanted.contains(group)) {
                return Err(RunError::Kept(format!("group {other}")));
            }
        }
        let sets = capabilities(None).map_err(RunError::system("capget"))?;
        if sets != (CapabilitySets { permitted: ALONG, inheritable: ALONG, ..NO_CAPABILITIES }) {
            return Err(RunError::Kept(format!("capabilities {sets:?}")));
        }
        Ok(())
    }
}

/// Leaves of all sets of capabilities nothing but [`ALONG`], in those that the program's process gets its own from.
fn drop_capabilities() -> Result<(), RunError> {
    let had = capabilities(None).map_err(RunError::system("capget"))?.permitted;
    let lasting = CapabilitySets { permitted: ALONG, inheritable: ALONG, ..NO_CAPABILITIES };
    // Without this one (among a file's capabilities it need not be) the bounding set stays, which no_new_privs makes harmless.
    let bounding = CapabilitySet::SETPCAP & had;
    let dropping = CapabilitySets { effective: bounding, permitted: ALONG | bounding, inheritable: ALONG };
    clear_ambient_capability_set().map_err(RunError::system("prctl(PR_CAP_AMBIENT_CLEAR_ALL)"))?;
    set_capabilities(None, dropping).map_err(RunError::system("capset(what goes along, and CAP_SETPCAP)"))?;
    if !bounding.is_empty() {
        empty_bounding_set()?;
    }
    set_capabilities(None, lasting).map_err(RunError::system("capset(what goes along)"))?;
    configure_capability_in_ambient_set(ALONG, true).map_err(RunError::system("prctl(PR_CAP_AMBIENT_RAISE)"))
}

fn empty_bounding_set() -> Result<(), RunError> {
    for number in 0..CAPABILITIES {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        // An error: the kernel has no more of them.
        match capability_is_in_bounding_set(capability) {
            Err(_) => break,
            Ok(false) => {}
            Ok(true) => {
                remove_capability_from_bounding_set(capability).map_err(RunError::system("prctl(PR_CAPBSET_DROP)"))?
            }
        }
    }
    Ok(())
}
