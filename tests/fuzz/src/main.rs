//! Throws broken input at everything that reads what strangers wrote, for a bounded time.
//!
//!     cargo run -p fuzz -- --seconds 20 all
//!     cargo run -p fuzz --release -- --seconds 600 imap
//!     cargo run -p fuzz -- --file target/fuzz/imap-1a2b imap      # one input again
//!
//! Runs on stable Rust: seeds are mutated blindly, by a generator whose start is printed, so that a run can be repeated. An
//! input that makes a target panic or take too long is written to target/fuzz, and the run fails.

mod mutate;
mod seeds;
mod targets;

use clap::Parser;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use targets::Target;

/// An input of at most 64 KiB that takes longer than this shows that work is not linear.
const TOO_LONG: Duration = Duration::from_secs(5);

/// Throws broken input at the parsers.
#[derive(Parser)]
struct Arguments {
    /// Seconds for each target.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Where the generator starts; chosen by the clock unless given.
    #[arg(long)]
    seed: Option<u64>,
    /// Run a target on this file, and no more.
    #[arg(long)]
    file: Option<PathBuf>,
    /// The targets, or `all`.
    #[arg(required = true)]
    targets: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let all = targets::all();
    let wanted: Vec<&Target> = all
        .iter()
        .filter(|target| {
            arguments
                .targets
                .iter()
                .any(|name| name == "all" || name == target.name)
        })
        .collect();
    let known = |name: &String| name == "all" || all.iter().any(|target| target.name == name);
    if let Some(name) = arguments.targets.iter().find(|name| !known(name)) {
        let names: Vec<&str> = all.iter().map(|target| target.name).collect();
        eprintln!(
            "fuzz: there is no target {name}; there are {}",
            names.join(", ")
        );
        return ExitCode::from(64);
    }
    if let Some(file) = &arguments.file {
        return again(file, &wanted);
    }
    let seed = arguments.seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .unwrap_or_default();
        u64::from(now.subsec_nanos()) ^ now.as_secs()
    });
    println!("fuzz: --seed {seed}");
    // What a target says when it panics is shown by the hook; the run goes on with the next target.
    let broken = wanted
        .iter()
        .filter(|target| !run(target, Duration::from_secs(arguments.seconds), seed))
        .count();
    if broken > 0 {
        println!("fuzz: {broken} of {} targets broken", wanted.len());
        return ExitCode::FAILURE;
    }
    println!("fuzz: {} targets hold", wanted.len());
    ExitCode::SUCCESS
}

fn again(file: &Path, wanted: &[&Target]) -> ExitCode {
    match std::fs::read(file) {
        Ok(input) => {
            for target in wanted {
                (target.run)(&input);
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("fuzz: {}: {error}", file.display());
            ExitCode::FAILURE
        }
    }
}

fn run(target: &Target, time: Duration, seed: u64) -> bool {
    let mut mutator = mutate::Mutator::new(seed, target.words);
    let mut pool = (target.seeds)();
    let end = Instant::now() + time;
    let mut runs: u64 = 0;
    for input in &pool {
        if !holds(target, input) {
            return false;
        }
        runs += 1;
    }
    while Instant::now() < end {
        let input = mutator.next(&pool);
        if !holds(target, &input) {
            return false;
        }
        runs += 1;
        mutator.keep(&mut pool, input);
    }
    println!("fuzz: {}: {runs} inputs", target.name);
    true
}

fn holds(target: &Target, input: &[u8]) -> bool {
    let began = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let took = began.elapsed();
    let fault = match outcome {
        Ok(()) if took < TOO_LONG => return true,
        Ok(()) => format!("took {} ms", took.as_millis()),
        Err(_) => "panicked".to_owned(),
    };
    let folder = Path::new("target/fuzz");
    let hash = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, octet| {
        (hash ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3)
    });
    let file = folder.join(format!("{}-{hash:016x}", target.name));
    let saved = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&file, input));
    println!(
        "fuzz: {} {fault} on {} octets: {}",
        target.name,
        input.len(),
        saved.map_or_else(|error| error.to_string(), |()| file.display().to_string())
    );
    false
}
