//! `plib run`: starts a program that uses heaps which it can neither open nor map.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `caller` | who started us, and the privileges that the set-uid bit or capabilities of the file give |
//! | `heap_file` | which files may be given to a program |
//! | `identity` | whom the program runs as, and becoming that |
//! | `program` | the program, and executing it |
//! | `launch` | the two processes of a launch |
//! | `inject` | what is put into the new program |
//! | `ptrace`, `remote` | system calls in the new program |
//! | `status` | whether it has privileges left |
//! | `error` | what can go wrong |
//!
//! This is the part of plib that runs with privileges. It allocates little, parses nothing of a user's but names, and asks the
//! kernel afterwards whether what it dropped is gone.

pub mod caller;
pub mod error;
pub mod heap_file;
pub mod identity;
pub mod inject;
pub mod launch;
pub mod program;
mod ptrace;
pub mod remote;
mod status;
