//! What the trusted image is, read from the file that the build made, and that the library around it can open no key.
//!
//! Any bytes of code are looked at, whether or not a compiler means them as an instruction: a jump does not ask. The library
//! is the one of this test's profile (`cargo test --release` looks at the one that is shipped), or what PLIB_LIBRARY names.

mod support;

use std::path::{Path, PathBuf};

use iced_x86::{Code, Decoder, DecoderOptions, InstructionInfoFactory, Mnemonic, Register};
use object::elf::{PF_W, PF_X, PT_GNU_STACK, PT_INTERP, PT_LOAD, PT_TLS, R_X86_64_RELATIVE, SHN_UNDEF};
use object::read::elf::{Dyn, ElfFile64, FileHeader, ProgramHeader, Sym};
use object::{Endianness, Object, RelocationFlags};
use plib::image::{self, Part};
use plib_core::domain::Protection;
use plib_core::gate::Handlers;
use support::report;

type Elf<'a> = ElfFile64<'a, Endianness>;
type Header = object::elf::ProgramHeader64<Endianness>;
const LITTLE: Endianness = Endianness::Little;

/// wrpkru (Intel SDM vol. 2D).
const WRPKRU: [u8; 3] = [0x0f, 0x01, 0xef];
/// The ways into the kernel: syscall, sysenter, int 0x80.
const SYSCALLS: [[u8; 2]; 3] = [[0x0f, 0x05], [0x0f, 0x34], [0xcd, 0x80]];

/// xrstor and xrstors (vol. 2D): they load PKRU where edx:eax and the image in memory say so. 0F AE /5 and 0F C7 /3, of memory.
fn is_xrstor(bytes: &[u8]) -> bool {
    let [0x0f, opcode, modrm, ..] = *bytes else { return false };
    let (extension, of_memory) = (modrm >> 3 & 7, modrm >> 6 != 3);
    of_memory && (opcode == 0xae && extension == 5 || opcode == 0xc7 && extension == 3)
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn image_file() -> Vec<u8> {
    read(Path::new(env!("PLIB_IMAGE_ELF")))
}

fn library() -> PathBuf {
    if let Some(named) = std::env::var_os("PLIB_LIBRARY") {
        return named.into();
    }
    // Where cargo puts what it builds for tests: target/<profile>/deps.
    std::env::current_exe().expect("this program").with_file_name("libplib.so")
}

fn headers<'a>(elf: &Elf<'a>) -> &'a [Header] {
    elf.elf_header().program_headers(LITTLE, elf.data()).expect("program headers")
}

/// What the loader maps executable.
fn executable<'a>(elf: &Elf<'a>) -> Vec<&'a [u8]> {
    let is_code = |header: &&Header| header.p_type(LITTLE) == PT_LOAD && header.p_flags(LITTLE) & PF_X != 0;
    headers(elf).iter().filter(is_code).map(|header| header.data(LITTLE, elf.data()).expect("a segment")).collect()
}

/// How many offsets within the code there are at which `what` is so.
fn places(code: &[&[u8]], what: impl Fn(&[u8]) -> bool) -> usize {
    code.iter().map(|segment| (0..segment.len()).filter(|at| what(&segment[*at..])).count()).sum()
}

/// wrpkru, xrstor and system calls at any offset.
fn instructions(code: &[&[u8]]) -> [usize; 3] {
    [
        places(code, |bytes| bytes.starts_with(&WRPKRU)),
        places(code, is_xrstor),
        places(code, |bytes| SYSCALLS.iter().any(|call| bytes.starts_with(call))),
    ]
}

#[test]
fn the_image_opens_and_closes_a_key_once_each_and_has_two_ways_into_the_kernel() {
    let file = image_file();
    let elf = Elf::parse(&*file).expect("an ELF file");
    let code = executable(&elf);
    let bytes: usize = code.iter().map(|segment| segment.len()).sum();
    report(format_args!("{:?} wrpkru, xrstor, system calls in {bytes} bytes of code", instructions(&code)));
    assert!(bytes > 50_000, "that is not the core");
    // The system calls: one in the function through which all of the core's go (plib-core/src/sys.rs lists them), and the gate's
    // return from a signal that it put off.
    assert_eq!(instructions(&code), [2, 0, 2]);
}

#[test]
fn the_library_around_it_cannot_open_a_key() {
    let path = library();
    let file = read(&path);
    let elf = Elf::parse(&*file).expect("an ELF file");
    let code = executable(&elf);
    let bytes: usize = code.iter().map(|segment| segment.len()).sum();
    let [wrpkrus, xrstors, _] = instructions(&code);
    report(format_args!("{wrpkrus} wrpkru and {xrstors} xrstor in {bytes} bytes of code"));
    assert!(bytes > 100_000, "that is not the library");
    assert_eq!((wrpkrus, xrstors), (0, 0), "in {}", path.display());
    // It is this image that is within.
    let image = image_file();
    let code_of_image = executable(&Elf::parse(&*image).expect("an ELF file"))[0];
    assert_eq!(places(&[&file], |bytes| bytes.starts_with(code_of_image)), 1, "images in {}", path.display());
}

#[test]
fn instructions_are_found_where_they_are() {
    let code =
        [0x90, 0x0f, 0x01, 0xef, 0x0f, 0xae, 0x2f, 0x0f, 0xae, 0xef, 0x0f, 0xc7, 0x1e, 0xb8, 0x0f, 0x05, 0xcd, 0x80];
    // lfence (0F AE EF) is none; a system call in the middle of another instruction is one.
    assert_eq!(instructions(&[&code]), [1, 2, 2]);
}

/// What an image may not need or have.
fn objections(file: &[u8]) -> Vec<String> {
    let elf = Elf::parse(file).expect("an ELF file");
    let mut found = Vec::new();
    for header in headers(&elf) {
        let (kind, flags) = (header.p_type(LITTLE), header.p_flags(LITTLE));
        match kind {
            PT_TLS => found.push("thread-local storage".into()),
            PT_INTERP => found.push("an interpreter".into()),
            PT_GNU_STACK if flags & PF_X != 0 => found.push("an executable stack".into()),
            PT_LOAD if flags & (PF_W | PF_X) == PF_W | PF_X => {
                found.push("a segment that is writable and executable".into())
            }
            _ => {}
        }
    }
    let table = elf.elf_dynamic_symbol_table();
    for symbol in table.iter().skip(1).filter(|symbol| symbol.st_shndx(LITTLE) == SHN_UNDEF) {
        let name = symbol.name(LITTLE, table.strings()).expect("a name");
        found.push(format!("an undefined symbol: {}", String::from_utf8_lossy(name)));
    }
    for (_, relocation) in elf.dynamic_relocations().into_iter().flatten() {
        if relocation.flags() != (RelocationFlags::Elf { r_type: R_X86_64_RELATIVE }) {
            found.push(format!("a relocation that needs a linker: {relocation:?}"));
        }
    }
    let dynamic =
        elf.elf_section_table().dynamic(LITTLE, elf.data()).expect("dynamic").map_or(&[][..], |(entries, _)| entries);
    for entry in dynamic.iter().filter(|entry| entry.tag32(LITTLE) == Some(object::elf::DT_NEEDED)) {
        found.push(format!("another library: {:#x}", entry.d_val(LITTLE)));
    }
    found
}

#[test]
fn the_image_stands_alone() {
    assert_eq!(objections(&image_file()), Vec::<String>::new());
    // The library does not: it needs libc, and threads have storage of their own.
    let library = objections(&read(&library()));
    for what in ["thread-local storage", "an undefined symbol: mmap", "another library"] {
        assert!(library.iter().any(|objection| objection.starts_with(what)), "{what}: {library:?}");
    }
}

#[test]
fn nothing_in_it_is_writable_but_the_table_of_handlers() {
    let writable: Vec<_> = image::parts().iter().filter(|part| part.protection == Protection::ReadWrite).collect();
    let [Part { offset, len, .. }] = writable[..] else { panic!("{writable:x?}") };
    assert_eq!((image::handlers(), *len), (*offset, size_of::<Handlers>().next_multiple_of(4096)));
    // No variable of the core's lies behind the table: the segment ends with it.
    let file = image_file();
    let elf = Elf::parse(&*file).expect("an ELF file");
    let ends =
        headers(&elf).iter().filter(|header| header.p_type(LITTLE) == PT_LOAD && header.p_flags(LITTLE) & PF_W != 0);
    let end = ends.map(|header| header.p_vaddr(LITTLE) + header.p_memsz(LITTLE)).max().expect("a writable segment");
    assert_eq!(end as usize, image::handlers() + size_of::<Handlers>());
    let constants: Vec<_> = image::parts().iter().filter(|part| part.offset == image::constants()).collect();
    assert!(matches!(constants[..], [Part { len: 4096, protection: Protection::Read, .. }]), "{constants:x?}");
}

/// Whether the gate would leave something of what the register held to its caller.
fn is_left_behind(register: Register) -> bool {
    let vector = register.is_ymm() || register.is_zmm() || register.is_vector_register() && register.number() > 15;
    vector || register.is_mm() || register.is_st() || register.is_k() || register.is_tmm() || register.is_bnd()
}

#[test]
fn it_uses_no_register_that_the_gate_does_not_scrub_and_no_thread_pointer() {
    let file = image_file();
    let elf = Elf::parse(&*file).expect("an ELF file");
    let mut facts = InstructionInfoFactory::new();
    let (mut decoded, mut wrpkrus, mut syscalls) = (0, 0, 0);
    for code in executable(&elf) {
        for instruction in &mut Decoder::new(64, code, DecoderOptions::NONE) {
            decoded += 1;
            assert_ne!(instruction.code(), Code::INVALID, "{decoded} instructions decoded");
            wrpkrus += usize::from(instruction.mnemonic() == Mnemonic::Wrpkru);
            syscalls += usize::from(instruction.mnemonic() == Mnemonic::Syscall);
            let info = facts.info(&instruction);
            let registers = info.used_registers().iter().map(|used| used.register());
            assert!(
                !registers.clone().any(is_left_behind),
                "{instruction} uses one of {:?}",
                registers.collect::<Vec<_>>()
            );
            let by_thread = |segment| matches!(segment, Register::FS | Register::GS);
            assert!(!info.used_memory().iter().any(|memory| by_thread(memory.segment())), "{instruction}");
        }
    }
    report(format_args!("{decoded} instructions looked at"));
    assert!(decoded > 20_000);
    assert_eq!((wrpkrus, syscalls), (2, 2));
}
