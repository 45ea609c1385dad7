//! Who started this process, and what it may do beyond that: as root, by the set-uid bit or the capabilities of its file.
//!
//! What the file gives is put aside before anything else is done, and taken up again by `plib run` alone. Every other command
//! gives it up for good, so that a set-uid `plib` is, but for `run`, the same as any.

use super::error::RunError;
use nix::unistd::{Gid, ResUid, Uid, getegid, geteuid, getgid, getresuid, getuid, seteuid, setresuid};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

/// What `plib run` cannot do without: opening files of root's, and looking into and writing to a process that is none of its own.
pub const NEEDED: CapabilitySet = CapabilitySet::DAC_OVERRIDE.union(CapabilitySet::SYS_PTRACE);
/// No capability in any set.
pub(super) const NO_CAPABILITIES: CapabilitySets = CapabilitySets {
    effective: CapabilitySet::empty(),
    permitted: CapabilitySet::empty(),
    inheritable: CapabilitySet::empty(),
};

/// Where the privileges come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// There are none, or the user's own.
    None,
    /// The user is root.
    Root,
    /// The file is root's and set-uid.
    SetUid,
    /// The file has capabilities.
    Capabilities,
}

/// The user who started this process.
#[derive(Debug)]
pub struct Caller {
    uid: Uid,
    gid: Gid,
    power: Power,
    /// Whether that is what it takes to run a program.
    enough: bool,
}

impl Caller {
    /// Looks who started us, and puts aside what he cannot do himself.
    pub fn begin() -> Result<Self, RunError> {
        let (uid, gid) = (getuid(), getgid());
        let sets = capabilities(None).map_err(RunError::system("capget"))?;
        let power = if geteuid().is_root() {
            if uid.is_root() { Power::Root } else { Power::SetUid }
        } else if begun_with_more() && !sets.permitted.is_empty() {
            Power::Capabilities
        } else {
            Power::None
        };
        match power {
            Power::None | Power::Root => {}
            // Root stays the saved user.
            Power::SetUid => seteuid(uid).map_err(RunError::system("seteuid(the user's)"))?,
            Power::Capabilities => {
                let aside = CapabilitySets { effective: CapabilitySet::empty(), ..sets };
                set_capabilities(None, aside).map_err(RunError::system("capset(none effective)"))?;
            }
        }
        Ok(Self { uid, gid, power, enough: sets.permitted.contains(NEEDED) })
    }

    /// Gives up for good what was put aside.
    pub fn give_up(&self) -> Result<(), RunError> {
        match self.power {
            Power::None | Power::Root => return Ok(()),
            Power::SetUid => {
                let uid = self.uid;
                setresuid(uid, uid, uid).map_err(RunError::system("setresuid(the user's)"))?;
                let ResUid { real, effective, saved } = getresuid().map_err(RunError::system("getresuid"))?;
                if [real, effective, saved] != [uid; 3] || seteuid(Uid::from_raw(0)).is_ok() {
                    return Err(RunError::Kept("its user can be root again".into()));
                }
            }
            Power::Capabilities => set_capabilities(None, NO_CAPABILITIES).map_err(RunError::system("capset(none)"))?,
        }
        match capabilities(None).map_err(RunError::system("capget"))? {
            sets if sets.permitted.is_empty() => Ok(()),
            sets => Err(RunError::Kept(format!("capabilities {:?}", sets.permitted))),
        }
    }

    /// Takes up again what was put aside. Refuses if that is too little to run a program.
    pub fn rise(&self) -> Result<(), RunError> {
        if self.power == Power::SetUid {
            seteuid(Uid::from_raw(0)).map_err(RunError::system("seteuid(0)"))?;
        }
        let sets = capabilities(None).map_err(RunError::system("capget"))?;
        if self.power == Power::None || !sets.permitted.contains(NEEDED) {
            return Err(too_little(self.power));
        }
        let raised = CapabilitySets { effective: sets.permitted, ..sets };
        set_capabilities(None, raised).map_err(RunError::system("capset(all permitted effective)"))
    }

    /// Whether the user is root himself.
    pub fn is_root(&self) -> bool {
        self.uid.is_root()
    }

    /// The user.
    pub fn uid(&self) -> Uid {
        self.uid
    }

    /// The user's group.
    pub fn gid(&self) -> Gid {
        self.gid
    }

    /// Whether the privileges were what it takes to run a program, when this process began.
    pub fn is_enough(&self) -> bool {
        self.power != Power::None && self.enough
    }

    /// Where the privileges come from.
    pub fn power(&self) -> Power {
        self.power
    }
}

/// Whether the file gave this process more than its user has.
fn begun_with_more() -> bool {
    // SAFETY: reads the auxiliary vector.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 || getegid() != getgid() }
}

fn too_little(power: Power) -> RunError {
    let why = match power {
        Power::None => "is neither root nor does its file give it the right to open heaps that are root's",
        _ => "lacks CAP_DAC_OVERRIDE or CAP_SYS_PTRACE (a container, or no_new_privs?)",
    };
    let fix =
        "start it as root with --user, or install it set-uid (chown root:plib, chmod 4750); `plib doctor` says more";
    RunError::refused("plib run", why, fix)
}
