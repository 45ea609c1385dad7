//! Builds the trusted image (plib-image) and gives the library its bytes; names the C library.
//!
//! The image is built by the compiler alone, without cargo: two crates that depend on nothing, always optimised and always for the oldest
//! x86-64, whatever the library around it is built with. What comes out is laid out as it lies in memory, with the few words
//! that depend on where that is in a list of their own.

use object::elf::R_X86_64_RELATIVE;
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::{Endianness, Object, ObjectSegment, ObjectSymbol, RelocationFlags};
use std::error::Error;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const PAGE: u64 = 4096;
/// The last word of the image's table.
const CONSTANTS: u64 = 5;
/// Its first (plib-core/src/gate/image.rs).
const MAGIC: u64 = u64::from_le_bytes(*b"plib img");

fn main() -> Result<(), Box<dyn Error>> {
    // Programs linked today go on with any later 0.x that keeps the ABI.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libplib.so.0");
    // The kernel knows a function of the library as the program's signal handlers (src/signals.rs): dlclose must leave it there.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    let elf = compile(&out)?;
    // Tests read the file itself.
    println!("cargo:rustc-env=PLIB_IMAGE_ELF={}", elf.display());
    let flat = Flat::new(&fs::read(&elf)?)?;
    fs::write(out.join("image.bin"), &flat.bytes)?;
    fs::write(out.join("image.rs"), flat.description()?)?;
    Ok(())
}

/// Builds the shared object; its path.
fn compile(out: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("..");
    let (core, image) = (root.join("plib-core/src"), root.join("plib-image/src"));
    let core_library = out.join("libplib_core.rlib");
    let elf = out.join("libplib_image.so");
    let common = [
        "--edition=2024",
        "-Ctarget-feature=-crt-static",
        "-Copt-level=3",
        "-Cpanic=abort",
        "-Ccodegen-units=1",
        "--cap-lints=allow",
    ];
    // No path of the machine that builds it is of any interest.
    let remap: OsString = ["--remap-path-prefix=".as_ref(), root.as_os_str(), "=.".as_ref()].into_iter().collect();
    let rustc = |crate_name: &str, source: &Path| {
        println!("cargo:rerun-if-changed={}", source.display());
        let mut command = Command::new(env::var_os("RUSTC").unwrap_or("rustc".into()));
        command.args(common).arg(&remap).arg(format!("--crate-name={crate_name}")).arg(source.join("lib.rs"));
        command.arg("--target").arg(env::var_os("TARGET").unwrap_or_default());
        if let Some(linker) = env::var_os("RUSTC_LINKER") {
            command.arg("-Clinker").arg(linker);
        }
        // What the library around it is instrumented with is not for code that runs alone.
        command.env_remove("CARGO_ENCODED_RUSTFLAGS").env_remove("RUSTFLAGS");
        command
    };
    run(rustc("plib_core", &core).args(["--crate-type=rlib"]).arg("-o").arg(&core_library))?;
    let alone =
        "-Clink-arg=-Wl,-z,defs,-z,text,-z,separate-code,-z,relro,-z,now,-z,noexecstack,-Bsymbolic,--build-id=none";
    run(rustc("plib_image", &image)
        .args(["--crate-type=cdylib", "--cfg=plib_image", "-Clto=fat", "-Cstrip=symbols"])
        .args(["-Clink-arg=-nostdlib", "-Clink-arg=-nostartfiles", alone])
        .arg("--extern")
        .arg(["plib_core=".as_ref(), core_library.as_os_str()].into_iter().collect::<OsString>())
        .arg("-o")
        .arg(&elf))?;
    Ok(elf)
}

fn run(command: &mut Command) -> Result<(), Box<dyn Error>> {
    let status = command.status().map_err(|e| format!("cannot run {:?}: {e}", command.get_program()))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}

/// Where a part starts and ends, and its protection.
type Part = (u64, u64, &'static str);

/// The image as it lies in memory from some page on.
struct Flat {
    bytes: Vec<u8>,
    parts: Vec<Part>,
    /// Words that are the image's address and this number.
    words: Vec<(u64, u64)>,
    /// Where its table is.
    table: u64,
}

impl Flat {
    fn new(file: &[u8]) -> Result<Self, Box<dyn Error>> {
        let elf = ElfFile64::<Endianness>::parse(file)?;
        let end = elf.segments().map(|s| s.address() + s.size()).max().ok_or("no segments")?.next_multiple_of(PAGE);
        let mut bytes = vec![0; usize::try_from(end)?];
        for segment in elf.segments() {
            let data = segment.data()?;
            let at = usize::try_from(segment.address())?;
            bytes.get_mut(at..at + data.len()).ok_or("a segment is longer than itself")?.copy_from_slice(data);
        }
        let mut words = Vec::new();
        for (at, relocation) in elf.dynamic_relocations().into_iter().flatten() {
            if relocation.flags() != (RelocationFlags::Elf { r_type: R_X86_64_RELATIVE }) {
                return Err(format!("the image has a relocation that needs a linker: {relocation:?} at {at:#x}").into());
            }
            words.push((at, u64::try_from(relocation.addend())?));
        }
        let table = elf.dynamic_symbols().find(|symbol| symbol.name() == Ok("PLIB_IMAGE"));
        let table = table.ok_or("the image has no table")?.address();
        let mut flat = Self { bytes, parts: parts(&elf)?, words, table };
        flat.set_constants_apart()?;
        // Words are written before the image is used, which only parts allow that are not executable.
        let writable = |at: u64| {
            flat.parts.iter().any(|(start, end, how)| *start <= at && at + 8 <= *end && *how != "ReadExecute")
        };
        if !flat.words.iter().all(|(at, _)| writable(*at)) {
            return Err("a relocation is in the code".into());
        }
        Ok(flat)
    }

    /// Makes the page of constants a part of its own, which is only read once it has been written.
    fn set_constants_apart(&mut self) -> Result<(), Box<dyn Error>> {
        let (from, to) = (self.entry(CONSTANTS)?, self.entry(CONSTANTS)? + PAGE);
        let within = |(start, end, protection): &Part| *start <= from && to <= *end && *protection == "ReadWrite";
        let index = self.parts.iter().position(within).ok_or("the constants are not in a writable part")?;
        let (start, end, protection) = self.parts[index];
        let split = [(start, from, protection), (from, to, "Read"), (to, end, protection)];
        self.parts.splice(index..=index, split.into_iter().filter(|(start, end, _)| start < end));
        Ok(())
    }

    /// What the table says that program and image must agree on.
    fn abi(&self) -> Result<u64, Box<dyn Error>> {
        let word = |index: usize| {
            let at = usize::try_from(self.table)? + 8 * index;
            let bytes = self.bytes.get(at..at + 8).ok_or("the table is not in the image")?;
            Ok::<_, Box<dyn Error>>(u64::from_le_bytes(bytes.try_into()?))
        };
        if word(0)? != MAGIC {
            return Err("the image's table does not begin as it should".into());
        }
        word(1)
    }

    /// The address in a word of the table.
    fn entry(&self, index: u64) -> Result<u64, Box<dyn Error>> {
        let at = self.table + 8 * index;
        Ok(self.words.iter().find(|(word, _)| *word == at).ok_or("a word of the table is no address")?.1)
    }

    /// What `src/image.rs` includes.
    fn description(&self) -> Result<String, Box<dyn Error>> {
        let mut text = String::new();
        writeln!(text, "const BYTES: &Pages<[u8; {}]> = &Pages(*include_bytes!(\"image.bin\"));", self.bytes.len())?;
        writeln!(text, "const PARTS: &[Part] = &[")?;
        for (start, end, protection) in &self.parts {
            writeln!(text, "    Part {{ offset: {start:#x}, len: {:#x}, protection: {protection} }},", end - start)?;
        }
        writeln!(text, "];")?;
        writeln!(text, "const WORDS: &[(usize, usize)] = &{:#x?};", self.words)?;
        writeln!(text, "const IMAGE_ABI: u64 = {:#x};", self.abi()?)?;
        for (index, name) in (2..=CONSTANTS).zip(["ENTER", "ON_SIGNAL", "HANDLERS", "CONSTANTS"]) {
            writeln!(text, "const {name}: usize = {:#x};", self.entry(index)?)?;
        }
        Ok(text)
    }
}

/// The parts of an image by their protection, in order and without gaps.
fn parts(elf: &ElfFile64<'_, Endianness>) -> Result<Vec<Part>, Box<dyn Error>> {
    const PT_LOAD: u32 = object::elf::PT_LOAD;
    const PT_GNU_RELRO: u32 = object::elf::PT_GNU_RELRO;
    let endian = elf.endian();
    let headers = elf.elf_header().program_headers(endian, elf.data())?;
    let span = |header: &object::elf::ProgramHeader64<Endianness>| {
        let start = header.p_vaddr(endian) / PAGE * PAGE;
        (start, (header.p_vaddr(endian) + header.p_memsz(endian)).next_multiple_of(PAGE))
    };
    let of_type = |wanted| headers.iter().filter(move |header| header.p_type(endian) == wanted);
    let relro = of_type(PT_GNU_RELRO).map(span).next();
    let mut parts: Vec<Part> = Vec::new();
    for header in of_type(PT_LOAD) {
        let (start, end) = span(header);
        let flags = header.p_flags(endian);
        let (write, execute) = (flags & object::elf::PF_W != 0, flags & object::elf::PF_X != 0);
        match (write, execute, relro) {
            (true, true, _) => return Err("a segment is writable and executable".into()),
            (false, true, _) => parts.push((start, end, "ReadExecute")),
            (false, false, _) => parts.push((start, end, "Read")),
            // What is only written while it is mapped comes first, if this is the segment of such.
            (true, false, Some((from, to))) if from == start && to <= end => {
                parts.push((start, to, "Read"));
                parts.push((to, end, "ReadWrite"));
            }
            (true, false, _) => parts.push((start, end, "ReadWrite")),
        }
    }
    parts.retain(|(start, end, _)| start < end);
    // Linkers leave nothing between, but if one does, nobody shall read it.
    if parts.windows(2).any(|pair| matches!(pair, [(_, end, _), (start, _, _)] if end > start)) {
        return Err("segments of the image overlap".into());
    }
    Ok(parts)
}
