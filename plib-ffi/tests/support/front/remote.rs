//! Two processes and this one on one heap: commands go round between them.

use plib::Cache;
use plib_model::{Command, Front, Reply};

use super::rust::RustFront;
use crate::support::child::{Child, Link, spawn};

/// The name of the role that [`serve`] plays.
pub const ROLE: &str = "front";

/// Children that execute, and a front of this process for the check.
pub struct RemoteFront {
    local: RustFront,
    children: Vec<Child>,
    turn: usize,
}

impl RemoteFront {
    /// Starts `children` processes on the heap at `path`.
    pub fn new(local: RustFront, path: &str, value_max: usize, children: usize) -> RemoteFront {
        let value_max = value_max.to_string();
        let children = (0..children).map(|_| spawn(ROLE, &[path, &value_max])).collect();
        RemoteFront { local, children, turn: 0 }
    }
}

impl Front for RemoteFront {
    fn execute(&mut self, command: &Command) -> Reply {
        self.turn = (self.turn + 1) % (self.children.len() + 1);
        match self.children.get_mut(self.turn) {
            None => self.local.execute(command),
            Some(child) => {
                child.link.send(command);
                child.link.receive().expect("the child died")
            }
        }
    }

    fn evictions(&mut self) -> u64 {
        self.local.evictions()
    }

    fn faults(&mut self) -> Vec<String> {
        self.local.faults()
    }
}

/// The child: opens the heap and does what it is told until the parent is gone.
pub fn serve(link: &mut Link, args: &[String]) {
    let cache = Cache::open(&args[0]).expect("open");
    let mut front = RustFront::new(cache, args[1].parse().expect("a length"));
    while let Some(command) = link.receive::<Command>() {
        let reply = front.execute(&command);
        link.send(&reply);
    }
}
