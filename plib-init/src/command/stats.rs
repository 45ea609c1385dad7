//! `plib stats`

use std::collections::BTreeMap;
use std::io::{self, Write};

use clap::{Args, ValueEnum};
use plib::{Cache, ClassStats};
use serde::Serialize;

use crate::context::Context;
use crate::error::{CliError, ExitKind};
use crate::output::Paint;
use crate::progress::{self, Unit};
use crate::size;
use crate::table::{Align, Table};

const EXAMPLES: &str = "\
Examples:
  plib stats
  plib stats slabs
  plib stats sizes                     (goes through all items)
  plib stats clients
  plib --heap demo stats --json | jq .get_hits

The counters of `plib stats` have memcached's names where memcached has them.";

/// The arguments of `plib stats`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StatsArgs {
    /// What to show
    #[arg(value_enum, default_value_t = Topic::General)]
    topic: Topic,
}

#[derive(Clone, Copy, ValueEnum)]
enum Topic {
    /// Counters of the whole heap
    General,
    /// Items of each size class
    Items,
    /// Blocks and superblocks of each size class
    Slabs,
    /// How many items of which size
    Sizes,
    /// Attached processes
    Clients,
}

/// Shows the statistics of the topic.
pub(crate) fn run(context: &Context, args: &StatsArgs) -> Result<ExitKind, CliError> {
    let cache = context.open()?;
    match args.topic {
        Topic::General => general(context, &cache)?,
        Topic::Items => items(context, &cache)?,
        Topic::Slabs => slabs(context, &cache)?,
        Topic::Sizes => sizes(context, &cache)?,
        Topic::Clients => clients(context, &cache)?,
    }
    Ok(ExitKind::Done)
}

fn general(context: &Context, cache: &Cache) -> Result<(), CliError> {
    let named = counters(&cache.stats()?);
    let document: serde_json::Map<String, serde_json::Value> =
        named.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
    context.output.answer(&document, |w, paint| {
        let mut table = Table::new(&[("COUNTER", Align::Left), ("VALUE", Align::Right)]);
        named.iter().for_each(|(name, value)| table.row([(*name).to_owned(), value.to_string()]));
        table.write(w, paint)
    })
}

/// Names and values; the names are those of `plib_stats` in plib.h, which are memcached's where it has them.
fn counters(s: &plib::Stats) -> Vec<(&'static str, u64)> {
    vec![
        ("curr_items", s.curr_items),
        ("total_items", s.total_items),
        ("bytes", s.bytes),
        ("limit_maxbytes", s.limit_maxbytes),
        ("curr_connections", s.clients),
        ("contexts", s.contexts),
        ("cmd_get", s.cmd_get),
        ("get_hits", s.get_hits),
        ("get_misses", s.get_misses),
        ("get_expired", s.get_expired),
        ("get_flushed", s.get_flushed),
        ("cmd_set", s.cmd_set),
        ("cmd_touch", s.cmd_touch),
        ("touch_hits", s.touch_hits),
        ("touch_misses", s.touch_misses),
        ("delete_hits", s.delete_hits),
        ("delete_misses", s.delete_misses),
        ("incr_hits", s.incr_hits),
        ("incr_misses", s.incr_misses),
        ("decr_hits", s.decr_hits),
        ("decr_misses", s.decr_misses),
        ("cas_hits", s.cas_hits),
        ("cas_misses", s.cas_misses),
        ("cas_badval", s.cas_badval),
        ("cmd_flush", s.cmd_flush),
        ("evictions", s.evictions),
        ("chain_evictions", s.chain_evictions),
        ("reclaimed", s.reclaimed),
        ("slabs_moved", s.superblocks_moved),
        ("superblocks", s.superblocks),
        ("superblocks_free", s.superblocks_free),
        ("superblocks_index", s.superblocks_index),
        ("superblocks_chain", s.superblocks_chain),
        ("buckets", s.buckets),
        ("splits", s.splits),
        ("recovered_contexts", s.recovered_contexts),
        ("locks_taken_over", s.locks_taken_over),
        ("busy", s.busy),
    ]
}

/// The class that holds chain lines of the index instead of items.
const CHAIN_CLASS: usize = 0;

#[derive(Serialize)]
struct ClassDocument {
    class: usize,
    holds: &'static str,
    size: u32,
    per_superblock: u32,
    superblocks: u64,
    blocks: u64,
    live: u64,
    free: u64,
    claimed: u64,
    fragments: u64,
    item_bytes: u64,
}

#[derive(Serialize)]
struct Classes {
    classes: Vec<ClassDocument>,
}

impl Classes {
    /// The classes that have superblocks.
    fn of(cache: &Cache) -> Result<Self, CliError> {
        let document = |c: &ClassStats| ClassDocument {
            class: c.class,
            holds: if c.class == CHAIN_CLASS { "chain lines" } else { "items" },
            size: c.size,
            per_superblock: c.per_superblock,
            superblocks: u64::from(c.superblocks),
            blocks: u64::from(c.superblocks) * u64::from(c.per_superblock),
            live: c.live,
            free: c.free,
            claimed: c.claimed,
            fragments: c.fragments,
            item_bytes: c.item_bytes,
        };
        let all: Vec<ClassDocument> = cache.class_stats()?.iter().map(document).collect();
        Ok(Self { classes: all.into_iter().filter(|c| c.superblocks > 0).collect() })
    }
}

fn items(context: &Context, cache: &Cache) -> Result<(), CliError> {
    let mut classes = Classes::of(cache)?;
    classes.classes.retain(|c| c.class != CHAIN_CLASS);
    context.output.answer(&classes, |w, paint| {
        let columns = ["CLASS", "BLOCK", "ITEMS", "FRAGMENTS", "BYTES OF ITEMS", "OF THEIR BLOCKS"];
        let mut table = Table::new(&columns.map(|name| (name, Align::Right)));
        for c in &classes.classes {
            let in_blocks = c.live * u64::from(c.size);
            // A large value lies in fragments, and its head block holds only where they are.
            let used = if c.item_bytes > in_blocks { "-".into() } else { percent(c.item_bytes, in_blocks) };
            let counts = [c.live.to_string(), c.fragments.to_string(), size::format(c.item_bytes), used];
            table.row([c.class.to_string(), size::format(c.size.into())].into_iter().chain(counts));
        }
        table.write(w, paint)
    })
}

fn slabs(context: &Context, cache: &Cache) -> Result<(), CliError> {
    let classes = Classes::of(cache)?;
    context.output.answer(&classes, |w, paint| {
        let columns =
            ["CLASS", "BLOCK", "PER SUPERBLOCK", "SUPERBLOCKS", "BLOCKS", "LIVE", "FRAGMENTS", "CLAIMED", "FREE"];
        let mut columns = columns.map(|name| (name, Align::Right)).to_vec();
        columns.push(("HOLDS", Align::Left));
        let mut table = Table::new(&columns);
        for c in &classes.classes {
            let counts = [u64::from(c.per_superblock), c.superblocks, c.blocks, c.live, c.fragments, c.claimed, c.free];
            let cells =
                [c.class.to_string(), size::format(c.size.into())].into_iter().chain(counts.map(|n| n.to_string()));
            table.row(cells.chain([c.holds.to_owned()]));
        }
        table.write(w, paint)
    })
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".into() } else { format!("{:.0} %", part as f64 * 100.0 / whole as f64) }
}

#[derive(Serialize)]
struct SizeDocument {
    /// Largest key + value counted here.
    up_to: u64,
    items: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct Sizes {
    sizes: Vec<SizeDocument>,
    items: u64,
    bytes: u64,
}

impl Sizes {
    /// Goes through all items.
    fn of(cache: &Cache, json: bool) -> Result<Self, CliError> {
        let bar = progress::bar("scan", Unit::Items, Some(cache.stats()?.curr_items), json);
        let mut counts: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        for entry in cache.scan() {
            let entry = entry?;
            let bytes = (entry.key.len() + entry.value.len()) as u64;
            let (items, sum) = counts.entry(up_to(bytes)).or_default();
            *items += 1;
            *sum += bytes;
            bar.inc(1);
        }
        bar.finish_and_clear();
        let sizes: Vec<SizeDocument> =
            counts.into_iter().map(|(up_to, (items, bytes))| SizeDocument { up_to, items, bytes }).collect();
        Ok(Self { items: sizes.iter().map(|s| s.items).sum(), bytes: sizes.iter().map(|s| s.bytes).sum(), sizes })
    }
}

/// The end of the size's row: powers of two from 32 on.
fn up_to(bytes: u64) -> u64 {
    bytes.max(32).next_power_of_two()
}

fn sizes(context: &Context, cache: &Cache) -> Result<(), CliError> {
    let sizes = Sizes::of(cache, context.output.json)?;
    context.output.answer(&sizes, |w, paint| write_sizes(w, paint, &sizes))
}

fn write_sizes(w: &mut dyn Write, paint: Paint, sizes: &Sizes) -> io::Result<()> {
    const WIDEST: u64 = 32;
    let most = sizes.sizes.iter().map(|s| s.items).max().unwrap_or(1);
    let mut table = Table::new(&[
        ("KEY + VALUE", Align::Right),
        ("ITEMS", Align::Right),
        ("BYTES", Align::Right),
        ("", Align::Left),
    ]);
    for s in &sizes.sizes {
        let bar = "#".repeat((s.items * WIDEST).div_ceil(most) as usize);
        table.row([format!("<= {}", size::format(s.up_to)), s.items.to_string(), size::format(s.bytes), bar]);
    }
    table.row(["all".to_owned(), sizes.items.to_string(), size::format(sizes.bytes), String::new()]);
    table.write(w, paint)
}

#[derive(Serialize)]
struct ClientDocument {
    slot: u32,
    pid: u32,
    pid_namespace: u64,
    command: Option<String>,
    contexts: u32,
    alive: bool,
    this: bool,
}

#[derive(Serialize)]
struct Clients {
    clients: Vec<ClientDocument>,
}

fn clients(context: &Context, cache: &Cache) -> Result<(), CliError> {
    let this = std::process::id();
    let document = |c: &plib::ClientInfo| ClientDocument {
        slot: c.slot,
        pid: c.pid,
        pid_namespace: c.pid_namespace,
        command: (c.alive && cache.shares_pids_with(c)).then(|| command_of(c.pid)).flatten(),
        contexts: c.contexts,
        alive: c.alive,
        this: c.alive && c.pid == this && cache.shares_pids_with(c),
    };
    let clients = Clients { clients: cache.clients()?.iter().map(document).collect() };
    context.output.answer(&clients, |w, paint| {
        let mut table = Table::new(&[
            ("SLOT", Align::Right),
            ("PID", Align::Right),
            ("CONTEXTS", Align::Right),
            ("STATE", Align::Left),
            ("COMMAND", Align::Left),
        ]);
        for c in &clients.clients {
            let state = if c.this {
                "this"
            } else if c.alive {
                "alive"
            } else {
                "dead"
            };
            let command = c.command.clone().unwrap_or_default();
            table.row([c.slot.to_string(), c.pid.to_string(), c.contexts.to_string(), state.to_owned(), command]);
        }
        table.write(w, paint)
    })
}

/// The name of a process of our pid namespace.
fn command_of(pid: u32) -> Option<String> {
    let name = std::fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(crate::bytes::escape(name.trim_ascii_end()))
}
