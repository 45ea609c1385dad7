//! The instructions that can open a key, counted in the library as it is built: two, in the gate, and nowhere else.
//!
//! Any three bytes of code are looked at, whether or not a compiler means them as an instruction: a jump does not ask. The library
//! is the one of this test's profile (`cargo test --release` looks at the one that is shipped), or what PLIB_LIBRARY names.

mod support;

use std::path::PathBuf;

use support::report;

/// wrpkru (Intel SDM vol. 2D).
const WRPKRU: [u8; 3] = [0x0f, 0x01, 0xef];

/// xrstor and xrstors (vol. 2D): they load PKRU where edx:eax and the image in memory say so. 0F AE /5 and 0F C7 /3, of memory.
fn is_xrstor(bytes: &[u8]) -> bool {
    let [0x0f, opcode, modrm, ..] = *bytes else { return false };
    let (extension, of_memory) = (modrm >> 3 & 7, modrm >> 6 != 3);
    of_memory && (opcode == 0xae && extension == 5 || opcode == 0xc7 && extension == 3)
}

fn library() -> PathBuf {
    if let Some(named) = std::env::var_os("PLIB_LIBRARY") {
        return named.into();
    }
    // Where cargo puts what it builds for tests: target/<profile>/deps.
    std::env::current_exe().expect("this program").with_file_name("libplib.so")
}

/// A little-endian number of `N` bytes.
fn number<const N: usize>(file: &[u8], at: usize) -> usize {
    let mut word = [0; 8];
    word[..N].copy_from_slice(&file[at..at + N]);
    u64::from_le_bytes(word) as usize
}

/// What the loader maps executable: the segments with PF_X (elf(5)).
fn executable(file: &[u8]) -> Vec<&[u8]> {
    const PT_LOAD: usize = 1;
    const PF_X: usize = 1;
    assert_eq!(&file[..5], b"\x7fELF\x02", "a 64-bit ELF file");
    let (headers, size, count) = (number::<8>(file, 32), number::<2>(file, 54), number::<2>(file, 56));
    let segments = (0..count).map(|n| headers + n * size);
    let is_code = |at: &usize| number::<4>(file, *at) == PT_LOAD && number::<4>(file, at + 4) & PF_X != 0;
    let bytes = |at| &file[number::<8>(file, at + 8)..][..number::<8>(file, at + 32)];
    segments.filter(is_code).map(bytes).collect()
}

/// Offsets within the code at which `what` is so.
fn places(code: &[&[u8]], what: impl Fn(&[u8]) -> bool) -> usize {
    code.iter().map(|segment| (0..segment.len()).filter(|at| what(&segment[*at..])).count()).sum()
}

#[test]
fn two_instructions_write_pkru() {
    let path = library();
    let file = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let code = executable(&file);
    let bytes: usize = code.iter().map(|segment| segment.len()).sum();
    let wrpkrus = places(&code, |bytes| bytes.starts_with(&WRPKRU));
    let xrstors = places(&code, is_xrstor);
    report(format_args!("{wrpkrus} wrpkru and {xrstors} xrstor in {bytes} bytes of code"));
    assert!(bytes > 100_000, "that is not the library");
    assert_eq!((wrpkrus, xrstors), (2, 0), "in {}", path.display());
}

#[test]
fn both_are_found_where_they_are() {
    let code = [0x90, 0x0f, 0x01, 0xef, 0x0f, 0xae, 0x2f, 0x0f, 0xae, 0xef, 0x0f, 0xc7, 0x1e, 0x0f, 0x01];
    assert_eq!(places(&[&code], |bytes| bytes.starts_with(&WRPKRU)), 1);
    // lfence (0F AE EF) is none.
    assert_eq!(places(&[&code], is_xrstor), 2);
}
