//! What `plib run` refuses, with the reason and what would help.

use crate::stage::{HEAPS, OTHER, USER, by_root, by_user, done, file, mode, plib, refusal, run};
use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::Path;

/// A heap of its own for one refusal.
fn fresh(name: &str) {
    let _ = fs::remove_file(file(name));
    let _ = fs::remove_file(file(&format!("{name}.lock")));
    done(by_root(&["create", name, "--size", "16m"]));
}

pub fn what_others_can_tamper_with_is_refused() {
    type Spoil = fn(&Path);
    let spoilt: [(&str, &str, Spoil); 7] = [
        ("has mode 0660", "without `plib run`", |heap| mode(heap, 0o660)),
        ("belongs to user 1001", "create it as root", |heap| chown(heap, Some(OTHER), None).expect("chown")),
        ("has 2 names", "-samefile", |heap| fs::hard_link(heap, file("name")).expect("link")),
        ("is a symbolic link", "own path", |heap| {
            fs::rename(heap, file("moved")).expect("rename");
            symlink(file("moved"), heap).expect("symlink");
        }),
        ("spoilt.lock is not there", "create the heap as root", |_| {
            fs::remove_file(file("spoilt.lock")).expect("remove")
        }),
        ("spoilt.lock is not root's alone", "create it again", |_| mode(&file("spoilt.lock"), 0o666)),
        ("is not a plib heap", "magic", |heap| {
            fs::write(heap, vec![0; 1 << 20]).expect("write");
        }),
    ];
    for (why, fix, spoil) in &spoilt {
        fresh("spoilt");
        done(run(&["spoilt"], &["true"]));
        spoil(&file("spoilt"));
        let text = refusal(run(&["spoilt"], &["true"]), 125);
        assert!(text.contains(why) && text.contains(fix), "{text}");
        let _ = (fs::remove_file(file("name")), fs::remove_file(file("moved")));
    }
    let _ = fs::remove_file(file("spoilt"));
    assert!(refusal(run(&["spoilt"], &["true"]), 125).contains("plib create"));
    // Directories.
    for (wrong, right, why) in [(0o777, 0o1777, "others can exchange"), (0o775, 0o755, "others can exchange")] {
        mode(Path::new(HEAPS), wrong);
        assert!(refusal(run(&["a"], &["true"]), 125).contains(why));
        mode(Path::new(HEAPS), right);
        done(run(&["a"], &["true"]));
    }
    chown(HEAPS, Some(USER), None).expect("chown");
    assert!(refusal(run(&["a"], &["true"]), 125).contains("belongs to another than root"));
    chown(HEAPS, Some(0), None).expect("chown");
    mode(Path::new(HEAPS), 0o1777);
    eprintln!("refusals: {} of files and directories", spoilt.len() + 4);
}

pub fn arguments_beyond_the_users_rights_are_refused() {
    let user = |arguments: &[&str]| refusal(by_user(arguments), 125);
    assert!(user(&["run", "--heap", "/dev/shm/plib/a", "--", "true"]).contains("is a path"));
    assert!(user(&["run", "--heap", "../plib/a", "--", "true"]).contains("is a path"));
    assert!(user(&["run", "--heap", "a", "--user", "other", "--", "true"]).contains("is for root"));
    assert!(user(&["run", "--heap", "a", "--heap", "a", "--", "true"]).contains("given twice"));
    // PLIB_DIR has no say: there is a heap of that name elsewhere.
    let _ = fs::create_dir("/tmp/dir");
    let mut create = by_root(&["create", "elsewhere", "--size", "16m"]);
    create.env("PLIB_DIR", "/tmp/dir");
    done(create);
    let mut elsewhere = run(&["elsewhere"], &["true"]);
    elsewhere.env("PLIB_DIR", "/tmp/dir");
    assert!(refusal(elsewhere, 125).contains("/dev/shm/plib/elsewhere is not there"));
    let root = |arguments: &[&str]| refusal(by_root(arguments), 125);
    assert!(root(&["run", "--heap", "a", "--", "true"]).contains("--user NAME"));
    assert!(root(&["run", "--heap", "a", "--user", "root", "--", "true"]).contains("open the heap himself"));
    assert!(root(&["run", "--heap", "a", "--user", "nosuch", "--", "true"]).contains("nobody here"));
    // Without privileges.
    let mut plain = std::process::Command::new(plib());
    std::os::unix::process::CommandExt::uid(&mut plain, USER).args(["run", "--heap", "a", "--", "true"]);
    assert!(refusal(plain, 125).contains("set-uid"));
    eprintln!("refusals: 9 of arguments");
}

pub fn other_commands_of_a_set_uid_plib_are_the_users() {
    // What root may do, the set-uid plib does not do for its user.
    assert!(refusal(by_root(&["get", "-H", "a", "no"]), 1).contains("no item"));
    assert!(refusal(by_user(&["get", "-H", "a", "no"]), 3).contains("no permission"));
    assert!(refusal(by_user(&["destroy", "a", "--yes"]), 3).contains("no permission"));
    assert!(file("a").exists());
    let roots = Path::new("/tmp/roots");
    let _ = fs::create_dir(roots);
    mode(roots, 0o700);
    refusal(by_user(&["create", "/tmp/roots/h", "--size", "16m"]), 3);
    assert_eq!(fs::read_dir(roots).expect("read").count(), 0);
    eprintln!("refusals: 3 of other commands");
}
