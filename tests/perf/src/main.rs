//! Measures the suite, and Debian's Postfix and Dovecot beside it: the same load, the same machine, one run.
//!
//! Each side is started in a directory of its own on loopback, all filters off, with the durability it has by default
//! (a message is on disk before it is acknowledged). The load generator speaks SMTP and IMAP itself and is the same for
//! all sides; figures are taken from the outside: wall clock, `/proc/PID/stat`, `/proc/PID/smaps_rollup`.

mod corpus;
mod imap;
mod measure;
mod processes;
mod report;
mod side;
mod sink;
mod smtp;
mod tls;

use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;

/// What may go wrong here; a benchmark stops at the first surprise.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Measures Posthouse, and Postfix with Dovecot beside it.
#[derive(Parser)]
struct Arguments {
    /// The `posthouse` program to measure.
    #[arg(long, default_value = "target/release/posthouse")]
    posthouse: PathBuf,
    /// Where the sides keep their data. On a disk, not on a tmpfs: durability is part of what is measured.
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
    /// Which sides to measure; all that can run here unless given.
    #[arg(long, value_delimiter = ',')]
    sides: Vec<side::Kind>,
    /// Which measurements to take; all unless given.
    #[arg(long, value_delimiter = ',')]
    only: Vec<measure::Group>,
    /// A tenth of the load: shows that everything works, and no more.
    #[arg(long)]
    quick: bool,
    /// Messages in the queue that is drained.
    #[arg(long)]
    drained: Option<usize>,
    /// Leaves the directories of the sides in place.
    #[arg(long)]
    keep: bool,
    /// Writes the figures to this file as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Writes the table to this file as Markdown.
    #[arg(long)]
    markdown: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(bench(&arguments)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("perf: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn bench(arguments: &Arguments) -> Outcome<()> {
    let mut load = measure::Load::new(arguments.quick);
    load.drained = arguments.drained.unwrap_or(load.drained).max(100);
    let mut report = report::Report::default();
    let mut wanted = arguments.sides.clone();
    if wanted.is_empty() {
        wanted.push(side::Kind::Posthouse);
        match side::peers::why_not() {
            None => wanted.push(side::Kind::PostfixDovecot),
            Some(why) => eprintln!("perf: Postfix and Dovecot are not measured: {why}"),
        }
        match side::postgresql::why_not() {
            None => wanted.push(side::Kind::PosthousePostgresql),
            Some(why) => eprintln!("perf: PostgreSQL is not measured: {why}"),
        }
    }
    let mut failed = None;
    for kind in wanted {
        let dir = arguments
            .dir
            .join(format!("perf-{}-{}", kind.name(), std::process::id()));
        std::fs::create_dir_all(&dir)?;
        eprintln!("perf: {}", kind.title());
        let figures = measure_side(kind, arguments, &dir, &load).await;
        if !arguments.keep && figures.is_ok() {
            std::fs::remove_dir_all(&dir)?;
        }
        match figures {
            Ok(figures) => report.add(kind, figures),
            Err(e) => {
                failed = Some(format!("{} (see {}): {e}", kind.title(), dir.display()));
                break;
            }
        }
    }
    println!("{}", report.table());
    if let Some(file) = &arguments.json {
        std::fs::write(file, report.json()?)?;
    }
    if let Some(file) = &arguments.markdown {
        std::fs::write(file, report.markdown())?;
    }
    failed.map_or(Ok(()), |failed| Err(failed.into()))
}

async fn measure_side(
    kind: side::Kind,
    arguments: &Arguments,
    dir: &std::path::Path,
    load: &measure::Load,
) -> Outcome<Vec<report::Figure>> {
    let side = match kind {
        side::Kind::Posthouse => side::posthouse::start(&arguments.posthouse, dir, None).await?,
        side::Kind::PosthousePostgresql => {
            let server = side::postgresql::start(dir).await?;
            side::posthouse::start(&arguments.posthouse, dir, Some(server)).await?
        }
        side::Kind::PostfixDovecot => side::peers::start(dir).await?,
    };
    measure::all(&side, load, &arguments.only).await
}
